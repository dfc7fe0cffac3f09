-- name: SettlementRunInsert :one
-- SettlementRunInsert adds a regular run or an adjustment. No row: the period has such
-- a run, aborted ones apart, or for an adjustment, ended ones.
INSERT INTO settlement_run (created_by, currency, inputs_deadline_at, kind, max_attempts, period_ends_at, period_id, sources, version_id)
VALUES (
    @created_by,
    @currency,
    greatest(@due_at::timestamptz, clock_timestamp()) + @inputs_deadline::interval,
    @kind,
    @max_attempts,
    @period_ends_at,
    @period_id,
    @sources::text[],
    @version_id
)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: SettlementRunInsertRetry :one
-- SettlementRunInsertRetry adds a run that attempts again what its parent left
-- undelivered; it is calculated from the start, and SettlementRunCountRetry counts it. No
-- row: the parent has one that has not ended.
INSERT INTO settlement_run (
    calculated_at, created_by, currency, eligible_minor, inputs_at, inputs_deadline_at, kind, max_attempts,
    num_eligible, num_evaluated, num_excluded, parent_id, period_ends_at, period_id, sources, state, version_id
)
SELECT
    clock_timestamp(), @created_by, parent.currency, 0, parent.inputs_at, parent.inputs_deadline_at, 'retry', parent.max_attempts,
    0, 0, 0, parent.id, parent.period_ends_at, parent.period_id, parent.sources, 'calculated', parent.version_id
FROM settlement_run AS parent
WHERE parent.id = @parent_id::bigint
ON CONFLICT DO NOTHING
RETURNING id;

-- name: SettlementRunCountRetry :one
-- SettlementRunCountRetry counts what a retry that was just added is to attempt. Only
-- now nobody else delivers any of it.
UPDATE settlement_run AS run
SET
    eligible_minor = counted.eligible_minor,
    num_eligible = counted.num_eligible,
    num_evaluated = counted.num_eligible
FROM (
    SELECT
        coalesce(sum(item.amount_minor), 0)::bigint AS eligible_minor,
        count(*) AS num_eligible
    FROM settlement_item AS item
    WHERE item.run_id = @parent_id
        AND item.delivery IN ('pending', 'failed')
        AND item.voided_at IS NULL
) AS counted
WHERE run.id = @id
RETURNING counted.eligible_minor, counted.num_eligible;

-- name: SettlementRunFamily :one
-- SettlementRunFamily returns the run whose items a run attempts: its parent, or itself.
SELECT coalesce(run.parent_id, run.id)::bigint AS run_id
FROM settlement_run AS run
WHERE run.id = @id;

-- name: SettlementRunUnfinished :one
-- SettlementRunUnfinished returns the adjustment of a period, or the retry of a run,
-- that has not ended.
SELECT run.id, run.state
FROM settlement_run AS run
WHERE run.state NOT IN ('done', 'aborted')
    AND (
        (run.kind = 'adjustment' AND run.period_id = sqlc.narg('period_id')::bigint)
        OR (run.kind = 'retry' AND run.parent_id = sqlc.narg('parent_id')::bigint)
    )
LIMIT 1;

-- name: SettlementRunLock :one
-- SettlementRunLock locks a run to the end of the transaction and returns it with
-- what it settles, as it stands behind the lock.
SELECT
    sqlc.embed(run),
    period.due_at,
    period.key,
    period.starts_at,
    programme.code,
    programme.id AS programme_id,
    programme.kind AS programme_kind,
    version.created_by AS version_author,
    version.rules,
    version.version,
    clock_timestamp()::timestamptz AS now
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
JOIN programme_version AS version ON version.id = run.version_id
WHERE run.id = @id
FOR NO KEY UPDATE OF run;

-- name: SettlementRunOfPeriod :one
-- SettlementRunOfPeriod returns the newest regular run of a period.
SELECT run.id, run.state, run.abort_reason, run.outcome, run.period_id, run.started_at, version.version
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme_version AS version ON version.id = run.version_id
WHERE period.programme_id = @programme_id
    AND period.key = @key
    AND run.kind = 'regular'
ORDER BY run.id DESC
LIMIT 1;

