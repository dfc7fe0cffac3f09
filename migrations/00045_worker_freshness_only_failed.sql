-- Why:   a loop that has only ever failed counted as starting until it was old enough to
--        be red: 22 minutes for maintenance. Three failures in a row and no success ever
--        is failing, at any age. Nothing else of the view changes.
-- Locks: ACCESS EXCLUSIVE on the view for an instant.
-- Undo:  such a loop counts as starting again.

-- +goose Up
SET LOCAL lock_timeout = '2s';
CREATE OR REPLACE VIEW worker_freshness AS
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), measured AS (
    SELECT
        contract.*,
        clock.now,
        coalesce(contract.paused_at, queue.paused_at) AS any_paused_at,
        CASE WHEN contract.paused_at IS NOT NULL THEN contract.paused_by WHEN queue.paused_at IS NOT NULL THEN 'unknown' END AS any_paused_by,
        success.last_success_at,
        success.last_items_at,
        CASE
            WHEN contract.scheduled AND due.oldest_due_at IS NULL THEN clock.now
            WHEN contract.scheduled THEN greatest(due.oldest_due_at, contract.baseline_at)
            ELSE greatest(success.last_success_at, contract.baseline_at)
        END AS proven_at,
        coalesce(failure.num_failures, 0) AS num_failures,
        failure.last_failure_at,
        failure.last_error,
        -- Since its creation or last resume. A scheduled loop owes a success only while
        -- something is due.
        success.last_success_at IS NULL
        AND coalesce(failure.num_failures, 0) >= 3
        AND coalesce(failure.last_failure_at > contract.baseline_at, false)
        AND (NOT contract.scheduled OR due.oldest_due_at IS NOT NULL) AS only_failed,
        completed.last_attempted_at,
        running.since AS running_since,
        due.oldest_due_at,
        due.stuck_part,
        due.num_failed,
        due.num_failing,
        due.num_parked
    FROM loop_contract AS contract
    CROSS JOIN clock
    LEFT JOIN river_queue AS queue ON queue.name = contract.queue
    CROSS JOIN LATERAL (
        SELECT
            max(progress.last_success_at) AS last_success_at,
            max(progress.last_items_at) AS last_items_at
        FROM loop_progress AS progress
        WHERE progress.loop = contract.loop
    ) AS success
    CROSS JOIN LATERAL (
        SELECT
            sum(progress.fleet_failures) FILTER (
                WHERE success.last_success_at IS NULL OR progress.last_failure_at > success.last_success_at
            ) AS num_failures,
            max(progress.last_failure_at) AS last_failure_at,
            (array_agg(progress.last_error ORDER BY progress.last_failure_at DESC NULLS LAST))[1] AS last_error
        FROM loop_progress AS progress
        WHERE progress.loop = contract.loop
    ) AS failure
    CROSS JOIN LATERAL (
        -- attempted_at is the database's clock, finalized_at the worker's. The
        -- conditions are those of river_job_completed_idx, to the letter.
        SELECT max(job.attempted_at) AS last_attempted_at
        FROM river_job AS job
        WHERE job.kind = contract.job_kind
            AND job.state = 'completed'
            AND (job.metadata #> '{output,neutral}') IS NULL
    ) AS completed
    CROSS JOIN LATERAL (
        SELECT min(job.attempted_at) AS since
        FROM river_job AS job
        WHERE job.state = 'running'
            AND job.queue = contract.queue
            AND job.kind = contract.job_kind
            AND job.attempted_at > clock.now - contract.budget
    ) AS running
    CROSS JOIN LATERAL (
        SELECT
            min(part.oldest_due_at) AS oldest_due_at,
            min(part.part) FILTER (
                WHERE part.oldest_due_at < clock.now - contract.item_red_after
                    AND greatest(part.last_moved_at, contract.baseline_at) < clock.now - contract.item_red_after
            ) AS stuck_part,
            coalesce(sum(part.num_failed), 0) AS num_failed,
            coalesce(sum(part.num_failing), 0) AS num_failing,
            coalesce(sum(part.num_parked), 0) AS num_parked
        FROM loop_due AS part
        WHERE part.loop = contract.loop
    ) AS due
)
SELECT
    measured.loop,
    measured.queue,
    measured.job_kind AS kind,
    CASE WHEN measured.gates_readiness THEN 'required' ELSE 'advisory' END::text AS readiness,
    measured.last_success_at::timestamptz AS last_success_at,
    (CASE WHEN measured.last_success_at IS NOT NULL THEN greatest(measured.now - measured.last_success_at, interval '0') END)::interval AS success_age,
    measured.last_attempted_at::timestamptz AS last_completed_job_at,
    measured.late_after,
    measured.red_after,
    (CASE WHEN measured.oldest_due_at IS NOT NULL THEN greatest(measured.now - measured.oldest_due_at, interval '0') END)::interval AS oldest_due_age,
    measured.num_failures::integer AS consecutive_failures,
    measured.last_error::text AS last_error,
    (measured.any_paused_at IS NOT NULL)::boolean AS paused,
    CASE
        WHEN measured.any_paused_at IS NOT NULL THEN 'paused'
        WHEN NOT measured.scheduled AND measured.last_success_at IS NULL AND measured.now - measured.proven_at <= measured.red_after AND NOT measured.only_failed THEN 'starting'
        WHEN NOT measured.scheduled AND measured.last_attempted_at > measured.proven_at + measured.late_after THEN 'silent_noop'
        WHEN measured.only_failed THEN 'failing'
        WHEN measured.now - measured.proven_at > measured.red_after AND measured.num_failures >= 3 THEN 'failing'
        WHEN measured.now - measured.proven_at > measured.red_after THEN 'stalled'
        WHEN measured.now - measured.proven_at > measured.late_after AND measured.num_failures >= 3 THEN 'failing'
        WHEN measured.stuck_part IS NOT NULL THEN 'stalled'
        WHEN measured.num_failed > 0 THEN 'failing'
        WHEN measured.running_since IS NOT NULL THEN 'busy'
        WHEN measured.oldest_due_at < measured.now - measured.item_red_after THEN 'behind'
        WHEN measured.num_failing + measured.num_parked > 0 THEN 'degraded'
        WHEN measured.now - measured.proven_at > measured.late_after THEN 'late'
        WHEN measured.oldest_due_at IS NULL AND (measured.last_items_at IS NULL OR measured.last_items_at < measured.last_success_at) THEN 'idle'
        ELSE 'ok'
    END::text AS verdict,
    greatest(measured.now - measured.proven_at, interval '0')::interval AS age,
    measured.baseline_at,
    measured.budget,
    measured.item_red_after,
    measured.last_failure_at::timestamptz AS last_failure_at,
    measured.last_items_at::timestamptz AS last_items_at,
    measured.num_failing::integer AS num_failing,
    measured.num_parked::integer AS num_parked,
    measured.any_paused_at::timestamptz AS paused_at,
    measured.any_paused_by::text AS paused_by,
    measured.pause_reason,
    measured.running_since::timestamptz AS running_since,
    measured.sort_order,
    measured.stuck_part::text AS stuck_part,
    measured.num_failed::integer AS num_failed,
    measured.scheduled
FROM measured;

-- +goose Down
SET LOCAL lock_timeout = '2s';
CREATE OR REPLACE VIEW worker_freshness AS
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), measured AS (
    SELECT
        contract.*,
        clock.now,
        coalesce(contract.paused_at, queue.paused_at) AS any_paused_at,
        CASE WHEN contract.paused_at IS NOT NULL THEN contract.paused_by WHEN queue.paused_at IS NOT NULL THEN 'unknown' END AS any_paused_by,
        success.last_success_at,
        success.last_items_at,
        CASE
            WHEN contract.scheduled AND due.oldest_due_at IS NULL THEN clock.now
            WHEN contract.scheduled THEN greatest(due.oldest_due_at, contract.baseline_at)
            ELSE greatest(success.last_success_at, contract.baseline_at)
        END AS proven_at,
        coalesce(failure.num_failures, 0) AS num_failures,
        failure.last_failure_at,
        failure.last_error,
        completed.last_attempted_at,
        running.since AS running_since,
        due.oldest_due_at,
        due.stuck_part,
        due.num_failed,
        due.num_failing,
        due.num_parked
    FROM loop_contract AS contract
    CROSS JOIN clock
    LEFT JOIN river_queue AS queue ON queue.name = contract.queue
    CROSS JOIN LATERAL (
        SELECT
            max(progress.last_success_at) AS last_success_at,
            max(progress.last_items_at) AS last_items_at
        FROM loop_progress AS progress
        WHERE progress.loop = contract.loop
    ) AS success
    CROSS JOIN LATERAL (
        SELECT
            sum(progress.fleet_failures) FILTER (
                WHERE success.last_success_at IS NULL OR progress.last_failure_at > success.last_success_at
            ) AS num_failures,
            max(progress.last_failure_at) AS last_failure_at,
            (array_agg(progress.last_error ORDER BY progress.last_failure_at DESC NULLS LAST))[1] AS last_error
        FROM loop_progress AS progress
        WHERE progress.loop = contract.loop
    ) AS failure
    CROSS JOIN LATERAL (
        -- attempted_at is the database's clock, finalized_at the worker's. The
        -- conditions are those of river_job_completed_idx, to the letter.
        SELECT max(job.attempted_at) AS last_attempted_at
        FROM river_job AS job
        WHERE job.kind = contract.job_kind
            AND job.state = 'completed'
            AND (job.metadata #> '{output,neutral}') IS NULL
    ) AS completed
    CROSS JOIN LATERAL (
        SELECT min(job.attempted_at) AS since
        FROM river_job AS job
        WHERE job.state = 'running'
            AND job.queue = contract.queue
            AND job.kind = contract.job_kind
            AND job.attempted_at > clock.now - contract.budget
    ) AS running
    CROSS JOIN LATERAL (
        SELECT
            min(part.oldest_due_at) AS oldest_due_at,
            min(part.part) FILTER (
                WHERE part.oldest_due_at < clock.now - contract.item_red_after
                    AND greatest(part.last_moved_at, contract.baseline_at) < clock.now - contract.item_red_after
            ) AS stuck_part,
            coalesce(sum(part.num_failed), 0) AS num_failed,
            coalesce(sum(part.num_failing), 0) AS num_failing,
            coalesce(sum(part.num_parked), 0) AS num_parked
        FROM loop_due AS part
        WHERE part.loop = contract.loop
    ) AS due
)
SELECT
    measured.loop,
    measured.queue,
    measured.job_kind AS kind,
    CASE WHEN measured.gates_readiness THEN 'required' ELSE 'advisory' END::text AS readiness,
    measured.last_success_at::timestamptz AS last_success_at,
    (CASE WHEN measured.last_success_at IS NOT NULL THEN greatest(measured.now - measured.last_success_at, interval '0') END)::interval AS success_age,
    measured.last_attempted_at::timestamptz AS last_completed_job_at,
    measured.late_after,
    measured.red_after,
    (CASE WHEN measured.oldest_due_at IS NOT NULL THEN greatest(measured.now - measured.oldest_due_at, interval '0') END)::interval AS oldest_due_age,
    measured.num_failures::integer AS consecutive_failures,
    measured.last_error::text AS last_error,
    (measured.any_paused_at IS NOT NULL)::boolean AS paused,
    CASE
        WHEN measured.any_paused_at IS NOT NULL THEN 'paused'
        WHEN NOT measured.scheduled AND measured.last_success_at IS NULL AND measured.now - measured.proven_at <= measured.red_after THEN 'starting'
        WHEN NOT measured.scheduled AND measured.last_attempted_at > measured.proven_at + measured.late_after THEN 'silent_noop'
        WHEN measured.now - measured.proven_at > measured.red_after AND measured.num_failures >= 3 THEN 'failing'
        WHEN measured.now - measured.proven_at > measured.red_after THEN 'stalled'
        WHEN measured.now - measured.proven_at > measured.late_after AND measured.num_failures >= 3 THEN 'failing'
        WHEN measured.stuck_part IS NOT NULL THEN 'stalled'
        WHEN measured.num_failed > 0 THEN 'failing'
        WHEN measured.running_since IS NOT NULL THEN 'busy'
        WHEN measured.oldest_due_at < measured.now - measured.item_red_after THEN 'behind'
        WHEN measured.num_failing + measured.num_parked > 0 THEN 'degraded'
        WHEN measured.now - measured.proven_at > measured.late_after THEN 'late'
        WHEN measured.oldest_due_at IS NULL AND (measured.last_items_at IS NULL OR measured.last_items_at < measured.last_success_at) THEN 'idle'
        ELSE 'ok'
    END::text AS verdict,
    greatest(measured.now - measured.proven_at, interval '0')::interval AS age,
    measured.baseline_at,
    measured.budget,
    measured.item_red_after,
    measured.last_failure_at::timestamptz AS last_failure_at,
    measured.last_items_at::timestamptz AS last_items_at,
    measured.num_failing::integer AS num_failing,
    measured.num_parked::integer AS num_parked,
    measured.any_paused_at::timestamptz AS paused_at,
    measured.any_paused_by::text AS paused_by,
    measured.pause_reason,
    measured.running_since::timestamptz AS running_since,
    measured.sort_order,
    measured.stuck_part::text AS stuck_part,
    measured.num_failed::integer AS num_failed,
    measured.scheduled
FROM measured;
