package settlement_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbfactory"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
)

// kindCase is one way to be owed something, and one to be owed nothing.
type kindCase struct {
	name   string
	terms  string // kind, basis and what belongs to them
	owed   stake  // of an eligible player
	amount int64  // what such a player is paid
	idle   stake  // of an excluded player
	reason string
}

// stake is one settled bet of a player whose first deposit was as large.
type stake struct {
	category       string
	payout, amount money.Minor
}

func kindCases() []kindCase {
	const rate = "tiers: [{from: 0, rate_ppm: 100000}]"
	return []kindCase{
		{"RebateOfStakes", "kind: rebate\n    basis: stake\n    categories: {slots: 500000}\n    " + rate,
			stake{"slots", 60_000, 50_000}, 2500, stake{"live", 0, 1000}, "no_turnover"},
		{"RebateOfRisk", "kind: rebate\n    basis: risk\n    " + rate,
			stake{"slots", 60_000, 50_000}, 1000, stake{"slots", 1000, 1000}, "no_turnover"},
		{"CashbackOfGame", "kind: cashback\n    basis: game\n    " + rate,
			stake{"slots", 10_000, 50_000}, 4000, stake{"slots", 2000, 1000}, "winner"},
		{"CashbackOfCash", "kind: cashback\n    basis: cash\n    " + rate,
			stake{"slots", 10_000, 50_000}, 4000, stake{"slots", 2000, 1000}, "winner"},
		{"CashbackInBands", "kind: cashback\n    basis: game\n    shape: graduated\n    tiers: [{from: 0, rate_ppm: 100000}, {from: 30000, rate_ppm: 200000}]",
			stake{"slots", 10_000, 50_000}, 5000, stake{"slots", 2000, 1000}, "winner"},
		{"Lossback", "kind: lossback\n    window: 24h\n    " + rate,
			stake{"slots", 10_000, 50_000}, 4000, stake{"slots", 2000, 1000}, "winner"},
	}
}

// text is a programme of the week with the terms.
func (tc kindCase) text() string {
	return strings.NewReplacer(
		"kind: cashback\n    ", "", "basis: game\n    ", "",
		"tiers: [{from: 0, rate_ppm: 100000}]", tc.terms, "max_attempts: 3", "max_attempts: 2",
	).Replace(weekly)
}

func (bundle *testBundle) stakes(ctx context.Context, t *testing.T, code string, of stake) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{At: weekStart(), Balance: of.amount, Code: code})
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{
			At: weekStart().Add(time.Hour), Category: of.category, Payout: of.payout, Player: code, Stake: of.amount,
		})
		return nil
	}))
}

// TestRunner_Work_Kinds settles each kind, basis and shape: with nobody who is owed
// anything, with refused credits only, and with both.
func TestRunner_Work_Kinds(t *testing.T) {
	t.Parallel()

	for _, tc := range kindCases() {
		t.Run(tc.name+"/NobodyIsEligible", func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, defaultConfig())
			bundle.programme(ctx, t, tc.text())
			bundle.stakes(ctx, t, "idle", tc.idle)
			bundle.watermarks(ctx, t)
			bundle.work(ctx, t)
			result := bundle.settle(ctx, t)
			require.Equal(t, "no_eligible", result.Outcome)
			require.Equal(t, "idle=0:"+tc.reason, bundle.credits(ctx, t, result.RunID))
			bundle.requireTrueBooks(ctx, t)
		})

		t.Run(tc.name+"/AllAreRefused", func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, defaultConfig())
			bundle.programme(ctx, t, tc.text())
			for n := range 4 {
				bundle.stakes(ctx, t, numbered(n), tc.owed)
				bundle.status(ctx, t, numbered(n), activity.StatusFrozen)
			}
			bundle.watermarks(ctx, t)
			bundle.work(ctx, t)
			result := bundle.settle(ctx, t)
			require.Equal(t, "none_delivered", result.Outcome)
			require.Equal(t, 4*tc.amount, *result.FailedAmount)
			require.Equal(t, 0, bundle.count(ctx, t, "SELECT count(*) FROM ledger_txn WHERE kind = 'credit'"))
			bundle.requireTrueBooks(ctx, t)
		})

		t.Run(tc.name+"/SomeAreRefused", func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, defaultConfig())
			bundle.programme(ctx, t, tc.text())
			bundle.stakes(ctx, t, "idle", tc.idle)
			for n := range 5 {
				bundle.stakes(ctx, t, numbered(n), tc.owed)
			}
			bundle.status(ctx, t, numbered(1), activity.StatusFrozen)
			bundle.watermarks(ctx, t)
			bundle.work(ctx, t)
			result := bundle.settle(ctx, t)
			require.Equal(t, "partial", result.Outcome)
			require.Equal(t, int64(4), *result.Credited)
			require.Equal(t, 4*tc.amount, *result.CreditedAmount)
			require.Equal(t, 4, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE amount = $1 AND delivery = 'credited'", tc.amount))
			bundle.requireTrueBooks(ctx, t)
		})
	}
}

// watermarks say that bets and payments are in to the week's end.
func (bundle *testBundle) watermarks(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.watermark(ctx, t, weekEnd())
	bundle.apply(ctx, t, activity.Line{At: weekEnd(), Source: "cash", Type: activity.TypeWatermark})
}
