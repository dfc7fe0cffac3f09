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
	"truegreen/internal/settlement"
)

const nextWeek = "2026-W46"

// plays registers a player with a first deposit, who loses amounts by bets.
func (bundle *testBundle) plays(ctx context.Context, t *testing.T, code string, deposit money.Minor, at time.Time, losses map[time.Duration]money.Minor) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{At: at, Balance: deposit, Code: code})
		for after, lost := range losses {
			dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: at.Add(after), Player: code, Stake: lost})
		}
		return nil
	}))
}

// settleWeek settles one week of the programme, whose inputs are in.
func (bundle *testBundle) settleWeek(ctx context.Context, t *testing.T, key string) settlement.Result {
	t.Helper()
	runID, err := bundle.service.Plan(ctx, "weekly", key, "person")
	require.NoError(t, err)
	return bundle.await(ctx, t, runID, "done", "aborted", "awaiting_approval")
}

func (bundle *testBundle) watermarksAt(ctx context.Context, t *testing.T, at time.Time) {
	t.Helper()
	for _, source := range []string{"bets", "cash"} {
		bundle.apply(ctx, t, activity.Line{At: at, Source: source, Type: activity.TypeWatermark})
	}
}

func TestRunner_Work_Lossback(t *testing.T) {
	t.Parallel()

	terms := strings.NewReplacer("kind: cashback", "kind: lossback\n    window: 24h", "    basis: game\n", "").Replace(weekly)

	t.Run("CountsTheWindowOfTheFirstDepositInThePeriodOfItsEnd", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, terms)
		bundle.work(ctx, t)
		const hour = time.Hour
		bundle.plays(ctx, t, "across", 5000, weekEnd().Add(-12*hour), map[time.Duration]money.Minor{hour: 600, 24*hour - time.Microsecond: 100, 24 * hour: 900})
		bundle.plays(ctx, t, "atTheEnd", 5000, weekEnd().Add(-24*hour), map[time.Duration]money.Minor{hour: 700})
		bundle.plays(ctx, t, "before", 5000, weekEnd().Add(-24*hour-time.Microsecond), map[time.Duration]money.Minor{hour: 800})
		bundle.plays(ctx, t, "bounded", 1000, weekEnd(), map[time.Duration]money.Minor{2 * hour: 1000})
		bundle.apply(ctx, t,
			activity.Line{Amount: 9000, At: weekEnd().Add(hour), ID: "again", Player: "bounded", Type: activity.TypeDeposit},
			activity.Line{Amount: 9000, At: weekEnd().Add(-12 * hour), ID: "second", Player: "before", Type: activity.TypeDeposit},
			activity.Line{At: weekEnd().Add(3 * hour), Category: "slots", ID: "more", Player: "bounded", Stake: 4000, Type: activity.TypeBet},
			activity.Line{At: weekEnd().Add(3 * hour), Bet: "more", Type: activity.TypeResult},
		)
		bundle.plays(ctx, t, "early", 5000, weekStart().Add(-time.Microsecond), map[time.Duration]money.Minor{hour: 900})
		bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 7))

		result := bundle.settleWeek(ctx, t, nextWeek)
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, "across=70:credited atTheEnd=70:credited bounded=100:credited", bundle.credits(ctx, t, result.RunID))
		result = bundle.settleWeek(ctx, t, week)
		require.Equal(t, "before=80:credited", bundle.credits(ctx, t, result.RunID), "a first deposit before effective_from has no window")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("LosesNobodyBetweenTwoVersions", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, terms)
		bundle.programme(ctx, t, strings.NewReplacer("2026-11-02", "2026-11-09", "rate_ppm: 100000", "rate_ppm: 200000").Replace(terms))
		bundle.work(ctx, t)
		// Paid in while the first was in force, the window ends under the second.
		bundle.plays(ctx, t, "between", 5000, weekEnd().Add(-12*time.Hour), map[time.Duration]money.Minor{time.Hour: 600})
		bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 7))
		require.Equal(t, "between=120:credited", bundle.credits(ctx, t, bundle.settleWeek(ctx, t, nextWeek).RunID))
		require.Equal(t, "no_eligible", bundle.settleWeek(ctx, t, week).Outcome)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("PaysAPlayerOnceWhateverTheTermsBecome", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, terms)
		bundle.work(ctx, t)
		bundle.plays(ctx, t, "paid", 5000, weekEnd().Add(-48*time.Hour), map[time.Duration]money.Minor{time.Hour: 600})
		bundle.plays(ctx, t, "idle", 5000, weekEnd().Add(-48*time.Hour), nil)
		bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 7))
		require.Equal(t, "idle=0:winner paid=60:credited", bundle.credits(ctx, t, bundle.settleWeek(ctx, t, week).RunID))

		// With a longer window the same first deposits come again, a week later.
		bundle.programme(ctx, t, strings.NewReplacer("window: 24h", "window: 72h", "2026-11-02", "2026-11-03").Replace(terms))
		result := bundle.settleWeek(ctx, t, nextWeek)
		require.Equal(t, "idle=0:winner", bundle.credits(ctx, t, result.RunID))
		bundle.requireTrueBooks(ctx, t)
	})
}

