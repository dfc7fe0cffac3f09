-- name: WorkerHeartbeatBegin :one
-- WorkerHeartbeatBegin notes that a worker has started, and returns when. No row: the id
-- belongs to another process that has not stopped, and was seen less than stale_after ago.
INSERT INTO worker_heartbeat AS heartbeat (worker_id, queues, reasons, version)
VALUES (@worker_id, @queues::text[], '{starting}', @version)
ON CONFLICT (worker_id) DO UPDATE
SET
    queues = excluded.queues,
    ready_at = NULL,
    reasons = excluded.reasons,
    seen_at = excluded.seen_at,
    started_at = excluded.started_at,
    stopped_at = NULL,
    version = excluded.version
WHERE heartbeat.stopped_at IS NOT NULL
    OR abs(extract(epoch FROM clock_timestamp() - heartbeat.seen_at)) > extract(epoch FROM @stale_after::interval)
RETURNING started_at;

-- name: WorkerHeartbeatBeat :execrows
-- WorkerHeartbeatBeat notes that a worker lives, and whether it is ready. It
-- brings back a row that was retired while the worker was frozen. While it is
-- ready, both times are the same. No row: the id belongs to another live process, as in
-- WorkerHeartbeatBegin.
INSERT INTO worker_heartbeat AS heartbeat (worker_id, queues, ready_at, reasons, seen_at, started_at, version)
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
    queues = excluded.queues,
    ready_at = coalesce(excluded.ready_at, CASE WHEN heartbeat.started_at = excluded.started_at THEN heartbeat.ready_at END),
    reasons = excluded.reasons,
    seen_at = excluded.seen_at,
    started_at = excluded.started_at,
    stopped_at = NULL,
    version = excluded.version
WHERE heartbeat.started_at = excluded.started_at
    OR heartbeat.stopped_at IS NOT NULL
    OR abs(extract(epoch FROM clock_timestamp() - heartbeat.seen_at)) > extract(epoch FROM @stale_after::interval);

-- name: WorkerHeartbeatHolder :one
-- WorkerHeartbeatHolder returns whose a worker id is.
SELECT
    heartbeat.started_at,
    greatest(clock_timestamp() - heartbeat.seen_at, interval '0')::interval AS seen_age
FROM worker_heartbeat AS heartbeat
WHERE heartbeat.worker_id = @worker_id;

-- name: WorkerHeartbeatStop :execrows
-- WorkerHeartbeatStop is the last beat of a worker that stops cleanly.
UPDATE worker_heartbeat
SET
    reasons = '{draining}',
    seen_at = statement_timestamp(),
    stopped_at = statement_timestamp()
WHERE worker_id = @worker_id
    AND started_at = @started_at;

-- name: WorkerHeartbeatList :many
-- WorkerHeartbeatList returns all workers, the latest seen first.
SELECT
    worker_id,
    queues,
    ready_at,
    reasons,
    seen_at,
    started_at,
    stopped_at,
    version,
    greatest(clock_timestamp() - seen_at, interval '0')::interval AS seen_age
FROM worker_heartbeat
ORDER BY seen_at DESC, worker_id;

-- name: WorkerHeartbeatRetire :one
-- WorkerHeartbeatRetire forgets up to 100 workers that were not seen for
-- retire_after. When they last succeeded is kept in the progress of the worker
-- 'retired', so that no loop ever looks as if it had not. It returns how many of them it
-- did not come to remove.
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
), forgotten AS (
    DELETE FROM worker_heartbeat AS heartbeat
    USING dead
    WHERE heartbeat.worker_id = dead.worker_id
    RETURNING heartbeat.worker_id
)
SELECT ((SELECT count(*) FROM dead) - (SELECT count(*) FROM forgotten))::bigint AS num_kept;
