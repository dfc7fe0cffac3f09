-- name: OutboxHistoryLock :one
-- OutboxHistoryLock lets one move or drop work at a time, until its transaction
-- ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('truegreen.outbox_history', 0)) AS locked;

-- name: OutboxHistoryMake :one
-- OutboxHistoryMake makes the missing partitions from today to num_days ahead.
SELECT outbox_history_make(
    (clock_timestamp() AT TIME ZONE 'UTC')::date,
    (clock_timestamp() AT TIME ZONE 'UTC')::date + @num_days::integer
)::bigint AS num_made;

-- name: OutboxHistoryMove :one
-- OutboxHistoryMove moves events that were resolved longer ago than keep; see the SQL
-- function of that name for the three numbers that it returns.
SELECT outbox_history_move(clock_timestamp() - @keep::interval, @after_id::bigint, @window_size::integer)::bigint[] AS moved;

-- name: OutboxHistoryLag :one
-- OutboxHistoryLag returns how long ago the first event that is still to be moved was
-- published or discarded.
SELECT coalesce((
    SELECT clock_timestamp() - coalesce(delivery.published_at, delivery.discarded_at)
    FROM outbox_delivery AS delivery
    WHERE num_nonnulls(delivery.published_at, delivery.discarded_at) = 1
    ORDER BY delivery.id
    LIMIT 1
), '0')::interval AS lag;

-- name: OutboxHistoryDrop :one
-- OutboxHistoryDrop drops the partitions of days that ended longer ago than keep,
-- and returns the names of those that it did not dare to drop.
SELECT outbox_history_drop(((clock_timestamp() - @keep::interval) AT TIME ZONE 'UTC')::date)::text[] AS kept;

-- name: OutboxOverdue :one
-- OutboxOverdue counts the events that were appended longer ago than keep and are
-- neither published nor discarded.
--
-- Apart, since each part has an index of its own.
SELECT
    count(*) AS num_events,
    coalesce(min(overdue.id), 0)::bigint AS first_id
FROM (
    SELECT delivery.id
    FROM outbox_delivery AS delivery
    WHERE delivery.created_at < clock_timestamp() - @keep::interval
        AND delivery.published_at IS NULL
        AND delivery.parked_at IS NULL
        AND delivery.discarded_at IS NULL
    UNION ALL
    SELECT delivery.id
    FROM outbox_delivery AS delivery
    WHERE delivery.created_at < clock_timestamp() - @keep::interval
        AND delivery.published_at IS NULL
        AND delivery.discarded_at IS NULL
        AND delivery.parked_at IS NOT NULL
) AS overdue;

-- name: OutboxJobPrune :one
-- OutboxJobPrune removes publish and maintenance jobs that failed for good longer ago
-- than keep: what became of the events is on the events.
WITH old AS MATERIALIZED (
    SELECT job.id
    FROM river_job AS job
    WHERE job.state = 'discarded'
        AND job.kind IN (SELECT stream.job_kind FROM outbox_stream AS stream UNION ALL SELECT @maintenance_kind::text)
        AND job.finalized_at < clock_timestamp() - @keep::interval
    ORDER BY job.id
    LIMIT 10000
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM river_job
    WHERE id IN (SELECT old.id FROM old)
    RETURNING id
)
SELECT
    (SELECT count(*) FROM old) AS num_old,
    (SELECT count(*) FROM removed) AS num_removed;
