-- name: LoopProgressRecordFailure :exec
-- LoopProgressRecordFailure counts a failed pass of a worker: since the worker's
-- own last success if it is_own, and since any worker's.
INSERT INTO loop_progress AS progress (loop, worker_id, consecutive_failures, failed_by_broker, fleet_failures, last_error, last_failure_at)
VALUES (@loop, @worker_id, CASE WHEN @is_own::boolean THEN 1 ELSE 0 END, @is_own::boolean AND @of_broker::boolean, 1, @last_error::text, clock_timestamp())
ON CONFLICT (loop, worker_id) DO UPDATE
SET
    consecutive_failures = progress.consecutive_failures + excluded.consecutive_failures,
    failed_by_broker = CASE WHEN @is_own::boolean THEN excluded.failed_by_broker ELSE progress.failed_by_broker END,
    fleet_failures = CASE
        WHEN progress.last_failure_at <= (
            SELECT max(fleet.last_success_at)
            FROM loop_progress AS fleet
            WHERE fleet.loop = progress.loop
        ) THEN 1
        ELSE progress.fleet_failures + 1
    END,
    last_error = excluded.last_error,
    last_failure_at = excluded.last_failure_at;

-- name: LoopProgressRecordNeutral :exec
-- LoopProgressRecordNeutral notes a pass that could tell neither success nor
-- failure.
INSERT INTO loop_progress (loop, worker_id, last_neutral_at)
VALUES (@loop, @worker_id, clock_timestamp())
ON CONFLICT (loop, worker_id) DO UPDATE
SET last_neutral_at = excluded.last_neutral_at;

-- name: LoopProgressRecordSuccess :exec
-- LoopProgressRecordSuccess notes a successful pass of a worker, and whether it
-- moved anything.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
)
INSERT INTO loop_progress AS progress (loop, worker_id, last_items_at, last_success_at)
SELECT
    @loop::text,
    @worker_id::text,
    CASE WHEN @has_items::boolean THEN clock.now END,
    clock.now
FROM clock
ON CONFLICT (loop, worker_id) DO UPDATE
SET
    consecutive_failures = 0,
    fleet_failures = 0,
    last_items_at = coalesce(excluded.last_items_at, progress.last_items_at),
    last_success_at = excluded.last_success_at;

-- name: LoopProgressListOwn :many
-- LoopProgressListOwn returns what one worker did on each loop since an instant,
-- which is its start: a worker that bore the same id before does not count. is_shared:
-- no other worker succeeded between this one's failures, and one has succeeded since, so
-- the whole fleet failed and works again.
SELECT
    progress.loop,
    (CASE WHEN progress.last_failure_at >= @since::timestamptz THEN progress.consecutive_failures ELSE 0 END)::integer AS consecutive_failures,
    coalesce(greatest(clock_timestamp() - progress.last_failure_at, interval '0'), interval '0')::interval AS failure_age,
    progress.failed_by_broker,
    coalesce(progress.fleet_failures >= progress.consecutive_failures AND progress.last_failure_at < (
        SELECT max(fleet.last_success_at)
        FROM loop_progress AS fleet
        WHERE fleet.loop = progress.loop
    ), false)::boolean AS is_shared,
    coalesce(progress.last_error, '')::text AS last_error,
    (coalesce(progress.last_success_at, '-infinity') >= @since)::boolean AS has_succeeded,
    coalesce(greatest(clock_timestamp() - progress.last_success_at, interval '0'), interval '0')::interval AS success_age
FROM loop_progress AS progress
WHERE progress.worker_id = @worker_id;
