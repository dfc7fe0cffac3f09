package sample_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbtest"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/money"
	"truegreen/internal/wallet"
)

// What the generator says of balances is what the real ledger has afterwards,
// and live activity goes on from there.
func TestWrite_Import(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Database(ctx, t)
	service := activity.New(wallet.New())
	out, stats := write(t, small())

	result, err := service.Import(ctx, db.Pool, "sample", bytes.NewReader(out), activity.ImportOptions{})
	require.NoError(t, err)
	require.Equal(t, stats.Lines, result.NumLines)
	require.Equal(t, stats.Refused, result.NumRefused)
	require.Equal(t, slices.Collect(stats.AllPlayers()), balances(t, db))

	again, err := service.Import(ctx, db.Pool, "sample", bytes.NewReader(out), activity.ImportOptions{})
	require.NoError(t, err)
	require.Equal(t, stats.Lines, again.NumKnown)

	var open int64
	require.NoError(t, db.Pool.QueryRow(ctx, `
		SELECT count(*) FROM bet WHERE settled_at IS NULL AND voided_at IS NULL AND refusal IS NULL`).Scan(&open))
	require.Equal(t, stats.Open, open)

	live, err := sample.NewLive(balances(t, db), sample.LiveConfig{LinesPerSecond: 20, Start: stats.End})
	require.NoError(t, err)
	for call := range 30 {
		lines := live.Next(stats.End.Add(time.Duration(call+1) * 10 * time.Second))
		applied, err := service.Submit(ctx, db.Pool, lines)
		require.NoError(t, err)
		require.Equal(t, activity.Result{NumApplied: int64(len(lines)), NumLines: int64(len(lines))}, applied)
	}
}

// balances reads the players in the order of the sample.
func balances(t *testing.T, db *dbtest.DB) []sample.Player {
	t.Helper()

	rows, err := db.Pool.Query(t.Context(), `
		SELECT player, currency, balance FROM wallet_balances
		ORDER BY length(player), player`)
	require.NoError(t, err)
	players, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (sample.Player, error) {
		var player sample.Player
		var balance int64
		err := row.Scan(&player.Code, &player.Currency, &balance)
		player.Balance = money.Minor(balance)
		return player, err
	})
	require.NoError(t, err)
	return players
}
