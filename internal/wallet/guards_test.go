package wallet_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbfactory"
)

// What the database refuses by itself, whoever asks.
func TestGuards(t *testing.T) {
	t.Parallel()

	const (
		checkViolation      = "23514"
		foreignKeyViolation = "23503"
		restrictViolation   = "23001"
		uniqueViolation     = "23505"
	)
	// The ids of a booking to add entries to, and of its two accounts.
	const booking = `WITH booking AS (
		SELECT max(txn.id) AS txn_id, max(account.id) FILTER (WHERE account.kind = 'player') AS player,
			max(account.id) FILTER (WHERE account.kind = 'cash' AND account.currency = 'KRW') AS cash,
			max(account.id) FILTER (WHERE account.kind = 'promotion' AND account.currency = 'USD') AS foreign_account
		FROM ledger_txn AS txn CROSS JOIN ledger_account AS account
	) INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) `

	for _, tt := range []struct{ name, sql, code, message string }{
		{"RefuseAChangedEntry", "UPDATE ledger_entry SET amount_minor = 0", restrictViolation, "append-only"},
		{"RefuseADeletedEntry", "DELETE FROM ledger_entry", restrictViolation, "append-only"},
		{"RefuseTruncatedEntries", "TRUNCATE ledger_entry", restrictViolation, "append-only"},
		{"RefuseAChangedTransaction", "UPDATE ledger_txn SET at = now()", restrictViolation, "append-only"},
		{"RefuseADeletedTransaction", "DELETE FROM ledger_txn", restrictViolation, "append-only"},
		{"RefuseTruncatedTransactions", "TRUNCATE ledger_txn", restrictViolation, "append-only"},
		{"RefuseOneEntryAlone", booking + "SELECT txn_id, cash, 5, now() FROM booking", checkViolation, "sum to 5"},
		{"RefuseEntriesThatDoNotBalance", booking + "SELECT txn_id, unnest(ARRAY[cash, foreign_account]), unnest(ARRAY[5, -4]), now() FROM booking", checkViolation, "does not balance"},
		{"RefuseEntriesThatBalanceAcrossCurrencies", booking + "SELECT txn_id, unnest(ARRAY[cash, foreign_account]), unnest(ARRAY[5, -5]), now() FROM booking", checkViolation, "does not balance"},
		{"RefuseEntriesOfNoTransaction", booking + "SELECT txn_id + 1, unnest(ARRAY[cash, player]), unnest(ARRAY[5, -5]), now() FROM booking", foreignKeyViolation, "does not exist"},
		{"RefuseEntriesOfNoAccount", booking + "SELECT txn_id, unnest(ARRAY[-1, -2]), unnest(ARRAY[5, -5]), now() FROM booking", foreignKeyViolation, "does not exist"},
		{"RefuseAReferenceTwice", "INSERT INTO ledger_txn (at, kind, reference) SELECT at, kind, reference FROM ledger_txn", uniqueViolation, "reference"},
		{"RefuseABalanceBelowItsFloor", "UPDATE wallet SET balance_minor = -1", checkViolation, "balance_not_below_floor"},
		{"RefuseAFloorAboveTheBalance", "UPDATE wallet SET floor_minor = balance_minor + 1", checkViolation, "balance_not_below_floor"},
		{"RefuseASecondAccountOfAPlayer", "INSERT INTO ledger_account (currency, kind, player_id) SELECT currency, kind, player_id FROM ledger_account WHERE kind = 'player'", uniqueViolation, "one_per_player"},
		{"RefuseASecondHouse", "INSERT INTO ledger_account (currency, kind) VALUES ('KRW', 'house')", uniqueViolation, "one_per_kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			player := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Balance: 1000})
			dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Currency: "USD"})
			dbfactory.SettledBet(ctx, t, bundle.tx, dbfactory.BetOpts{Player: player})

			_, err := bundle.tx.Exec(ctx, tt.sql)
			var refused *pgconn.PgError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, tt.code, refused.Code, refused.Message)
			require.Contains(t, refused.Message, tt.message)
		})
	}
}
