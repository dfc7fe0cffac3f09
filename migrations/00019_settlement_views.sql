-- Why:   what operators, dashboards and scripts read of settlements.
-- Locks: none; new views.
-- Undo:  drops them.

-- +goose Up
CREATE VIEW settlement_results AS
SELECT
    run.id AS run_id,
    programme.code AS programme,
    programme.kind,
    period.key AS period,
    run.kind AS run_kind,
    version.version,
    run.state,
    run.outcome,
    run.num_evaluated AS evaluated,
    run.num_eligible AS eligible,
    run.num_credited AS credited,
    run.num_failed AS failed,
    run.num_withheld AS withheld,
    run.num_excluded AS excluded,
    run.num_pending AS pending,
    run.currency,
    run.eligible_minor AS eligible_amount,
    run.credited_minor AS credited_amount,
    run.failed_minor AS failed_amount,
    run.started_at,
    run.finished_at,
    run.acknowledged_at,
    run.abort_reason,
    run.abort_detail,
    run.created_at,
    run.created_by,
    run.approved_at,
    run.approved_by,
    run.attempt,
    run.max_attempts,
    run.inputs_at,
    run.inputs_deadline_at,
    period.starts_at AS period_starts_at,
    period.ends_at AS period_ends_at,
    period.due_at,
    run.job_id,
    run.job_end
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
JOIN programme_version AS version ON version.id = run.version_id;
COMMENT ON VIEW settlement_results IS 'Every settlement run: where it is (state), what it delivered (outcome, once done), and its counts; those of credits are final when finished_at is set. Amounts are minor units of currency. inputs_at is the watermark that the calculation rests on; without an outcome nothing was proven.';

CREATE VIEW settlement_credits AS
SELECT
    item.run_id,
    programme.code AS programme,
    period.key AS period,
    player.code AS player,
    item.currency,
    item.adj,
    item.basis_minor AS basis,
    item.rate_ppm,
    item.amount_minor AS amount,
    item.disposition,
    item.reason,
    CASE WHEN item.voided_at IS NULL THEN item.delivery END AS delivery,
    item.failure_code,
    item.attempts,
    CASE WHEN item.disposition = 'eligible' THEN
        settlement_reference(programme.code, period.key, player.code, item.currency, item.adj)
    END AS reference,
    item.credited_at,
    item.failure_class,
    item.gross_minor AS gross,
    item.capped_minor AS capped,
    item.tier_value,
    item.tier_from,
    item.inputs,
    item.voided_at
FROM settlement_item AS item
JOIN settlement_period AS period ON period.id = item.period_id
JOIN programme ON programme.id = period.programme_id
JOIN player ON player.id = item.player_id;
COMMENT ON VIEW settlement_credits IS 'What every run found every player to be owed, who got nothing included, and what became of it: pending, credited, failed (a later attempt may credit it) or withheld. reference is that of the ledger transaction. Amounts are minor units; basis is exact to their millionths. Items of a run that ended before it paid have voided_at and no delivery.';

-- +goose Down
DROP VIEW settlement_credits;
DROP VIEW settlement_results;
