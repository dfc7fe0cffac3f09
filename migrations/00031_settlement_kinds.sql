-- Why:   rebates and lossbacks beside cashbacks; runs that wait for more than one
--        source; budgets.
-- Locks: ACCESS EXCLUSIVE on programme and settlement_run for an instant; SHARE on
--        payment and bet while their indexes are built, some seconds per million rows:
--        imports wait.
-- Undo:  fails while there is a programme of another kind, or a run that its budget
--        ended.

-- +goose Up
ALTER TABLE programme DROP CONSTRAINT kind_is_known;
ALTER TABLE programme ADD CONSTRAINT kind_is_known CHECK (kind IN ('cashback', 'lossback', 'rebate'));
ALTER TABLE settlement_run ADD COLUMN sources text[] NOT NULL DEFAULT '{bets}';
COMMENT ON COLUMN settlement_run.sources IS 'Whose watermarks must have reached the period''s end before it is calculated.';
ALTER TABLE settlement_run DROP CONSTRAINT abort_has_a_reason;
ALTER TABLE settlement_run ADD CONSTRAINT abort_has_a_reason CHECK (
    (state = 'aborted') = (abort_reason IS NOT NULL)
    AND (abort_reason IS NULL OR abort_reason IN ('budget', 'calculation', 'inputs_deadline', 'invariant', 'rejected', 'cancelled', 'systemic'))
);
-- For the payments of a period, and first deposits.
CREATE INDEX payment_at_idx ON payment (at, kind);
-- For the bets of one player in the window after a first deposit.
CREATE INDEX bet_player_id_settled_at_idx ON bet (player_id, settled_at) WHERE settled_at IS NOT NULL;

-- +goose Down
DROP INDEX bet_player_id_settled_at_idx;
DROP INDEX payment_at_idx;
ALTER TABLE settlement_run DROP CONSTRAINT abort_has_a_reason;
ALTER TABLE settlement_run ADD CONSTRAINT abort_has_a_reason CHECK (
    (state = 'aborted') = (abort_reason IS NOT NULL)
    AND (abort_reason IS NULL OR abort_reason IN ('calculation', 'inputs_deadline', 'invariant', 'rejected', 'cancelled', 'systemic'))
);
ALTER TABLE settlement_run DROP COLUMN sources;
ALTER TABLE programme DROP CONSTRAINT kind_is_known;
ALTER TABLE programme ADD CONSTRAINT kind_is_known CHECK (kind IN ('cashback'));
