-- name: WalletPlanLookups :exec
-- WalletPlanLookups makes the planner plan the rest of the transaction for
-- lookups by key, and keep its plans. Without it, a connection may go on
-- reading whole tables because they were small when it was young, and plans
-- anew for each length of an array.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: WalletLock :many
-- WalletLock locks the wallets of these players, and of the players of these
-- bets, to the end of the transaction, and returns them as they stand behind
-- the lock. They are locked in id order, so that two callers never deadlock.
SELECT
    wallet.account_id,
    wallet.balance_minor,
    player.code,
    wallet.currency,
    wallet.floor_minor,
    clock_timestamp()::timestamptz AS locked_at,
    wallet.player_id,
    wallet.version
FROM wallet
JOIN player ON player.id = wallet.player_id
WHERE wallet.player_id IN (
    SELECT named.id
    FROM player AS named
    WHERE named.code = ANY(@player_codes::text[])
    UNION
    SELECT bet.player_id
    FROM bet
    WHERE bet.ref = ANY(@bet_refs::text[])
)
ORDER BY wallet.account_id
FOR NO KEY UPDATE OF wallet;

-- name: WalletInsert :many
-- WalletInsert opens an empty wallet and its account for each player.
WITH given AS (
    SELECT
        unnest(@currency::text[]) AS currency,
        unnest(@player_id::bigint[]) AS player_id
), account AS (
    INSERT INTO ledger_account (currency, kind, player_id)
    SELECT currency, 'player', player_id
    FROM given
    RETURNING id, currency, player_id
)
INSERT INTO wallet (account_id, currency, player_id)
SELECT account.id, account.currency, account.player_id
FROM account
RETURNING wallet.account_id, clock_timestamp()::timestamptz AS opened_at, wallet.player_id;

-- name: WalletUpdate :exec
-- WalletUpdate stores new balances and versions. A wallet whose version is not
-- the one that the caller started from is left alone, so count the rows.
WITH given AS (
    SELECT
        unnest(@account_id::bigint[]) AS account_id,
        unnest(@balance_minor::bigint[]) AS balance_minor,
        unnest(@old_version::bigint[]) AS old_version,
        unnest(@version::bigint[]) AS version
)
UPDATE wallet
SET
    balance_minor = given.balance_minor,
    version = given.version
FROM given
WHERE wallet.account_id = given.account_id
    AND wallet.version = given.old_version;

-- name: WalletEventAppend :exec
-- WalletEventAppend appends events to the wallet stream in the order given.
SELECT outbox_append_many(
    'wallet',
    @keys::text[],
    @types::text[],
    CAST(@payloads::text[] AS jsonb[]),
    NULL,
    @key_seqs::bigint[]
);
