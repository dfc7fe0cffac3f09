-- name: LoopServiceList :many
-- LoopServiceList returns every loop that is registered, in the order in which they are
-- shown, with the service whose tables say what the loop has left to do.
SELECT
    contract.loop,
    contract.gates_readiness,
    contract.job_kind,
    contract.late_after,
    (contract.paused_at IS NOT NULL)::boolean AS paused,
    contract.queue,
    contract.red_after,
    loop_service(contract.loop)::text AS service
FROM loop_contract AS contract
ORDER BY contract.sort_order, contract.loop;

-- name: WorkerFreshnessList :many
-- WorkerFreshnessList returns those of the loops given that are registered, with their
-- verdicts. It reads no table of a service that none of them belongs to, and does not
-- search for completed jobs of a loop whose last proof is young.
SELECT
    freshness.age,
    freshness.baseline_at,
    freshness.budget,
    freshness.consecutive_failures,
    freshness.item_red_after,
    freshness.kind,
    -- Not the view's column, which is computed for every loop. The zero time: not asked.
    coalesce((
        SELECT max(job.attempted_at)
        FROM river_job AS job
        WHERE freshness.verdict = 'silent_noop'
            AND job.kind = freshness.kind
            AND job.state = 'completed'
            AND (job.metadata #> '{output,neutral}') IS NULL
    ), '0001-01-01 00:00:00+00')::timestamptz AS last_completed_job_at,
    freshness.last_error,
    freshness.last_failure_at,
    freshness.last_items_at,
    freshness.last_success_at,
    freshness.late_after,
    freshness.loop,
    freshness.num_failed,
    freshness.num_failing,
    freshness.num_parked,
    freshness.oldest_due_age,
    freshness.pause_reason,
    freshness.paused,
    freshness.paused_at,
    freshness.paused_by,
    freshness.queue,
    freshness.readiness,
    freshness.red_after,
    freshness.running_since,
    freshness.scheduled,
    freshness.stuck_part,
    freshness.success_age,
    freshness.verdict
FROM loop_contract
-- The outer join changes no row: it tells sqlc that the view's columns may be NULL.
LEFT JOIN worker_freshness AS freshness
    ON freshness.loop = loop_contract.loop
    -- Again, so that the view opens the tables of these alone.
    AND freshness.loop = ANY (@loops::text[])
WHERE loop_contract.loop = ANY (@loops::text[]);

-- name: EvidenceTimeout :one
-- EvidenceTimeout bounds the statements that follow in this transaction, and returns the
-- bound that they had.
SELECT
    current_setting('statement_timeout')::text AS before,
    set_config('statement_timeout', @statement_timeout::text, true)::text AS after;
