-- name: LoopContractRegister :exec
-- LoopContractRegister stores what is expected of a loop. Its baseline and its
-- pause stay as they are.
INSERT INTO loop_contract (
    loop, budget, gates_readiness, item_red_after, job_kind, late_after, pass_interval, queue, red_after, scheduled, sort_order
) VALUES (
    @loop, @budget, @gates_readiness, sqlc.narg('item_red_after'), @job_kind, @late_after, @pass_interval, @queue, @red_after, @scheduled, @sort_order
)
ON CONFLICT (loop) DO UPDATE
SET
    budget = excluded.budget,
    gates_readiness = excluded.gates_readiness,
    item_red_after = excluded.item_red_after,
    job_kind = excluded.job_kind,
    late_after = excluded.late_after,
    pass_interval = excluded.pass_interval,
    queue = excluded.queue,
    red_after = excluded.red_after,
    scheduled = excluded.scheduled,
    sort_order = excluded.sort_order;

-- name: LoopContractPause :one
-- LoopContractPause pauses a loop, and returns its queue. A loop that was paused
-- before keeps its instant and takes the new name and reason. No row: there is no
-- such loop.
UPDATE loop_contract
SET
    pause_reason = @pause_reason::text,
    paused_at = coalesce(paused_at, clock_timestamp()),
    paused_by = @paused_by::text
WHERE loop = @loop
RETURNING queue;

-- name: LoopContractRebase :exec
-- LoopContractRebase lets a loop's age count from now.
UPDATE loop_contract
SET baseline_at = clock_timestamp()
WHERE loop = @loop;

-- name: LoopContractResume :one
-- LoopContractResume ends a loop's pause, ours or that of its queue, lets its age
-- count from now, and returns its queue. A loop that is not paused stays as it
-- is. No row: there is no such loop.
UPDATE loop_contract
SET
    baseline_at = CASE
        WHEN loop_contract.paused_at IS NOT NULL OR EXISTS (
            SELECT
            FROM river_queue
            WHERE river_queue.name = loop_contract.queue
                AND river_queue.paused_at IS NOT NULL
        ) THEN clock_timestamp()
        ELSE loop_contract.baseline_at
    END,
    pause_reason = NULL,
    paused_at = NULL,
    paused_by = NULL
WHERE loop_contract.loop = @loop
RETURNING queue;

-- name: LoopContractEnsureQueue :exec
-- LoopContractEnsureQueue makes River know a queue that no client has worked yet,
-- so that it can be paused.
INSERT INTO river_queue (name, updated_at)
VALUES (@name, clock_timestamp())
ON CONFLICT (name) DO NOTHING;

-- name: LoopContractNames :many
-- LoopContractNames returns the names of all loops, in the order of status.
SELECT loop
FROM loop_contract
ORDER BY sort_order, loop;