-- name: SettlementRunTake :one
-- SettlementRunTake gives a run to an attempt of a job: whoever had it before can
-- write nothing more to it. It returns the new epoch. No row: another attempt of
-- the job is the one that runs.
UPDATE settlement_run AS run
SET
    epoch = run.epoch + 1,
    job_id = @job_id::bigint
WHERE run.id = @id
    AND EXISTS (
        SELECT
        FROM river_job AS job
        WHERE job.id = @job_id
            AND job.state = 'running'
            AND job.attempted_at = @job_attempted_at::timestamptz
    )
RETURNING run.epoch;

-- name: SettlementRunFence :one
-- SettlementRunFence locks a run to the end of the transaction for the holder of
-- an epoch, whose attempt of its job still is the one that runs. No row: the run
-- is somebody else's.
SELECT run.cursor_player_id
FROM settlement_run AS run
WHERE run.id = @id
    AND run.epoch = @epoch
    AND run.state = @state
    AND EXISTS (
        SELECT
        FROM river_job AS job
        WHERE job.id = @job_id
            AND job.state = 'running'
            AND job.attempted_at = @job_attempted_at::timestamptz
    )
FOR NO KEY UPDATE OF run;

-- name: SettlementRunSetJob :exec
-- SettlementRunSetJob notes the job that is to work a run next.
UPDATE settlement_run
SET job_id = @job_id
WHERE id = @id;

-- name: SettlementRunWait :exec
-- SettlementRunWait lets a run wait for its inputs.
UPDATE settlement_run
SET state = 'waiting_inputs'
WHERE id = @id;

-- name: SettlementRunCalculating :exec
-- SettlementRunCalculating notes that a calculation has begun.
UPDATE settlement_run
SET
    num_calculations = num_calculations + 1,
    state = 'calculating'
WHERE id = @id;

-- name: SettlementRunUncalculated :exec
-- SettlementRunUncalculated notes that a calculation was called off, which is as if it
-- had not been begun.
UPDATE settlement_run
SET num_calculations = num_calculations - 1
WHERE id = @id;

-- name: SettlementRunCalculated :one
-- SettlementRunCalculated counts the items of a run, from the rows, and notes on
-- which watermark they rest.
UPDATE settlement_run
SET
    calculated_at = clock_timestamp(),
    eligible_minor = counted.eligible_minor,
    inputs_at = @inputs_at::timestamptz,
    num_eligible = counted.num_eligible,
    num_evaluated = counted.num_evaluated,
    num_excluded = counted.num_evaluated - counted.num_eligible,
    state = 'calculated'
FROM (
    SELECT
        coalesce(sum(item.amount_minor) FILTER (WHERE item.disposition = 'eligible'), 0)::bigint AS eligible_minor,
        count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
        count(*) AS num_evaluated
    FROM settlement_item AS item
    WHERE item.run_id = @id
) AS counted
WHERE settlement_run.id = @id
RETURNING settlement_run.eligible_minor, settlement_run.num_eligible, settlement_run.num_evaluated;

-- name: SettlementRunAwaitApproval :exec
-- SettlementRunAwaitApproval lets a run wait for a person.
UPDATE settlement_run
SET state = 'awaiting_approval'
WHERE id = @id;

-- name: SettlementRunApprove :exec
-- SettlementRunApprove lets a run deliver, for which the budget of a version has room.
UPDATE settlement_run
SET
    able_since = clock_timestamp(),
    approved_at = clock_timestamp(),
    approved_by = @approved_by::text,
    budget_version_id = @budget_version_id::bigint,
    state = 'approved'
WHERE id = @id;

-- name: SettlementBudgetLock :exec
-- SettlementBudgetLock lets one approval of a programme work at a time, until its
-- transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('settlement budget ' || @programme_id::bigint, 0));

-- name: SettlementOnceLock :exec
-- SettlementOnceLock lets one calculation of a programme that pays a player once work at
-- a time, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('settlement once ' || @programme_id::bigint, 0));

