-- name: OutboxSweepLock :one
-- OutboxSweepLock lets one sweep work at a time, until its transaction ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('truegreen.outbox_sweep', 0)) AS locked;

-- name: OutboxSweep :many
-- OutboxSweep inserts a publish job for each shard that has due events, rests in
-- no backoff, and has no job that can run soon. Runnable is a job that may be
-- fetched within a second, and a running one whose shard's lease is live: a
-- leaseholder that died counts no longer once its lease is over.
--
-- A stream that has nothing due, and has proven nothing for proof_interval, gets
-- one job too: a pass that finds nothing due is what keeps an idle stream green.
WITH due AS MATERIALIZED (
    SELECT
        stream,
        shard,
        due_at
    FROM outbox_due
), shard AS MATERIALIZED (
    SELECT
        stream.stream,
        stream.job_kind,
        stream.queue,
        shard.shard,
        coalesce(shard.backoff_until > clock_timestamp(), false) AS is_resting,
        EXISTS (
            SELECT
            FROM river_job AS job
            WHERE job.state IN ('available', 'scheduled', 'retryable')
                AND job.queue = stream.queue
                AND job.kind = stream.job_kind
                AND job.args = jsonb_build_object('shard', shard.shard)
                AND job.scheduled_at <= clock_timestamp() + interval '1 second'
        ) OR (
            -- NULL must not spread: a job that died before it leased is no help either.
            coalesce(shard.lease_expires_at > clock_timestamp(), false)
            AND EXISTS (
                SELECT
                FROM river_job AS job
                WHERE job.state = 'running'
                    AND job.queue = stream.queue
                    AND job.kind = stream.job_kind
                    AND job.args = jsonb_build_object('shard', shard.shard)
            )
        ) AS has_runnable_job
    FROM outbox_shard AS shard
    JOIN outbox_stream AS stream ON stream.stream = shard.stream
), candidate AS (
    SELECT
        shard.*,
        due.due_at IS NOT NULL AS has_due,
        shard.shard = 0 AND NOT EXISTS (
            SELECT
            FROM loop_progress AS progress
            WHERE progress.loop = shard.job_kind
                AND progress.last_success_at > clock_timestamp() - @proof_interval::interval
        ) AS wants_proof
    FROM shard
    JOIN due ON due.stream = shard.stream AND due.shard = shard.shard
), judged AS (
    SELECT
        candidate.*,
        bool_or(candidate.has_due) OVER (PARTITION BY candidate.queue) AS stream_has_due
    FROM candidate
), inserted AS (
    INSERT INTO river_job (args, kind, max_attempts, queue)
    SELECT
        jsonb_build_object('shard', judged.shard),
        judged.job_kind,
        @max_attempts::smallint,
        judged.queue
    FROM judged
    WHERE (judged.has_due OR (judged.wants_proof AND NOT judged.stream_has_due))
        AND NOT judged.has_runnable_job
        AND NOT judged.is_resting
    RETURNING queue
)
SELECT DISTINCT
    inserted.queue,
    -- Wakes River's clients; its channel is named after the schema.
    pg_notify(current_schema() || '.river_insert', json_build_object('queue', inserted.queue)::text)::text AS notified
FROM inserted;

-- name: OutboxCursorNote :execrows
-- OutboxCursorNote notes where the searches for undelivered events begin, for each shard
-- that delivered min_published events since it was noted, was noted longer than max_age
-- ago, or not since the server started.
INSERT INTO outbox_cursor (
    stream, shard, fresh_also, fresh_from, noted_at, num_published, server_started_at, waiting_also, waiting_from
)
SELECT
    shard.stream,
    shard.shard,
    fresh.also,
    fresh.from_xact,
    clock_timestamp(),
    shard.num_published,
    pg_postmaster_start_time(),
    waiting.also,
    waiting.from_xact
FROM outbox_shard AS shard
LEFT JOIN outbox_cursor AS before ON before.stream = shard.stream AND before.shard = shard.shard
CROSS JOIN LATERAL outbox_cursor_next(shard.stream, shard.shard, true) AS fresh
CROSS JOIN LATERAL outbox_cursor_next(shard.stream, shard.shard, false) AS waiting
WHERE before.stream IS NULL
    OR before.server_started_at <> pg_postmaster_start_time()
    OR before.num_published + @min_published::bigint <= shard.num_published
    OR before.noted_at NOT BETWEEN clock_timestamp() - @max_age::interval AND clock_timestamp()
ON CONFLICT (stream, shard) DO UPDATE
SET
    fresh_also = excluded.fresh_also,
    fresh_from = excluded.fresh_from,
    noted_at = excluded.noted_at,
    num_published = excluded.num_published,
    server_started_at = excluded.server_started_at,
    waiting_also = excluded.waiting_also,
    waiting_from = excluded.waiting_from;