// TestRunner_Work_Lossback_Once: a late deposit gives a player two windows, which end in
// two weeks that are calculated at the same time.
func TestRunner_Work_Lossback_Once(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setup(ctx, t, defaultConfig())
	bundle.programme(ctx, t, strings.NewReplacer("kind: cashback", "kind: lossback\n    window: 24h", "    basis: game\n", "").Replace(weekly))
	bundle.plays(ctx, t, "a", 1000, weekEnd().Add(-12*time.Hour), map[time.Duration]money.Minor{time.Hour: 600})
	bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 7))
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, "LOCK TABLE settlement_item IN EXCLUSIVE MODE")
	require.NoError(t, err)
	later, err := bundle.service.Plan(ctx, "weekly", nextWeek, "person")
	require.NoError(t, err)
	bundle.work(ctx, t)
	bundle.awaitLockWaits(ctx, t, 1)

	bundle.apply(ctx, t, activity.Line{Amount: 800, At: weekEnd().Add(-48 * time.Hour), ID: "late", Player: "a", Type: activity.TypeDeposit})
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: weekEnd().Add(-47 * time.Hour), Player: "a", Stake: 300})
		return nil
	}))
	earlier := bundle.plan(ctx, t)
	bundle.awaitLockWaits(ctx, t, 2)
	require.NoError(t, tx.Rollback(ctx))
	require.Equal(t, "all_delivered", bundle.await(ctx, t, later, "done").Outcome)
	require.Equal(t, "no_eligible", bundle.await(ctx, t, earlier, "done").Outcome)
	require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM ledger_txn WHERE kind = 'credit'"))
	bundle.requireTrueBooks(ctx, t)
}

