-- Why:   what a person must know of settlements, also while no job is worked at all:
--        for the watchdog, the terminal, psql and dashboards.
-- Locks: none; new views, and another body of audit_settlement_job_end.
-- Undo:  drops them.

-- +goose Up
CREATE VIEW loop_pauses AS
SELECT
    contract.loop,
    CASE
        WHEN contract.paused_at IS NOT NULL THEN format('loop %s is paused by %s: %s', contract.loop, contract.paused_by, contract.pause_reason)
        ELSE format('loop %s is paused in River', contract.loop)
    END AS detail
FROM loop_contract AS contract
LEFT JOIN river_queue AS queue ON queue.name = contract.queue
WHERE contract.paused_at IS NOT NULL
    OR queue.paused_at IS NOT NULL;
COMMENT ON VIEW loop_pauses IS 'The loops that are paused, and in words by whom and why.';

-- One row, also before any worker registered its loops: aggregates of none are NULL,
-- which greatest and coalesce pass over.
CREATE VIEW settlement_patience AS
SELECT
    interval '24 hours' AS approval_after,
    interval '1 hour' AS inputs_after,
    coalesce(max(contract.late_after) FILTER (WHERE contract.loop <> 'settlement_tick'), interval '31 minutes') AS run_after,
    greatest(max(contract.red_after) FILTER (WHERE contract.loop = 'settlement_tick'), interval '2 minutes') AS tick_after
FROM loop_contract AS contract
WHERE starts_with(contract.loop, 'settlement_');
COMMENT ON VIEW settlement_patience IS 'How long settlements may wait before it alarms: for an approval, for inputs once they are due, for the end of a run that waits for nobody (late_after of its loop), and for what the tick does at its next pass (red_after of the tick, at least two minutes).';

CREATE VIEW settlement_orphans AS
SELECT
    run.id AS run_id,
    -- What was noted last of the run or its job: it had one then. Inputs may have come
    -- any time after the last tick that succeeded, which would have seen them.
    greatest(
        run.able_since,
        (SELECT max(event.at) FROM settlement_event AS event WHERE event.run_id = run.id),
        job.attempted_at,
        job.finalized_at,
        CASE
            WHEN run.state = 'waiting_inputs' AND inputs.have_come THEN
                (SELECT max(progress.last_success_at) FROM loop_progress AS progress WHERE progress.loop = 'settlement_tick')
            WHEN run.state = 'waiting_inputs' THEN run.inputs_deadline_at
        END
    )::timestamptz AS since,
    CASE
        WHEN job.id IS NOT NULL THEN format('job %s is %s', job.id, job.state)
        WHEN run.job_id IS NOT NULL THEN format('job %s is gone', run.job_id)
        ELSE 'it never had one'
    END AS detail
FROM settlement_run AS run
LEFT JOIN river_job AS job ON job.id = run.job_id
CROSS JOIN LATERAL (
    SELECT coalesce(count(*) = cardinality(run.sources) AND min(mark.at) >= run.period_ends_at, false) AS have_come
    FROM input_watermark AS mark
    WHERE mark.source = ANY (run.sources)
) AS inputs
WHERE run.state NOT IN ('done', 'aborted', 'awaiting_approval')
    AND (run.state <> 'waiting_inputs' OR inputs.have_come OR run.inputs_deadline_at < clock_timestamp())
    AND (job.id IS NULL OR job.state NOT IN ('available', 'pending', 'retryable', 'running', 'scheduled'));
COMMENT ON VIEW settlement_orphans IS 'Unfinished runs that can go on by themselves and that no live job of River has; the settlement tick gives each a job. One that waits for its inputs can go on when the watermarks of its sources have reached the end of its period, or when its deadline is over. since is the earliest that it can have begun, as far as anybody knows.';

-- The law of audit_settlement_job_end, unchanged, by run: whoever asks every half
-- minute must not read all jobs there are, so each run looks for its own.
CREATE VIEW settlement_job_contradictions AS
SELECT run_id, detail
FROM (
    SELECT
        ended.run_id,
        concat_ws('; ',
            CASE WHEN ended.job_end <> ended.due_end THEN format('its job ended as %s, but it is %s', ended.job_end, ended.verdict) END,
            CASE WHEN ended.job_end <> ended.river_end THEN format('its job ended as %s, but job %s is %s', ended.job_end, ended.job_id, ended.river_state) END,
            CASE WHEN ended.river_end <> ended.due_end AND (ended.river_end = 'completed' OR ended.job_end IS NOT NULL) THEN format('job %s is %s, but it is %s', ended.job_id, ended.river_state, ended.verdict) END
        )::text AS detail
    FROM (
        SELECT
            run.id AS run_id,
            CASE
                -- Ended by an approval, long after its job.
                WHEN run.abort_reason = 'budget' AND run.job_end IS NULL THEN NULL
                WHEN run.outcome = 'none_delivered' OR run.abort_reason NOT IN ('cancelled', 'rejected') THEN 'failed'
                WHEN run.outcome <> 'partial' OR run.abort_reason IS NOT NULL THEN 'completed'
            END AS due_end,
            run.job_end,
            run.job_id,
            CASE job.state WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN 'failed' WHEN 'discarded' THEN 'failed' END AS river_end,
            job.state::text AS river_state,
            coalesce(run.outcome, run.state || ' for ' || run.abort_reason) AS verdict
        FROM settlement_run AS run
        LEFT JOIN LATERAL (
            SELECT found.state
            FROM river_job AS found
            WHERE found.id = run.job_id
            -- Keeps the planner from joining all runs with all jobs.
            OFFSET 0
        ) AS job ON true
        WHERE run.state IN ('done', 'aborted')
    ) AS ended
) AS checked
WHERE detail <> '';
COMMENT ON VIEW settlement_job_contradictions IS 'Ended runs whose job, as River or the run itself has it, did not end as their outcome asks for.';

