-- name: WorkerHeartbeatBegin :one
-- WorkerHeartbeatBegin notes that a worker has started, and returns when.
INSERT INTO worker_heartbeat (worker_id, queues, reasons, version)
VALUES (@worker_id, @queues::text[], '{starting}', @version)
ON CONFLICT (worker_id) DO UPDATE
SET
    queues = excluded.queues,
    ready_at = NULL,
    reasons = excluded.reasons,
    seen_at = excluded.seen_at,
    started_at = excluded.started_at,
    version = excluded.version
RETURNING started_at;

-- name: WorkerHeartbeatBeat :exec
-- WorkerHeartbeatBeat notes that a worker lives, and whether it is ready. It
-- brings back a row that was retired while the worker was frozen. While it is
-- ready, both times are the same.
INSERT INTO worker_heartbeat (worker_id, queues, ready_at, reasons, seen_at, started_at, version)
VALUES (
    @worker_id,
    @queues::text[],
    CASE WHEN @ready::boolean THEN statement_timestamp() END,
    @reasons::text[],
    statement_timestamp(),
    @started_at,
    @version
)
ON CONFLICT (worker_id) DO UPDATE
SET
    ready_at = coalesce(excluded.ready_at, worker_heartbeat.ready_at),
    reasons = excluded.reasons,
    seen_at = excluded.seen_at;

-- name: WorkerHeartbeatList :many
-- WorkerHeartbeatList returns all workers, the latest seen first.
SELECT
    worker_id,
    queues,
    ready_at,
    reasons,
    seen_at,
    started_at,
    version,
    greatest(clock_timestamp() - seen_at, interval '0')::interval AS seen_age
FROM worker_heartbeat
ORDER BY seen_at DESC, worker_id;

-- name: WorkerHeartbeatRetire :execrows
-- WorkerHeartbeatRetire forgets up to 100 workers that were not seen for
-- retire_after. When they last succeeded is kept in the progress of the worker
-- 'retired', so that no loop ever looks as if it had not.
WITH dead AS (
    SELECT heartbeat.worker_id
    FROM worker_heartbeat AS heartbeat
    WHERE heartbeat.seen_at < clock_timestamp() - @retire_after::interval
    ORDER BY heartbeat.worker_id
    LIMIT 100
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM loop_progress AS progress
    USING dead
    WHERE progress.worker_id = dead.worker_id
    RETURNING progress.loop, progress.last_items_at, progress.last_neutral_at, progress.last_success_at
), folded AS (
    INSERT INTO loop_progress AS retired (loop, worker_id, last_items_at, last_neutral_at, last_success_at)
    SELECT
        gone.loop,
        'retired',
        max(gone.last_items_at),
        max(gone.last_neutral_at),
        max(gone.last_success_at)
    FROM gone
    GROUP BY gone.loop
    ORDER BY gone.loop
    ON CONFLICT (loop, worker_id) DO UPDATE
    SET
        last_items_at = greatest(retired.last_items_at, excluded.last_items_at),
        last_neutral_at = greatest(retired.last_neutral_at, excluded.last_neutral_at),
        last_success_at = greatest(retired.last_success_at, excluded.last_success_at)
)
DELETE FROM worker_heartbeat
USING dead
WHERE worker_heartbeat.worker_id = dead.worker_id;
