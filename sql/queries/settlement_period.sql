-- name: SettlementPeriodEnsure :one
-- SettlementPeriodEnsure returns a period, and adds it first where there is none.
-- The period must be locked by its programme.
WITH added AS (
    INSERT INTO settlement_period (due_at, ends_at, key, programme_id, starts_at)
    VALUES (@due_at, @ends_at, @key, @programme_id, @starts_at)
    ON CONFLICT (programme_id, key) DO NOTHING
    RETURNING *
)
SELECT added.*
FROM added
UNION ALL
SELECT settlement_period.*
FROM settlement_period
WHERE settlement_period.programme_id = @programme_id
    AND settlement_period.key = @key;

-- name: SettlementPeriodKeysWithRun :many
-- SettlementPeriodKeysWithRun returns the keys of a programme's periods that have
-- a run of any state.
SELECT period.key
FROM settlement_period AS period
WHERE period.programme_id = @programme_id
    AND EXISTS (
        SELECT
        FROM settlement_run AS run
        WHERE run.period_id = period.id
    );
