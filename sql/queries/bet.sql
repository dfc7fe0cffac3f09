-- name: BetFind :many
SELECT
    bet.ref,
    bet.category,
    bet.payout_minor,
    bet.placed_at,
    bet.player_id,
    bet.refusal,
    bet.settled_at,
    bet.stake_minor,
    bet.voided_at
FROM bet
WHERE bet.ref = ANY(@refs::text[]);

-- name: BetInsert :exec
-- BetInsert adds bets with what has become of them: fate is open, refused,
-- settled, or voided; the last two at fated_at, and settled with the payout.
WITH given AS (
    SELECT
        unnest(@ref::text[]) AS ref,
        unnest(@category::text[]) AS category,
        unnest(@fate::text[]) AS fate,
        unnest(@fated_at::timestamptz[]) AS fated_at,
        unnest(@payout_minor::bigint[]) AS payout_minor,
        unnest(@placed_at::timestamptz[]) AS placed_at,
        unnest(@player_id::bigint[]) AS player_id,
        unnest(@stake_minor::bigint[]) AS stake_minor
)
INSERT INTO bet (ref, category, payout_minor, placed_at, player_id, refusal, settled_at, stake_minor, voided_at)
SELECT
    ref,
    category,
    CASE WHEN fate = 'settled' THEN payout_minor END,
    placed_at,
    player_id,
    CASE WHEN fate = 'refused' THEN 'insufficient_funds' END,
    CASE WHEN fate = 'settled' THEN fated_at END,
    stake_minor,
    CASE WHEN fate = 'voided' THEN fated_at END
FROM given;

-- name: BetUpdate :exec
-- BetUpdate says what became of open bets: fate is settled or voided, at
-- fated_at. A bet that is no longer open is left alone, so count the rows.
WITH given AS (
    SELECT
        unnest(@ref::text[]) AS ref,
        unnest(@fate::text[]) AS fate,
        unnest(@fated_at::timestamptz[]) AS fated_at,
        unnest(@payout_minor::bigint[]) AS payout_minor
)
UPDATE bet
SET
    payout_minor = CASE WHEN given.fate = 'settled' THEN given.payout_minor END,
    settled_at = CASE WHEN given.fate = 'settled' THEN given.fated_at END,
    voided_at = CASE WHEN given.fate = 'voided' THEN given.fated_at END
FROM given
WHERE bet.ref = given.ref
    AND bet.settled_at IS NULL
    AND bet.voided_at IS NULL
    AND bet.refusal IS NULL;
