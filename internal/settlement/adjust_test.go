package settlement_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbfactory"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
)

// adjust makes an adjustment of the week and waits for its end.
func (bundle *testBundle) adjust(ctx context.Context, t *testing.T) settlement.Result {
	t.Helper()
	runID, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week, Reason: "late bets"})
	require.NoError(t, err)
	return bundle.await(ctx, t, runID, "done", "aborted")
}

// differences are what an adjustment found, such as "a/1=50:credited(100)": the adj, and
// what had been granted before.
func (bundle *testBundle) differences(ctx context.Context, t *testing.T, runID int64) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, `
		SELECT coalesce(string_agg(format('%s/%s=%s:%s(%s)', player, adj, amount, coalesce(delivery, reason), entitled), ' ' ORDER BY player), '')
		FROM settlement_credits WHERE run_id = $1`, runID)
}

// heldBack are the alarms about adjustments that left somebody out.
func (bundle *testBundle) heldBack(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var found []string
	for _, alarm := range bundle.look(ctx, t) {
		if alarm.Kind == settlement.AlarmHeldBack {
			found = append(found, fmt.Sprintf("%s of run %d: %s", alarm.Kind, alarm.RunID, alarm.Detail))
		}
	}
	return found
}

func TestService_Adjust(t *testing.T) {
	t.Parallel()

	t.Run("PaysWhatLateBetsAdd", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for _, code := range []string{"loses_more", "same", "wins_back"} {
			bundle.loser(ctx, t, code, 1000)
		}
		bundle.bet(ctx, t, "won", 100, 500)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		regular := bundle.settle(ctx, t)
		require.Equal(t, "loses_more=100:credited same=100:credited wins_back=100:credited won=0:winner", bundle.credits(ctx, t, regular.RunID))

		bundle.late(ctx, t, "loses_more", 505, 0)
		bundle.late(ctx, t, "wins_back", 10, 400)
		bundle.late(ctx, t, "won", 1400, 0)
		bundle.loser(ctx, t, "x_new", 700)

		preview, err := bundle.service.Preview(ctx, "weekly", week)
		require.NoError(t, err)
		require.Equal(t, "adjustment", preview.RunKind)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "all_delivered", adjustment.Outcome)
		require.Equal(t, "adjustment", adjustment.RunKind)
		require.Equal(t, []int64{5, 3, 2, 50 + 100 + 70}, []int64{*adjustment.Evaluated, *adjustment.Eligible, *adjustment.Excluded, *adjustment.CreditedAmount})
		require.Equal(t, []int64{preview.Evaluated, preview.Eligible, int64(preview.EligibleAmount)},
			[]int64{*adjustment.Evaluated, *adjustment.Eligible, *adjustment.EligibleAmount})
		require.Equal(t, "loses_more/1=50:credited(100) same/1=0:overpaid(100) wins_back/1=0:overpaid(100) won/0=100:credited(0) x_new/0=70:credited(0)",
			bundle.differences(ctx, t, adjustment.RunID))
		require.Equal(t, "settle/weekly/2026-W45/loses_more/KRW/0 settle/weekly/2026-W45/loses_more/KRW/1",
			scalar[string](ctx, t, bundle.db, "SELECT string_agg(reference, ' ' ORDER BY reference) FROM ledger_txn WHERE reference LIKE '%loses_more%' AND kind = 'credit'"))
		require.Equal(t, "planned by operator for late bets, approved by auto_approve_below for 220 is below 1000000000, done", bundle.history(ctx, t, adjustment.RunID))
		bundle.requireTrueBooks(ctx, t)

		explained, err := bundle.service.Explain(ctx, "weekly", week, "wins_back")
		require.NoError(t, err)
		require.Len(t, explained, 2)
		require.Contains(t, explained[1].Lines, "before: 100 was owed already; 61 - 100 = -39")
		for _, item := range explained {
			require.NotContains(t, strings.Join(item.Lines, "\n"), "differs")
		}

		// Nothing came meanwhile, so nobody is owed anything, and that is proven.
		require.Equal(t, "no_eligible", bundle.adjust(ctx, t).Outcome)
		// What was paid too much is reckoned with later.
		bundle.late(ctx, t, "wins_back", 490, 0)
		third := bundle.adjust(ctx, t)
		require.Contains(t, bundle.differences(ctx, t, third.RunID), "wins_back/1=10:credited(100)")
		bundle.requireTrueBooks(ctx, t)

		// The regular run is what it was.
		again, err := bundle.service.Plan(ctx, "weekly", week, "person")
		require.NoError(t, err)
		require.Equal(t, regular.RunID, again)
	})

	t.Run("AnEarlierCreditThatIsUndeliveredHoldsUpItsPlayerAlone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, regular := inPart(ctx, t, weekly)
		bundle.late(ctx, t, "a", 500, 0)
		bundle.late(ctx, t, "b", 500, 0)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "all_delivered", adjustment.Outcome)
		require.Equal(t, "a/1=50:credited(100) b/1=0:earlier_undelivered(100) c/1=0:overpaid(100)", bundle.differences(ctx, t, adjustment.RunID))
		bundle.requireTrueBooks(ctx, t)
		require.Equal(t, []string{"held_back of run 2: 1 players are owed more, and were left out for an undelivered credit of the period"}, bundle.heldBack(ctx, t))

		bundle.status(ctx, t, "b", activity.StatusActive)
		require.Equal(t, "all_delivered", bundle.retry(ctx, t, regular.RunID).Outcome)
		// What b was held back from is still owed.
		require.Len(t, bundle.heldBack(ctx, t), 1)
		second := bundle.adjust(ctx, t)
		require.Empty(t, bundle.look(ctx, t))
		require.Equal(t, "a/2=0:overpaid(150) b/1=50:credited(100) c/1=0:overpaid(100)", bundle.differences(ctx, t, second.RunID))
		require.Equal(t, "a=150 b=150 c=100", bundle.balances(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WhoWasHeldBackCanBeAcknowledged", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, regular := inPart(ctx, t, weekly)
		bundle.late(ctx, t, "b", 500, 0)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "no_eligible", adjustment.Outcome)
		require.Len(t, bundle.heldBack(ctx, t), 1)
		for _, runID := range []int64{regular.RunID, adjustment.RunID} {
			_, err := bundle.service.Acknowledge(ctx, settlement.Decision{By: "operator", Reason: "b has left", RunID: runID})
			require.NoError(t, err)
		}
		require.Empty(t, bundle.look(ctx, t))
	})

	t.Run("NeitherARetryNorACancelEndsTheAlarmOfWhoWasHeldBack", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, _ := inPart(ctx, t, weekly)
		bundle.status(ctx, t, "c", activity.StatusFrozen)
		bundle.late(ctx, t, "b", 500, 0)
		bundle.late(ctx, t, "c", 500, 0)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "none_delivered", adjustment.Outcome)
		require.Equal(t, "a/1=0:overpaid(100) b/1=0:earlier_undelivered(100) c/1=50:failed(100)", bundle.differences(ctx, t, adjustment.RunID))
		bundle.status(ctx, t, "c", activity.StatusActive)
		require.Equal(t, "all_delivered", bundle.retry(ctx, t, adjustment.RunID).Outcome)
		require.NotZero(t, bundle.count(ctx, t, "SELECT count(acknowledged_at) FROM settlement_run WHERE id = $1", adjustment.RunID))
		require.Len(t, bundle.heldBack(ctx, t), 1)

		acknowledge := func() error {
			_, err := bundle.service.Acknowledge(ctx, settlement.Decision{By: "person", Reason: "b has left", RunID: adjustment.RunID})
			return err
		}
		require.NoError(t, acknowledge())
		require.Empty(t, bundle.heldBack(ctx, t))
		require.Equal(t, "operator", scalar[string](ctx, t, bundle.db, "SELECT acknowledged_by FROM settlement_run WHERE id = $1", adjustment.RunID))
		require.ErrorContains(t, acknowledge(), "operator has acknowledged it at")
	})

	t.Run("OneThatWasCancelledWhileItPaidHoldsBackToo", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 1
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 60 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.status(ctx, t, numbered(0), activity.StatusFrozen)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		require.Equal(t, "partial", bundle.settle(ctx, t).Outcome)
		for n := range 60 {
			bundle.late(ctx, t, numbered(n), 500, 0)
		}
		release := bundle.lockWallet(ctx, t, numbered(1))
		runID, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week})
		require.NoError(t, err)
		bundle.cancelWhileItPays(ctx, t, runID, release)
		require.Len(t, bundle.heldBack(ctx, t), 1)
		require.Equal(t, "all_delivered", bundle.retry(ctx, t, runID).Outcome)
		require.Len(t, bundle.heldBack(ctx, t), 1)
	})

	t.Run("OneThatHasNotEndedIsNotAcknowledged", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, _ := inPart(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1))
		bundle.late(ctx, t, "a", 500, 0)
		bundle.late(ctx, t, "b", 500, 0)
		runID, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week})
		require.NoError(t, err)
		bundle.await(ctx, t, runID, "awaiting_approval")
		_, err = bundle.service.Acknowledge(ctx, settlement.Decision{By: "operator", Reason: "I know", RunID: runID})
		require.ErrorContains(t, err, "it is awaiting_approval, and only what has ended can be acknowledged")
		_, err = bundle.db.Pool.Exec(ctx, "UPDATE settlement_run SET acknowledged_at = now(), acknowledged_by = 'x', acknowledge_reason = 'x' WHERE id = $1", runID)
		require.ErrorContains(t, err, "acknowledged_has_ended")
		// Who is left out by what pays nothing is nobody's alarm.
		_, err = bundle.service.Reject(ctx, settlement.Decision{By: "checker", Reason: "no", RunID: runID})
		require.NoError(t, err)
		require.Empty(t, bundle.heldBack(ctx, t))
	})

	t.Run("WhatWasWithheldIsNotEntitled", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, regular := inPart(ctx, t, weekly)
		bundle.status(ctx, t, "b", activity.StatusSelfExcluded)
		require.Equal(t, "all_withheld", bundle.retry(ctx, t, regular.RunID).Outcome)
		first := bundle.adjust(ctx, t)
		require.Equal(t, "a/1=0:overpaid(100) b/1=0:self_excluded(0) c/1=0:overpaid(100)", bundle.differences(ctx, t, first.RunID))
		bundle.status(ctx, t, "b", activity.StatusActive)
		second := bundle.adjust(ctx, t)
		require.Equal(t, "a/1=0:overpaid(100) b/1=100:credited(0) c/1=0:overpaid(100)", bundle.differences(ctx, t, second.RunID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("CapAndMinimumAreOfTheWhole", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly+"    cap: 120\n    min_payout: 90\n")
		bundle.loser(ctx, t, "capped", 1000)
		bundle.loser(ctx, t, "more", 1000)
		bundle.loser(ctx, t, "small", 500)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		bundle.settle(ctx, t)
		bundle.late(ctx, t, "capped", 900, 0)
		bundle.late(ctx, t, "more", 10, 0)
		bundle.late(ctx, t, "small", 390, 0)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "capped/1=20:credited(100) more/1=1:credited(100) small/0=0:below_min(0)", bundle.differences(ctx, t, adjustment.RunID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("AppliesTheTermsOfTheRunAndNoLaterOnes", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, _ := inPart(ctx, t, weekly)
		bundle.programme(ctx, t, strings.Replace(weekly, "rate_ppm: 100000", "rate_ppm: 500000", 1))
		bundle.late(ctx, t, "a", 500, 0)
		preview, err := bundle.service.Preview(ctx, "weekly", week)
		require.NoError(t, err)
		require.Equal(t, 1, preview.Version.Number)
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, 1, adjustment.Version)
		require.Equal(t, "a/1=50:credited(100) b/1=0:overpaid(100) c/1=0:overpaid(100)", bundle.differences(ctx, t, adjustment.RunID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("OneThatWasRejectedClaimsNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, _ := inPart(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1))
		bundle.late(ctx, t, "a", 500, 0)
		wanted := settlement.Adjustment{By: "operator", Code: "weekly", Key: week}
		runID, err := bundle.service.Adjust(ctx, wanted)
		require.NoError(t, err)
		bundle.await(ctx, t, runID, "awaiting_approval")
		_, err = bundle.service.Adjust(ctx, wanted)
		require.ErrorContains(t, err, "run 2 does it already, and awaits approval")
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "operator", RunID: runID})
		require.ErrorContains(t, err, "operator made it")
		_, err = bundle.service.Reject(ctx, settlement.Decision{By: "checker", Reason: "wait for all", RunID: runID})
		require.NoError(t, err)
		bundle.requireTrueBooks(ctx, t)

		bundle.late(ctx, t, "a", 500, 0)
		runID, err = bundle.service.Adjust(ctx, wanted)
		require.NoError(t, err)
		bundle.await(ctx, t, runID, "awaiting_approval")
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: runID})
		require.NoError(t, err)
		bundle.await(ctx, t, runID, "done")
		require.Equal(t, "a/1=100:credited(100) b/1=0:overpaid(100) c/1=0:overpaid(100)", bundle.differences(ctx, t, runID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("BesideARetryNobodyIsPaidTwiceAndNothingIsLost", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 2
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		const numPlayers = 30
		for n := range numPlayers {
			bundle.loser(ctx, t, numbered(n), 1000)
			if n%2 == 0 {
				bundle.status(ctx, t, numbered(n), activity.StatusFrozen)
			}
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		regular := bundle.settle(ctx, t)
		require.Equal(t, "partial", regular.Outcome)
		for n := range numPlayers {
			if n%2 == 0 {
				bundle.status(ctx, t, numbered(n), activity.StatusActive)
			}
			bundle.late(ctx, t, numbered(n), 500, 0)
		}

		retry, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: regular.RunID})
		require.NoError(t, err)
		adjustment, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week})
		require.NoError(t, err)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, retry.RunID, "done").Outcome)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, adjustment, "done").Outcome)
		bundle.requireTrueBooks(ctx, t)
		bundle.adjust(ctx, t)
		require.Equal(t, numPlayers, bundle.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 150"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("RefusesWhatIsNotSettled", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		adjusted := func(code, key string) error {
			_, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: code, Key: key})
			return err
		}
		require.True(t, fault.Is(adjusted("none", week), fault.KindNotFound))
		require.ErrorContains(t, adjusted("weekly", "2026-11"), "2026-11")
		require.ErrorContains(t, adjusted("weekly", week), "it has not been settled: truegreen settlement run weekly 2026-W45 settles it")
		runID := bundle.plan(ctx, t)
		require.ErrorContains(t, adjusted("weekly", week), "run 1 of it is planned; an adjustment can follow once it has ended")
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "not now", RunID: runID})
		require.NoError(t, err)
		require.ErrorContains(t, adjusted("weekly", week), "it has not been settled")
	})

	t.Run("ALossbackKeepsTheFirstDepositThatItPaidFor", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, kindCase{terms: "kind: lossback\n    window: 24h\n    tiers: [{from: 0, rate_ppm: 100000}]"}.text())
		at := weekStart().Add(48 * time.Hour)
		bundle.plays(ctx, t, "a", 1000, at, map[time.Duration]money.Minor{time.Hour: 600})
		bundle.plays(ctx, t, "b", 1000, at, map[time.Duration]money.Minor{time.Hour: 600})
		bundle.watermarks(ctx, t)
		bundle.work(ctx, t)
		regular := bundle.settle(ctx, t)
		require.Equal(t, "a=60:credited b=60:credited", bundle.credits(ctx, t, regular.RunID))

		// Within the window of a's first deposit; an earlier one of b's of the same week.
		require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
			dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: at.Add(2 * time.Hour), Player: "a", Stake: 200})
			return nil
		}))
		bundle.apply(ctx, t, activity.Line{Amount: 50, At: at.Add(-time.Hour), ID: "earlier", Player: "b", Type: activity.TypeDeposit})
		adjustment := bundle.adjust(ctx, t)
		require.Equal(t, "a/1=20:credited(60) b/1=0:overpaid(60)", bundle.differences(ctx, t, adjustment.RunID))
		bundle.requireTrueBooks(ctx, t)
	})
}
