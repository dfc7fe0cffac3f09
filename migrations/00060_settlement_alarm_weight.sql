-- Why:   a run that paid nobody was one alarm among older ones of runs that left out a
--        frozen wallet: alarms have a weight, and are listed by it.
-- Locks: settlement_alarms for an instant.
-- Undo:  takes the weight away.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER VIEW settlement_alarms RENAME TO settlement_alarm_facts;
COMMENT ON VIEW settlement_alarm_facts IS 'settlement_alarms without their weight.';

CREATE VIEW settlement_alarms AS
SELECT
    fact.*,
    CASE
        WHEN fact.paused THEN 'ticket'
        WHEN fact.alarm IN ('approval_overdue', 'held_back', 'inputs_overdue') THEN 'ticket'
        WHEN fact.alarm = 'not_acknowledged' AND run.outcome = 'partial' THEN 'ticket'
        ELSE 'page'
    END AS weight
FROM settlement_alarm_facts AS fact
LEFT JOIN settlement_run AS run ON run.id = fact.run_id
-- 'page' comes before 'ticket' in the alphabet too.
ORDER BY weight, fact.since, fact.run_id;
COMMENT ON VIEW settlement_alarms IS 'What stands of settlements that a person must know of, by the rows alone, whatever jobs do: not_acknowledged (ended partial, none_delivered or aborted), run_without_job, approval_overdue, inputs_overdue, run_overdue (each longer than settlement_patience says), job_contradicts (the job''s end is not that of the outcome), held_back (an adjustment left out who has an undelivered credit, no other followed, and no person has acknowledged that). weight: page (nobody is paid, or books differ) or ticket (some are not paid, a decision waits, or a paused loop would mend it); the heaviest come first, then the oldest. since is when it began, loop the loop of the run''s kind; paused: the loop that would mend it is paused, which detail tells. period_without_run, always a page unless the tick is paused, is not among them, since it takes the programmes'' calendars: see truegreen status.';

-- Whoever may read the view may read the one that has its name now.
-- +goose StatementBegin
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT grants.grantee, grants.is_grantable, grants.privilege_type
        FROM pg_class AS relation
        CROSS JOIN LATERAL aclexplode(relation.relacl) AS grants
        WHERE relation.oid = 'settlement_alarm_facts'::regclass
            AND grants.grantee <> relation.relowner
    LOOP
        EXECUTE format('GRANT %s ON settlement_alarms TO %s%s', given.privilege_type,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' END);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
SET LOCAL lock_timeout = '2s';
DROP VIEW settlement_alarms;
ALTER VIEW settlement_alarm_facts RENAME TO settlement_alarms;
COMMENT ON VIEW settlement_alarms IS 'What stands of settlements that a person must know of, by the rows alone, whatever jobs do: not_acknowledged (ended partial, none_delivered or aborted), run_without_job, approval_overdue, inputs_overdue, run_overdue (each longer than settlement_patience says), job_contradicts (the job''s end is not that of the outcome), held_back (an adjustment left out who has an undelivered credit, no other followed, and no person has acknowledged that). since is when it began, loop the loop of the run''s kind; paused: the loop that would mend it is paused, which detail tells. period_without_run is not among them, since it takes the programmes'' calendars: see truegreen status.';
