-- name: ActivityRollupAdd :exec
-- ActivityRollupAdd adds to the sums of settled bets. One element per key.
WITH given AS (
    SELECT
        unnest(@quarter_at::timestamptz[]) AS quarter_at,
        unnest(@player_id::bigint[]) AS player_id,
        unnest(@category::text[]) AS category,
        unnest(@num_bets::bigint[]) AS num_bets,
        unnest(@payout_minor::bigint[]) AS payout_minor,
        unnest(@risk_minor::bigint[]) AS risk_minor,
        unnest(@stake_minor::bigint[]) AS stake_minor
)
INSERT INTO activity_rollup AS rollup (quarter_at, player_id, category, num_bets, payout_minor, risk_minor, stake_minor)
SELECT quarter_at, player_id, category, num_bets, payout_minor, risk_minor, stake_minor
FROM given
ON CONFLICT (quarter_at, player_id, category) DO UPDATE
SET
    num_bets = rollup.num_bets + excluded.num_bets,
    payout_minor = rollup.payout_minor + excluded.payout_minor,
    risk_minor = rollup.risk_minor + excluded.risk_minor,
    stake_minor = rollup.stake_minor + excluded.stake_minor;
