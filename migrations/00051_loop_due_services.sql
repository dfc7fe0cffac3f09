-- Why:   the evidence is read service by service, and without reading what was delivered:
--        a table of settlement that is locked, or a backup that holds a snapshot, turned
--        every worker red. worker_freshness asks one service per loop.
-- Locks: ACCESS EXCLUSIVE on the views for an instant.
-- Undo:  one statement reads all services again, and all that was delivered since the
--        oldest snapshot.

-- +goose Up
SET LOCAL lock_timeout = '2s';
CREATE VIEW loop_due_outbox AS
SELECT
    due.loop,
    due.shard::text AS part,
    due.oldest_due_at,
    due.last_moved_at,
    due.num_failing,
    due.num_parked,
    0::integer AS num_failed
FROM outbox_due AS due;
COMMENT ON VIEW loop_due_outbox IS 'The part of loop_due that the outbox has: one row per shard.';

CREATE VIEW loop_due_settlement AS
SELECT
    'settlement_' || programme.kind AS loop,
    run.id::text AS part,
    -- A run that waits for its inputs or for a person has alerts of its own.
    (CASE
        WHEN run.state NOT IN ('done', 'aborted', 'awaiting_approval')
            AND (run.state <> 'waiting_inputs' OR run.inputs_deadline_at < clock_timestamp())
        THEN CASE run.state WHEN 'waiting_inputs' THEN greatest(run.able_since, run.inputs_deadline_at) ELSE run.able_since END
    END)::timestamptz AS oldest_due_at,
    run.calculated_at AS last_moved_at,
    0::integer AS num_failing,
    (run.outcome IS NOT DISTINCT FROM 'partial')::integer AS num_parked,
    (run.state = 'aborted' OR run.outcome IS NOT DISTINCT FROM 'none_delivered')::integer AS num_failed
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
-- The condition of settlement_run_unsettled_idx, to the letter.
WHERE run.state NOT IN ('done', 'aborted')
    OR (run.acknowledged_at IS NULL AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered')));
COMMENT ON VIEW loop_due_settlement IS 'The part of loop_due that settlement has: one row per run that is unfinished, or ended without its work done and is not acknowledged.';

-- A service that comes later adds a branch here and in loop_due_of.
CREATE OR REPLACE VIEW loop_due AS
SELECT loop, part, oldest_due_at, last_moved_at, num_failing, num_parked, num_failed FROM loop_due_outbox
UNION ALL
SELECT loop, part, oldest_due_at, last_moved_at, num_failing, num_parked, num_failed FROM loop_due_settlement;

-- +goose StatementBegin
CREATE FUNCTION loop_service(p_loop text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM outbox_stream AS stream WHERE stream.job_kind = p_loop) THEN 'outbox'
        WHEN starts_with(p_loop, 'settlement_') AND p_loop <> 'settlement_tick' THEN 'settlement'
        ELSE 'none'
    END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION loop_service IS 'Whose tables say what a loop has left to do: outbox, settlement, or none, for a loop without items.';

-- +goose StatementBegin
CREATE FUNCTION loop_due_of(p_loop text) RETURNS SETOF loop_due
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    -- Only the branch that runs opens its tables, so a locked one stops its own loops.
    CASE loop_service(p_loop)
        WHEN 'outbox' THEN
            RETURN QUERY SELECT due.* FROM loop_due_outbox AS due WHERE due.loop = p_loop;
        WHEN 'settlement' THEN
            RETURN QUERY SELECT due.* FROM loop_due_settlement AS due WHERE due.loop = p_loop;
        ELSE
            NULL;
    END CASE;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION loop_due_of IS 'The rows of loop_due of one loop. Reads only the tables of the loop''s own service, with the rights of the views'' owner.';
-- +goose StatementBegin
CREATE FUNCTION loop_progress_of(p_loop text) RETURNS SETOF loop_progress
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    progress loop_progress;
BEGIN
    -- From the end of the index, row by row: behind a held snapshot each has as many
    -- versions as there were passes, and the newest is the last.
    SELECT * INTO progress FROM loop_progress AS each
    WHERE each.loop <= p_loop
    ORDER BY each.loop DESC, each.worker_id DESC
    LIMIT 1;
    WHILE progress."loop" = p_loop LOOP
        RETURN NEXT progress;
        SELECT * INTO progress FROM loop_progress AS each
        WHERE (each.loop, each.worker_id) < (p_loop, progress.worker_id)
        ORDER BY each.loop DESC, each.worker_id DESC
        LIMIT 1;
    END LOOP;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION loop_progress_of IS 'The rows of loop_progress of one loop, whatever number of old versions a held snapshot keeps.';

-- +goose StatementBegin
DO $$
DECLARE
    home name := (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'outbox_event'::regclass
    );
    reader text;
    setting text;
BEGIN
    EXECUTE format('ALTER FUNCTION loop_service(text) SET search_path = %I, pg_temp', home);
    -- Planned once per session, the same way whatever the caller has set.
    FOREACH reader IN ARRAY ARRAY['loop_due_of(text)', 'loop_progress_of(text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', reader, home);
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', reader);
        FOREACH setting IN ARRAY ARRAY['enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit'] LOOP
            EXECUTE format('ALTER FUNCTION %s SET %I = off', reader, setting);
        END LOOP;
    END LOOP;
END;
$$;
-- +goose StatementEnd

CREATE OR REPLACE VIEW worker_freshness AS
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), measured AS (
    SELECT
        contract.*,
        clock.now,
        coalesce(contract.paused_at, queue.paused_at) AS any_paused_at,
        CASE WHEN contract.paused_at IS NOT NULL THEN contract.paused_by WHEN queue.paused_at IS NOT NULL THEN 'unknown' END AS any_paused_by,
        reported.last_success_at,
        reported.last_items_at,
        CASE
            WHEN contract.scheduled AND due.oldest_due_at IS NULL THEN clock.now
            WHEN contract.scheduled THEN greatest(due.oldest_due_at, contract.baseline_at)
            ELSE greatest(reported.last_success_at, contract.baseline_at)
        END AS proven_at,
        coalesce(reported.num_failures, 0) AS num_failures,
        reported.last_failure_at,
        reported.last_error,
        -- Since its creation or last resume. A scheduled loop owes a success only while
        -- something is due.
        reported.last_success_at IS NULL
        AND coalesce(reported.num_failures, 0) >= 3
        AND coalesce(reported.last_failure_at > contract.baseline_at, false)
        AND (NOT contract.scheduled OR due.oldest_due_at IS NOT NULL) AS only_failed,
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
            max(progress.last_items_at) AS last_items_at,
            sum(progress.fleet_failures) FILTER (
                WHERE progress.last_fleet_success_at IS NULL OR progress.last_failure_at > progress.last_fleet_success_at
            ) AS num_failures,
            max(progress.last_failure_at) AS last_failure_at,
            (array_agg(progress.last_error ORDER BY progress.last_failure_at DESC NULLS LAST))[1] AS last_error
        FROM (
            SELECT
                each.last_success_at,
                each.last_items_at,
                each.fleet_failures,
                each.last_failure_at,
                each.last_error,
                max(each.last_success_at) OVER () AS last_fleet_success_at
            FROM loop_progress_of(contract.loop) AS each
        ) AS progress
    ) AS reported
    CROSS JOIN LATERAL (
        SELECT min(job.attempted_at) AS since
        FROM river_job AS job
        WHERE job.state = 'running'
            AND job.queue = contract.queue
            -- Not by the index of kinds: that has all completed jobs too.
            AND job.kind || '' = contract.job_kind
            AND job.attempted_at > clock.now - contract.budget
            -- Within the index: older entries are of jobs that ran long ago.
            AND job.scheduled_at > clock.now - contract.budget - contract.red_after
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
        FROM loop_due_of(contract.loop) AS part
    ) AS due
)
SELECT
    measured.loop,
    measured.queue,
    measured.job_kind AS kind,
    CASE WHEN measured.gates_readiness THEN 'required' ELSE 'advisory' END::text AS readiness,
    measured.last_success_at::timestamptz AS last_success_at,
    (CASE WHEN measured.last_success_at IS NOT NULL THEN greatest(measured.now - measured.last_success_at, interval '0') END)::interval AS success_age,
    (
        -- attempted_at is the database's clock, finalized_at the worker's. The
        -- conditions are those of river_job_completed_idx, to the letter.
        SELECT max(job.attempted_at)
        FROM river_job AS job
        WHERE job.kind = measured.job_kind
            AND job.state = 'completed'
            AND (job.metadata #> '{output,neutral}') IS NULL
    )::timestamptz AS last_completed_job_at,
    measured.late_after,
    measured.red_after,
    (CASE WHEN measured.oldest_due_at IS NOT NULL THEN greatest(measured.now - measured.oldest_due_at, interval '0') END)::interval AS oldest_due_age,
    measured.num_failures::integer AS consecutive_failures,
    measured.last_error::text AS last_error,
    (measured.any_paused_at IS NOT NULL)::boolean AS paused,
    CASE
        WHEN measured.any_paused_at IS NOT NULL THEN 'paused'
        WHEN NOT measured.scheduled AND measured.last_success_at IS NULL AND measured.now - measured.proven_at <= measured.red_after AND NOT measured.only_failed THEN 'starting'
        -- Jobs are searched only where they may matter: behind a held snapshot, or
        -- while very many are being inserted, the search can be a long one.
        WHEN NOT measured.scheduled AND measured.now > measured.proven_at + measured.late_after AND EXISTS (
            SELECT
            FROM river_job AS job
            WHERE job.kind = measured.job_kind
                AND job.state = 'completed'
                AND (job.metadata #> '{output,neutral}') IS NULL
                AND job.attempted_at > measured.proven_at + measured.late_after
        ) THEN 'silent_noop'
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
DROP FUNCTION loop_progress_of(text);
DROP FUNCTION loop_due_of(text);
DROP FUNCTION loop_service(text);
CREATE OR REPLACE VIEW loop_due AS
SELECT
    stream.job_kind AS loop,
    shard.shard::text AS part,
    least(fresh.due_at, held.due_at, CASE WHEN refused.since IS NOT NULL THEN greatest(held.oldest_at, refused.since) END)::timestamptz AS oldest_due_at,
    shard.last_published_at AS last_moved_at,
    coalesce(held.num_failing, 0)::integer AS num_failing,
    coalesce(held.num_parked, 0)::integer AS num_parked,
    0::integer AS num_failed
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    -- One reading of the clock for all ages of a stream.
    SELECT
        clock_timestamp() AS now,
        coalesce(max(each.last_published_at), '-infinity') AS last_published_at
    FROM outbox_shard AS each
    WHERE each.stream = stream.stream
) AS seen
LEFT JOIN LATERAL (
    -- Two keys failed since the stream's last acknowledgement: it refuses
    -- everything, and what it holds back is due. The second key's first such
    -- event is the earliest that this can have begun.
    SELECT min(failing.created_at) AS since
    FROM outbox_shard AS each
    CROSS JOIN LATERAL (
        SELECT
            event.key,
            event.created_at,
            event.failures,
            event.last_attempt_at,
            event.parked_at
        FROM outbox_delivery AS event
        WHERE event.stream = each.stream
            AND event.shard = each.shard
            AND event.published_at IS NULL
            AND event.discarded_at IS NULL
            AND (event.parked_at IS NOT NULL OR event.not_before IS NOT NULL)
        LIMIT 10000
    ) AS failing
    WHERE each.stream = stream.stream
        AND (
            failing.parked_at > seen.last_published_at
            OR (failing.failures > 0 AND failing.last_attempt_at > seen.last_published_at)
        )
    GROUP BY failing.key
    ORDER BY since
    OFFSET 1
    LIMIT 1
) AS refused ON true
JOIN outbox_shard AS shard ON shard.stream = stream.stream
LEFT JOIN LATERAL (
    -- The first event that never failed and waits for none of its key. Behind
    -- very many that wait, the search ends with the last one that it looked at:
    -- what was not looked at counts as due.
    SELECT event.created_at AS due_at
    FROM (
        SELECT
            undelivered.id,
            undelivered.created_at,
            undelivered.key,
            undelivered.not_before,
            undelivered.place,
            row_number() OVER (ORDER BY undelivered.place, undelivered.id) AS nth
        FROM outbox_delivery AS undelivered
        WHERE undelivered.stream = shard.stream
            AND undelivered.shard = shard.shard
            AND undelivered.published_at IS NULL
            AND undelivered.parked_at IS NULL
            AND undelivered.discarded_at IS NULL
        ORDER BY undelivered.place, undelivered.id
        LIMIT 10000
    ) AS event
    WHERE event.nth = 10000
        OR (
            event.not_before IS NULL
            AND NOT EXISTS (
                SELECT
                FROM outbox_delivery AS earlier
                WHERE earlier.stream = shard.stream
                    AND earlier.shard = shard.shard
                    AND earlier.key = event.key
                    AND earlier.place < event.place
                    AND earlier.published_at IS NULL
                    AND earlier.discarded_at IS NULL
                    AND (earlier.parked_at IS NOT NULL OR earlier.not_before IS NOT NULL)
                    AND (
                        (earlier.parked_at IS NOT NULL AND stream.park_policy = 'block')
                        OR (earlier.parked_at IS NULL AND earlier.not_before > seen.now)
                    )
                -- Keeps the planner from joining two whole backlogs for one row.
                OFFSET 0
            )
        )
    ORDER BY event.place, event.id
    LIMIT 1
) AS fresh ON true
LEFT JOIN LATERAL (
    -- Events that failed, each the first of its key: due again once their wait is
    -- over. They are searched apart, since one that fails every few seconds would
    -- hide older ones behind its young age.
    SELECT
        min(greatest(event.created_at, event.not_before)) FILTER (
            WHERE event.parked_at IS NULL AND event.not_before <= seen.now
        ) AS due_at,
        min(event.created_at) AS oldest_at,
        count(*) FILTER (WHERE event.parked_at IS NULL) AS num_failing,
        count(*) FILTER (WHERE event.parked_at IS NOT NULL) AS num_parked
    FROM (
        SELECT
            held_back.created_at,
            held_back.not_before,
            held_back.parked_at
        FROM outbox_delivery AS held_back
        WHERE held_back.stream = shard.stream
            AND held_back.shard = shard.shard
            AND held_back.published_at IS NULL
            AND held_back.discarded_at IS NULL
            AND (held_back.parked_at IS NOT NULL OR held_back.not_before IS NOT NULL)
        LIMIT 10000
    ) AS event
) AS held ON true

UNION ALL

SELECT
    'settlement_' || programme.kind AS loop,
    run.id::text AS part,
    -- A run that waits for its inputs or for a person has alerts of its own.
    (CASE
        WHEN run.state NOT IN ('done', 'aborted', 'awaiting_approval')
            AND (run.state <> 'waiting_inputs' OR run.inputs_deadline_at < clock_timestamp())
        THEN CASE run.state WHEN 'waiting_inputs' THEN greatest(run.able_since, run.inputs_deadline_at) ELSE run.able_since END
    END)::timestamptz AS oldest_due_at,
    run.calculated_at AS last_moved_at,
    0::integer AS num_failing,
    (run.outcome IS NOT DISTINCT FROM 'partial')::integer AS num_parked,
    (run.state = 'aborted' OR run.outcome IS NOT DISTINCT FROM 'none_delivered')::integer AS num_failed
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
-- The condition of settlement_run_unsettled_idx, to the letter.
WHERE run.state NOT IN ('done', 'aborted')
    OR (run.acknowledged_at IS NULL AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered')));
DROP VIEW loop_due_settlement;
DROP VIEW loop_due_outbox;
