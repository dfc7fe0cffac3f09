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
WITH candidate AS (
    SELECT
        stream.job_kind,
        stream.queue,
        shard.shard,
        shard.backoff_until > clock_timestamp() AS is_resting,
        EXISTS (
            SELECT
            FROM outbox_event AS event
            WHERE event.stream = shard.stream
                AND event.shard = shard.shard
                AND event.published_at IS NULL
                AND event.parked_at IS NULL
                AND event.discarded_at IS NULL
                AND (event.not_before IS NULL OR event.not_before <= clock_timestamp())
                AND NOT EXISTS (
                    SELECT
                    FROM outbox_event AS held
                    WHERE held.stream = event.stream
                        AND held.shard = event.shard
                        AND held.key = event.key
                        AND held.id < event.id
                        AND held.published_at IS NULL
                        AND held.discarded_at IS NULL
                        AND (held.parked_at IS NOT NULL OR held.not_before IS NOT NULL)
                        AND (
                            (held.parked_at IS NOT NULL AND stream.park_policy = 'block')
                            OR (held.parked_at IS NULL AND held.not_before > clock_timestamp())
                        )
                )
        ) AS has_due,
        shard.shard = 0 AND NOT EXISTS (
            SELECT
            FROM loop_progress AS progress
            WHERE progress.loop = stream.job_kind
                AND progress.last_success_at > clock_timestamp() - @proof_interval::interval
        ) AS wants_proof,
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
        AND judged.is_resting IS NOT TRUE
    RETURNING queue
)
SELECT DISTINCT
    inserted.queue,
    -- Wakes River's clients; its channel is named after the schema.
    pg_notify(current_schema() || '.river_insert', json_build_object('queue', inserted.queue)::text)::text AS notified
FROM inserted;