CREATE OR REPLACE VIEW audit_settlement_job_end AS
SELECT ('run ' || found.run_id)::text AS subject, found.detail
FROM settlement_job_contradictions AS found;

CREATE VIEW settlement_alarms AS
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), waiting AS (
    SELECT
        run.id AS run_id,
        programme.code AS programme,
        period.key AS period,
        'settlement_' || programme.kind AS loop,
        clock.now,
        run.state,
        CASE
            WHEN run.state IN ('done', 'aborted') THEN 'not_acknowledged'
            WHEN run.state = 'awaiting_approval' THEN 'approval_overdue'
            WHEN run.state = 'waiting_inputs' AND run.inputs_deadline_at >= clock.now THEN 'inputs_overdue'
            ELSE 'run_overdue'
        END AS alarm,
        CASE
            WHEN run.state IN ('done', 'aborted') THEN run.finished_at
            WHEN run.state = 'awaiting_approval' THEN greatest(run.calculated_at, run.created_at)
            WHEN run.state = 'waiting_inputs' AND run.inputs_deadline_at >= clock.now THEN greatest(period.due_at, run.created_at)
            -- As loop_due has it.
            WHEN run.state = 'waiting_inputs' THEN greatest(run.able_since, run.inputs_deadline_at)
            ELSE run.able_since
        END AS since,
        CASE
            WHEN run.state = 'aborted' THEN format('aborted, %s: %s', run.abort_reason, left(run.abort_detail, 500))
            WHEN run.state = 'done' THEN format('%s: %s of %s credits failed', run.outcome, run.num_failed, run.num_eligible - run.num_withheld)
            WHEN run.state = 'awaiting_approval' THEN format('%s %s for %s players wait for the approval of somebody other than %s',
                run.eligible_minor, run.currency, run.num_eligible, run.created_by)
            WHEN run.state = 'waiting_inputs' THEN format('waits for watermarks to reach %s: %s; it is aborted at %s',
                to_char(run.period_ends_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                (
                    SELECT string_agg(source.name || ' ' || coalesce(to_char(mark.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'never set'), ', ')
                    FROM unnest(run.sources) AS source (name)
                    LEFT JOIN input_watermark AS mark ON mark.source = source.name
                ),
                to_char(run.inputs_deadline_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
            ELSE format('is %s, attempt %s of %s; %s', run.state, run.attempt, run.max_attempts,
                coalesce((SELECT format('job %s is %s', job.id, job.state) FROM river_job AS job WHERE job.id = run.job_id), 'it has no job'))
        END AS detail
    FROM settlement_run AS run
    CROSS JOIN clock
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN programme ON programme.id = period.programme_id
    -- The condition of settlement_run_unsettled_idx, to the letter.
    WHERE run.state NOT IN ('done', 'aborted')
        OR (run.acknowledged_at IS NULL AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered')))
), judged AS (
    SELECT
        waiting.*,
        orphan.detail AS job_detail,
        orphan.since AS orphan_since,
        coalesce(waiting.now - orphan.since > patience.tick_after, false) AS is_lost,
        CASE waiting.alarm
            WHEN 'approval_overdue' THEN patience.approval_after
            WHEN 'inputs_overdue' THEN patience.inputs_after
            WHEN 'run_overdue' THEN patience.run_after
        END AS patience
    FROM waiting
    CROSS JOIN settlement_patience AS patience
    LEFT JOIN settlement_orphans AS orphan ON orphan.run_id = waiting.run_id
), standing AS (
    -- One alarm for a run: a second would ask with which to begin.
    SELECT
        judged.run_id,
        judged.programme,
        judged.period,
        judged.loop,
        judged.now,
        CASE WHEN judged.is_lost THEN 'run_without_job' ELSE judged.alarm END AS alarm,
        CASE WHEN judged.is_lost THEN judged.orphan_since ELSE judged.since END AS since,
        CASE WHEN judged.is_lost THEN format('is %s, could go on, and has no job: %s', judged.state, judged.job_detail) ELSE judged.detail END AS detail,
        CASE WHEN judged.is_lost THEN 'settlement_tick' WHEN judged.alarm = 'run_overdue' THEN judged.loop END AS mending_loop
    FROM judged
    WHERE judged.is_lost
        OR judged.patience IS NULL
        OR judged.now - judged.since > judged.patience
)
SELECT
    standing.alarm,
    standing.run_id,
    standing.programme,
    standing.period,
    standing.since::timestamptz AS since,
    concat_ws('; ', standing.detail, pause.detail) AS detail,
    greatest(standing.now - standing.since, interval '0')::interval AS age,
    standing.loop,
    pause.loop IS NOT NULL AS paused
FROM standing
LEFT JOIN loop_pauses AS pause ON pause.loop = standing.mending_loop

UNION ALL

SELECT
    'job_contradicts',
    run.id,
    programme.code,
    period.key,
    run.finished_at,
    found.detail,
    greatest(clock_timestamp() - run.finished_at, interval '0'),
    'settlement_' || programme.kind,
    false
FROM settlement_job_contradictions AS found
JOIN settlement_run AS run ON run.id = found.run_id
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id

UNION ALL

SELECT
    'held_back',
    run.id,
    programme.code,
    period.key,
    run.finished_at,
    format('%s players are owed more, and were left out for an undelivered credit of the period', held.num_items),
    greatest(clock_timestamp() - run.finished_at, interval '0'),
    'settlement_' || programme.kind,
    false
FROM (
    SELECT item.run_id, count(*) AS num_items
    FROM settlement_item AS item
    WHERE item.reason = 'earlier_undelivered'
        AND item.voided_at IS NULL
    GROUP BY item.run_id
) AS held
JOIN settlement_run AS run ON run.id = held.run_id
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
WHERE run.state IN ('done', 'aborted')
    AND run.held_back_acknowledged_at IS NULL
    AND NOT EXISTS (
        -- One that has paid owes to those whom this one left out, or holds them back itself.
        SELECT
        FROM settlement_run AS later
        WHERE later.period_id = run.period_id
            AND later.kind = 'adjustment'
            AND (later.state = 'done' OR (later.state = 'aborted' AND later.started_at IS NOT NULL))
            AND later.id > run.id
    );
COMMENT ON VIEW settlement_alarms IS 'What stands of settlements that a person must know of, by the rows alone, whatever jobs do: not_acknowledged (ended partial, none_delivered or aborted), run_without_job, approval_overdue, inputs_overdue, run_overdue (each longer than settlement_patience says), job_contradicts (the job''s end is not that of the outcome), held_back (an adjustment left out who has an undelivered credit, no other followed, and no person has acknowledged that). since is when it began, loop the loop of the run''s kind; paused: the loop that would mend it is paused, which detail tells. period_without_run is not among them, since it takes the programmes'' calendars: see truegreen status.';

-- +goose Down
DROP VIEW settlement_alarms;
CREATE OR REPLACE VIEW audit_settlement_job_end AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || ended.id)::text AS subject,
        concat_ws('; ',
            CASE WHEN ended.job_end <> ended.due_end THEN format('its job ended as %s, but it is %s', ended.job_end, ended.verdict) END,
            CASE WHEN ended.job_end <> ended.river_end THEN format('its job ended as %s, but job %s is %s', ended.job_end, ended.job_id, ended.river_state) END,
            CASE WHEN ended.river_end <> ended.due_end AND (ended.river_end = 'completed' OR ended.job_end IS NOT NULL) THEN format('job %s is %s, but it is %s', ended.job_id, ended.river_state, ended.verdict) END
        )::text AS detail
    FROM (
        SELECT
            run.id,
            CASE
                -- Ended by an approval, long after its job.
                WHEN run.abort_reason = 'budget' AND run.job_end IS NULL THEN NULL
                WHEN run.outcome = 'none_delivered' OR run.abort_reason NOT IN ('cancelled', 'rejected') THEN 'failed'
                WHEN run.outcome <> 'partial' OR run.abort_reason IS NOT NULL THEN 'completed'
            END AS due_end,
            run.job_end,
            run.job_id,
            CASE job.state WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN 'failed' WHEN 'discarded' THEN 'failed' END AS river_end,
            job.state::text AS river_state,
            coalesce(run.outcome, run.state || ' for ' || run.abort_reason) AS verdict
        FROM settlement_run AS run
        LEFT JOIN river_job AS job ON job.id = run.job_id
        WHERE run.state IN ('done', 'aborted')
    ) AS ended
) AS checked
WHERE detail <> '';
DROP VIEW settlement_job_contradictions;
DROP VIEW settlement_orphans;
DROP VIEW settlement_patience;
DROP VIEW loop_pauses;
