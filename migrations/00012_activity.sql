-- Why:   the facts that players' platforms send, refused ones included, and the
--        sums of them that settlements read.
-- Locks: none; new tables.
-- Undo:  drops them.

-- +goose Up
CREATE TABLE payment (
    kind text NOT NULL,
    ref text NOT NULL,
    amount_minor bigint NOT NULL,
    at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    player_id bigint NOT NULL REFERENCES player (id),
    refusal text,
    PRIMARY KEY (kind, ref),
    CONSTRAINT amount_above_zero CHECK (amount_minor > 0),
    CONSTRAINT kind_is_known CHECK (kind IN ('deposit', 'withdrawal')),
    CONSTRAINT ref_length CHECK (length(ref) BETWEEN 1 AND 128),
    CONSTRAINT refusal_is_known CHECK (refusal IN ('insufficient_funds'))
);
COMMENT ON TABLE payment IS 'Deposits and withdrawals by the id of their source. A refused one stays refused and moved no money.';
-- For a player's payments in order of time: first deposit, sums of a period.
CREATE INDEX payment_player_id_at_idx ON payment (player_id, at);

CREATE TABLE bet (
    ref text PRIMARY KEY,
    category text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    payout_minor bigint,
    placed_at timestamptz NOT NULL,
    player_id bigint NOT NULL REFERENCES player (id),
    refusal text,
    settled_at timestamptz,
    stake_minor bigint NOT NULL,
    voided_at timestamptz,
    CONSTRAINT category_length CHECK (length(category) BETWEEN 1 AND 64),
    CONSTRAINT payout_not_negative CHECK (payout_minor >= 0),
    CONSTRAINT ref_length CHECK (length(ref) BETWEEN 1 AND 128),
    CONSTRAINT refusal_is_known CHECK (refusal IN ('insufficient_funds')),
    CONSTRAINT result_all_or_nothing CHECK ((settled_at IS NULL) = (payout_minor IS NULL)),
    CONSTRAINT settled_or_voided_or_refused CHECK (num_nonnulls(settled_at, voided_at, refusal) <= 1),
    CONSTRAINT stake_above_zero CHECK (stake_minor > 0)
) WITH (fillfactor = 80);
COMMENT ON TABLE bet IS 'Bets by the id of their source, and what became of them: settled, voided, refused, or still open. The source''s id is the key itself, since every line names a bet by it.';

CREATE TABLE activity_rollup (
    quarter_at timestamptz NOT NULL,
    player_id bigint NOT NULL,
    category text NOT NULL,
    num_bets bigint NOT NULL,
    payout_minor bigint NOT NULL,
    risk_minor bigint NOT NULL,
    stake_minor bigint NOT NULL,
    PRIMARY KEY (quarter_at, player_id, category),
    CONSTRAINT quarter_is_whole CHECK (date_bin('15 minutes', quarter_at, '2000-01-01T00:00:00Z') = quarter_at)
) WITH (fillfactor = 80);
COMMENT ON TABLE activity_rollup IS 'Settled bets summed per player, category and quarter hour of settlement. A quarter hour is the largest span that fits into every time zone''s day; the key starts with it, so a period is one range.';
COMMENT ON COLUMN activity_rollup.risk_minor IS 'Sum of min(|payout - stake|, stake): turnover by the risk rule. stake_minor is turnover by the stake rule.';

CREATE TABLE input_watermark (
    source text PRIMARY KEY,
    at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT source_length CHECK (length(source) BETWEEN 1 AND 64)
);
COMMENT ON TABLE input_watermark IS 'Up to when a source has sent everything. It only moves forward.';

-- +goose Down
DROP TABLE input_watermark;
DROP TABLE activity_rollup;
DROP TABLE bet;
DROP TABLE payment;