func TestRunner_Work_Cash(t *testing.T) {
	t.Parallel()

	terms := strings.Replace(weekly, "basis: game", "basis: cash", 1)

	t.Run("TakesTheBalancesOfThePeriodsEnds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, terms)
		bundle.work(ctx, t)
		bundle.plays(ctx, t, "plays", 5000, weekStart().Add(-time.Hour), map[time.Duration]money.Minor{2 * time.Hour: 3000})
		bundle.plays(ctx, t, "pays", 5000, weekStart().Add(-time.Hour), nil)
		bundle.plays(ctx, t, "absent", 5000, weekStart().Add(-time.Hour), nil)
		at := weekStart().Add(5 * time.Hour)
		bundle.apply(ctx, t,
			activity.Line{Amount: 1000, At: at, ID: "d", Player: "plays", Type: activity.TypeDeposit},
			activity.Line{Amount: 500, At: at, ID: "w", Player: "plays", Type: activity.TypeWithdrawal},
			activity.Line{Amount: 99_999, At: at, ID: "refused", Player: "plays", Type: activity.TypeWithdrawal},
			activity.Line{Amount: 700, At: weekEnd(), ID: "later", Player: "plays", Type: activity.TypeDeposit},
			activity.Line{Amount: 400, At: at, ID: "w2", Player: "pays", Type: activity.TypeWithdrawal},
		)
		bundle.watermarks(ctx, t)
		result := bundle.settleWeek(ctx, t, week)
		require.Equal(t, "pays=0:winner plays=300:credited", bundle.credits(ctx, t, result.RunID))
		require.JSONEq(t, `{"closing": "2500", "opening": "5000", "deposits": "1000", "withdrawals": "500"}`,
			scalar[string](ctx, t, bundle.db, "SELECT inputs ->> 'cash' FROM settlement_item WHERE disposition = 'eligible'"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WaitsForTheWatermarkOfPaymentsToo", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, terms)
		bundle.work(ctx, t)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		bundle.await(ctx, t, runID, "waiting_inputs")
		bundle.tick(ctx, t)
		require.Equal(t, "waiting_inputs", bundle.await(ctx, t, runID, "waiting_inputs").State, "nothing has come")
		bundle.watermarks(ctx, t)
		bundle.tick(ctx, t)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
	})
}

func TestRunner_Work_Budget(t *testing.T) {
	t.Parallel()

	withBudget := func(limit, more string) string {
		return strings.Replace(weekly, "    max_attempts: 3\n", "    max_attempts: 1\n    budget: {window: monthly, limit: "+limit+"}\n"+more, 1)
	}

	t.Run("TooLittleAbortsBeforeAnythingIsPaid", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, withBudget("299", ""))
		for n := range 3 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t)
		require.Equal(t, "budget", result.AbortReason)
		require.Equal(t, "it owes 300, and of the budget of 299 (version 1) for 2026-11 0 are used or reserved", result.AbortDetail)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Equal(t, "p-000=0 p-001=0 p-002=0", bundle.balances(ctx, t))
		require.Equal(t, 3, bundle.count(ctx, t, "SELECT count(*) FROM settlement_item WHERE voided_at IS NOT NULL"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WhatStaysUndeliveredIsReleasedAndAWindowIsSharedByItsPeriods", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, withBudget("350", ""))
		for n := range 3 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.status(ctx, t, numbered(0), activity.StatusFrozen)
		bundle.plays(ctx, t, "next", 1500, weekEnd(), map[time.Duration]money.Minor{time.Hour: 1500})
		bundle.plays(ctx, t, "third", 100, weekEnd().AddDate(0, 0, 7), map[time.Duration]money.Minor{time.Hour: 100})
		bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 14))
		bundle.work(ctx, t)
		require.Equal(t, int64(200), *bundle.settleWeek(ctx, t, week).CreditedAmount)
		require.Equal(t, int64(150), *bundle.settleWeek(ctx, t, nextWeek).CreditedAmount, "200 of 350 are used, not 300")
		result := bundle.settleWeek(ctx, t, "2026-W47")
		require.Equal(t, "it owes 10, and of the budget of 350 (version 1) for 2026-11 350 are used or reserved", result.AbortDetail)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("AnApprovalReservesWhatItsRunOwes", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(withBudget("150", ""), "    auto_approve_below: 1000000000\n", "", 1))
		bundle.loser(ctx, t, "a", 1000)
		bundle.plays(ctx, t, "b", 1000, weekEnd(), map[time.Duration]money.Minor{time.Hour: 1000})
		bundle.watermarksAt(ctx, t, weekEnd().AddDate(0, 0, 7))
		bundle.work(ctx, t)
		first, second := bundle.settleWeek(ctx, t, week), bundle.settleWeek(ctx, t, nextWeek)
		require.Equal(t, "awaiting_approval", second.State)
		result, err := bundle.service.Approve(ctx, settlement.Decision{By: "boss", RunID: first.RunID})
		require.NoError(t, err)
		require.Equal(t, "approved", result.State)
		result, err = bundle.service.Approve(ctx, settlement.Decision{By: "boss", RunID: second.RunID})
		require.NoError(t, err)
		require.Equal(t, "budget", result.AbortReason)
		detail, err := bundle.service.Show(ctx, second.RunID)
		require.NoError(t, err)
		require.Equal(t, &settlement.BudgetUse{Limit: 150, Used: 100, Version: 1, Window: "2026-11"}, detail.Budget)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, first.RunID, "done").Outcome)
		detail, err = bundle.service.Show(ctx, first.RunID)
		require.NoError(t, err)
		require.Nil(t, detail.Budget)
		bundle.requireTrueBooks(ctx, t)
	})
}