-- name: SettlementBudgetUsed :one
-- SettlementBudgetUsed sums up what the other runs of a programme whose periods start
-- from starts_at to ends_at have paid, or may still pay.
SELECT coalesce(sum(CASE
    WHEN run.state = 'done' THEN run.credited_minor
    WHEN run.state IN ('approved', 'delivering') THEN run.eligible_minor
    -- One that was aborted while it delivered pays no more by itself.
    WHEN run.started_at IS NOT NULL THEN (
        SELECT coalesce(sum(item.amount_minor), 0)
        FROM settlement_item AS item
        JOIN settlement_attempt AS attempt ON attempt.item_id = item.id
            AND attempt.run_id = run.id
            AND attempt.result = 'credited'
        WHERE item.run_id = coalesce(run.parent_id, run.id)
    )
END), 0)::bigint AS used_minor
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
WHERE period.programme_id = @programme_id
    AND period.starts_at >= @starts_at
    AND period.starts_at < @ends_at
    AND run.id <> @run_id;

-- name: SettlementRunAbleNow :exec
-- SettlementRunAbleNow notes that what a run waited for has come, or will not
-- come any more: it waits for its job alone now, and is due.
UPDATE settlement_run
SET
    able_since = clock_timestamp(),
    state = 'planned'
WHERE id = @id
    AND state = 'waiting_inputs';

-- name: SettlementRunBeginPass :one
-- SettlementRunBeginPass begins one more pass over what is undelivered.
UPDATE settlement_run
SET
    attempt = attempt + 1,
    cursor_player_id = 0,
    is_sliced = false,
    is_under_way = true,
    started_at = coalesce(started_at, clock_timestamp()),
    state = 'delivering',
    taken_player_id = 0
WHERE id = @id
RETURNING attempt;

-- name: SettlementRunContinuePass :exec
-- SettlementRunContinuePass goes on with the pass that its predecessor could not
-- end.
UPDATE settlement_run
SET
    is_sliced = false,
    taken_player_id = cursor_player_id
WHERE id = @id;

-- name: SettlementRunEndPass :exec
-- SettlementRunEndPass notes that a pass came to its end.
UPDATE settlement_run
SET is_under_way = false
WHERE id = @id;

-- name: SettlementRunSlice :exec
-- SettlementRunSlice leaves the rest of the pass to the next job.
UPDATE settlement_run
SET
    is_sliced = true,
    job_id = @job_id
WHERE id = @id;

-- name: SettlementRunFinish :one
-- SettlementRunFinish ends a run with the counts of its rows and the outcome that
-- follows from them. The table refuses one that does not.
UPDATE settlement_run
SET
    credited_minor = counted.credited_minor,
    failed_minor = counted.failed_minor,
    finished_at = clock_timestamp(),
    job_end = sqlc.narg('job_end'),
    num_credited = counted.num_credited,
    num_failed = counted.num_failed,
    num_pending = counted.num_pending,
    num_withheld = counted.num_withheld,
    outcome = CASE
        WHEN counted.num_eligible = 0 THEN 'no_eligible'
        WHEN counted.num_withheld = counted.num_eligible THEN 'all_withheld'
        WHEN counted.num_credited = 0 THEN 'none_delivered'
        WHEN counted.num_credited = counted.num_eligible - counted.num_withheld THEN 'all_delivered'
        ELSE 'partial'
    END,
    state = 'done'
FROM (
    SELECT
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'credited'), 0)::bigint AS credited_minor,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'failed'), 0)::bigint AS failed_minor,
        count(*) FILTER (WHERE item.delivery = 'credited') AS num_credited,
        count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
        count(*) FILTER (WHERE item.delivery = 'failed') AS num_failed,
        count(*) FILTER (WHERE item.delivery = 'pending') AS num_pending,
        count(*) FILTER (WHERE item.delivery = 'withheld') AS num_withheld
    FROM settlement_run_items AS item
    WHERE item.run_id = @id
) AS counted
WHERE settlement_run.id = @id
RETURNING settlement_run.outcome;

-- name: SettlementRunAbort :exec
-- SettlementRunAbort ends a run without an outcome. Who decided it has
-- acknowledged it.
UPDATE settlement_run
SET
    abort_detail = @abort_detail::text,
    abort_reason = @abort_reason::text,
    acknowledge_reason = CASE WHEN sqlc.narg('decided_by')::text IS NOT NULL THEN @abort_detail END,
    acknowledged_at = CASE WHEN sqlc.narg('decided_by') IS NOT NULL THEN clock_timestamp() END,
    acknowledged_by = sqlc.narg('decided_by'),
    finished_at = clock_timestamp(),
    job_end = sqlc.narg('job_end'),
    state = 'aborted'
