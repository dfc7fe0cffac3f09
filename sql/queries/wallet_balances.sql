-- name: WalletBalanceList :many
-- WalletBalanceList returns up to max_wallets wallets of players of one status, in
-- order of the players' codes.
SELECT
    player::text AS player,
    currency::text AS currency,
    balance::bigint AS balance_minor
FROM wallet_balances
WHERE wallet_balances.status = @status
ORDER BY player
LIMIT @max_wallets;
