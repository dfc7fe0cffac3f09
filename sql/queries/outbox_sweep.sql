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
WITH shard AS MATERIALIZED (
    SELECT
        stream.stream,
        stream.job_kind,
        stream.park_policy,
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
        -- Not looked for where the answer changes nothing: behind a snapshot that is
        -- held for long, it may have to pass by all that was delivered since.
        CASE WHEN shard.has_runnable_job THEN true ELSE EXISTS (
            SELECT
            FROM outbox_delivery AS delivery
            WHERE delivery.stream = shard.stream
                AND delivery.shard = shard.shard
                AND delivery.published_at IS NULL
                AND delivery.parked_at IS NULL
                AND delivery.discarded_at IS NULL
                AND (delivery.not_before IS NULL OR delivery.not_before <= clock_timestamp())
                AND NOT EXISTS (
                    SELECT
                    FROM outbox_delivery AS held
                    WHERE held.stream = delivery.stream
                        AND held.shard = delivery.shard
                        AND held.key = delivery.key
                        AND held.place < delivery.place
                        AND held.published_at IS NULL
                        AND held.discarded_at IS NULL
                        AND (held.parked_at IS NOT NULL OR held.not_before IS NOT NULL)
                        AND (
                            (held.parked_at IS NOT NULL AND shard.park_policy = 'block')
                            OR (held.parked_at IS NULL AND held.not_before > clock_timestamp())
                        )
                )
        ) END AS has_due,
        shard.shard = 0 AND NOT EXISTS (
            SELECT
            FROM loop_progress AS progress
            WHERE progress.loop = shard.job_kind
                AND progress.last_success_at > clock_timestamp() - @proof_interval::interval
        ) AS wants_proof
    FROM shard
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