WHERE id = @id;

-- name: SettlementRunAcknowledge :exec
-- SettlementRunAcknowledge notes that a person knows of what was not delivered, and of
-- whom it held back. What a retry has acknowledged stays in its name.
UPDATE settlement_run
SET
    acknowledge_reason = coalesce(acknowledge_reason, @acknowledge_reason::text),
    acknowledged_at = coalesce(acknowledged_at, clock_timestamp()),
    acknowledged_by = coalesce(acknowledged_by, @acknowledged_by::text),
    held_back_acknowledged_at = CASE WHEN @holds_back::boolean THEN clock_timestamp() ELSE held_back_acknowledged_at END
WHERE id = @id;

-- name: SettlementRunAcknowledgeable :many
-- SettlementRunAcknowledgeable returns the numbers of the runs that ended with one of
-- some outcomes, aborted among them, and were not acknowledged, in order.
SELECT run.id
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
WHERE run.acknowledged_at IS NULL
    AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered'))
    AND (run.outcome = ANY (@outcomes::text[]) OR run.state = ANY (@outcomes))
    AND (@programme::text = '' OR programme.code = @programme)
ORDER BY run.id
LIMIT @max_runs::int;

-- name: SettlementRunAcknowledgeDelivered :many
-- SettlementRunAcknowledgeDelivered acknowledges a parent and its retries, if nothing
-- of it is undelivered any more. It returns those that had not been.
UPDATE settlement_run AS run
SET
    acknowledge_reason = @acknowledge_reason::text,
    acknowledged_at = clock_timestamp(),
    acknowledged_by = @acknowledged_by::text
WHERE (run.id = @parent_id::bigint OR run.parent_id = @parent_id)
    AND run.acknowledged_at IS NULL
    -- That the books are not what a run has credited, no retry mends.
    AND (
        (run.state = 'aborted' AND run.abort_reason <> 'invariant')
        OR (run.state = 'done' AND run.outcome IN ('partial', 'none_delivered'))
    )
    AND NOT EXISTS (
        SELECT
        FROM settlement_item AS item
        WHERE item.run_id = @parent_id
            AND item.delivery IN ('pending', 'failed')
    )
RETURNING run.id;

-- name: SettlementRunJobIsLive :one
-- SettlementRunJobIsLive tells whether a job of River is going to work or works.
SELECT EXISTS (
    SELECT
    FROM river_job AS job
    WHERE job.id = @job_id
        AND job.state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
);

-- name: SettlementLockTimeout :exec
-- SettlementLockTimeout bounds how long the statements that follow wait for
-- locks, to the end of the transaction.
SELECT set_config('lock_timeout', @milliseconds::text, true);

-- name: SettlementCreditsBegin :exec
-- SettlementCreditsBegin lets SettlementCreditsAwait wait for this transaction.
-- It comes before the locks of run and wallets.
SELECT pg_advisory_xact_lock_shared(hashtextextended('settlement credits', 0));

-- name: SettlementCreditsAwait :exec
-- SettlementCreditsAwait waits until every transaction that is crediting now has
-- ended: what was booked before is visible then, and what comes has a later time.
SELECT pg_advisory_xact_lock(hashtextextended('settlement credits', 0));

-- name: SettlementRunOrphans :many
-- SettlementRunOrphans returns unfinished runs that can go on by themselves and
-- have no live job, oldest first.
SELECT orphan.run_id
FROM settlement_orphans AS orphan
ORDER BY orphan.run_id
LIMIT @max_runs::int;

-- name: SettlementResultList :many
-- SettlementResultList returns runs with what came of them, newest first: of one
-- programme, or of all (an empty code).
SELECT result.*
FROM settlement_results AS result
WHERE @programme::text = '' OR result.programme = @programme
ORDER BY result.run_id DESC
LIMIT @max_runs::int;

-- name: SettlementResultGet :one
-- SettlementResultGet returns one run with what came of it.
SELECT result.*
FROM settlement_results AS result
WHERE result.run_id = @run_id;

-- name: SettlementRunNewest :one
-- SettlementRunNewest returns the highest number that a run has, 0 for none.
SELECT coalesce(max(id), 0)::bigint AS id
FROM settlement_run;
