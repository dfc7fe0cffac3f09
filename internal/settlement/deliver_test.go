package settlement_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/settlement"
)

func TestRunner_Work_Outcomes(t *testing.T) {
	t.Parallel()

	t.Run("AllDeliveredCreditsEverybodyOnce", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 10 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.bet(ctx, t, "winner", 1000, 5000)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, int64(11), *result.Evaluated)
		require.Equal(t, int64(10), *result.Credited)
		require.Equal(t, int64(1), *result.Excluded)
		require.Equal(t, int64(1000), *result.CreditedAmount)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		require.True(t, strings.HasPrefix(bundle.balances(ctx, t), "p-000=100 p-001=100 "), bundle.balances(ctx, t))
		require.Equal(t, 10, bundle.count(ctx, t, "SELECT count(*) FROM outbox_event WHERE type = 'wallet.credited.v1'"))
		// As every event of a wallet: what was moved, what is left, and the wallet's version.
		require.Equal(t, 10, bundle.count(ctx, t, `
			SELECT count(*)
			FROM outbox_event AS event
			JOIN wallet_balances AS balance ON event.key = balance.player || '/' || balance.currency AND event.key_seq = balance.version
			JOIN ledger_lines AS line ON line.player = balance.player AND line.kind = 'credit'
			WHERE event.type = 'wallet.credited.v1'
				AND event.payload - 'at' = jsonb_build_object(
					'amount', line.amount::text, 'balance', balance.balance::text, 'currency', balance.currency, 'player', balance.player, 'reference', line.reference)
				AND (event.payload ->> 'at')::timestamptz = line.at
				AND event.payload ->> 'at' LIKE '%Z'`))
		require.Equal(t, 10, bundle.count(ctx, t, "SELECT count(*) FROM settlement_attempt WHERE result = 'credited'"))
		bundle.requireTrueBooks(ctx, t)

		verdicts := bundle.logs.verdicts(t)
		require.Len(t, verdicts, 1)
		require.Contains(t, verdicts[0], "level=INFO")
		require.Contains(t, verdicts[0], "outcome=all_delivered")
		require.Contains(t, verdicts[0], "credited_minor=1000")
		require.Equal(t, "all_delivered", scalar[string](ctx, t, bundle.db,
			"SELECT metadata #>> '{output,result,outcome}' FROM river_job WHERE kind = 'settlement_cashback'"))
	})

	t.Run("NoEligibleIsProvenByTheWatermark", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1)) // nothing to approve
		bundle.bet(ctx, t, "winner", 1000, 5000)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "no_eligible", result.Outcome)
		require.Equal(t, int64(1), *result.Evaluated)
		require.Equal(t, int64(0), *result.Credited)
		require.False(t, result.InputsAt.Before(weekEnd()))
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		require.Contains(t, bundle.logs.verdicts(t)[0], "level=INFO")
		require.Equal(t, "winner=0:winner", bundle.credits(ctx, t, result.RunID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("NoneDeliveredFailsAtEveryAttemptAndIsDiscarded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 4 {
			bundle.loser(ctx, t, numbered(n), 1000)
			bundle.status(ctx, t, numbered(n), activity.StatusFrozen)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Equal(t, "none_delivered", result.Outcome)
		require.Equal(t, 3, result.Attempt)
		require.Equal(t, int64(4), *result.Failed)
		require.Equal(t, int64(400), *result.FailedAmount)
		errs := scalar[[]string](ctx, t, bundle.db,
			"SELECT array_agg(error ORDER BY attempt) FROM job_failures WHERE kind = 'settlement_cashback'")
		require.Len(t, errs, 3)
		for _, text := range errs {
			require.Contains(t, text, "none of 4 credits was delivered: 4 × wallet_frozen (permanent)")
		}
		require.Equal(t, 12, bundle.count(ctx, t, "SELECT count(*) FROM settlement_attempt"))
		verdicts := bundle.logs.verdicts(t)
		require.Len(t, verdicts, 1)
		require.Contains(t, verdicts[0], "level=ERROR")
		require.Equal(t, 2, bundle.logs.count("level=ERROR msg=\"settlement pass left credits undelivered\"")) // and the last is the verdict
		require.Equal(t, "p-000=0 p-001=0 p-002=0 p-003=0", bundle.balances(ctx, t))
		require.Equal(t, "none_delivered", scalar[string](ctx, t, bundle.db,
			"SELECT metadata #>> '{output,result,outcome}' FROM river_job WHERE kind = 'settlement_cashback'"))
		bundle.requireTrueBooks(ctx, t)

		// River UI's retry of the discarded job: the same answer, and nobody is paid.
		job := scalar[int64](ctx, t, bundle.db, "SELECT id FROM river_job WHERE kind = 'settlement_cashback'")
		_, err := bundle.client.JobRetry(ctx, job)
		require.NoError(t, err)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Equal(t, 4, bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE kind = 'settlement_cashback'"))
		require.Equal(t, 12, bundle.count(ctx, t, "SELECT count(*) FROM settlement_attempt"))
	})

	t.Run("AWalletThatThawsBetweenAttemptsIsCredited", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.Backoff = time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "p", 1000)
		bundle.status(ctx, t, "p", activity.StatusFrozen)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		runID := bundle.plan(ctx, t)
		require.Eventually(t, func() bool {
			return bundle.credits(ctx, t, runID) == "p=100:failed/wallet_frozen"
		}, patience, poll)
		bundle.status(ctx, t, "p", activity.StatusActive)
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 2, result.Attempt)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("MixedIsPartialAtOnceWhenNothingWillChange", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 7 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.status(ctx, t, numbered(2), activity.StatusFrozen)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		require.Equal(t, int64(6), *result.Credited)
		require.Equal(t, int64(1), *result.Failed)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		verdicts := bundle.logs.verdicts(t)
		require.Len(t, verdicts, 1)
		require.Contains(t, verdicts[0], "level=ERROR")
		require.Contains(t, verdicts[0], "wallet_frozen (permanent)")
		require.Contains(t, bundle.credits(ctx, t, result.RunID), "p-002=100:failed/wallet_frozen")
		detail, err := bundle.service.Show(ctx, result.RunID)
		require.NoError(t, err)
		require.EqualValues(t, len(detail.Undelivered), detail.NumUndelivered)
		require.Contains(t, detail.Undelivered, settlement.Undelivered{Amount: 100, Delivery: "failed", Player: "p-002", Why: "wallet_frozen"})
		require.Equal(t, "degraded", bundle.verdict(ctx, t))
		bundle.requireTrueBooks(ctx, t)

		_, err = bundle.service.Acknowledge(ctx, settlement.Decision{By: "operator", Reason: "known", RunID: result.RunID})
		require.NoError(t, err)
		require.NotEqual(t, "degraded", bundle.verdict(ctx, t))
	})

	t.Run("OnPartialErrorFailsTheJobThatEndsTheRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly+"    on_partial: error\n")
		bundle.loser(ctx, t, "a", 1000)
		bundle.loser(ctx, t, "b", 1000)
		bundle.status(ctx, t, "b", activity.StatusFrozen)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Equal(t, "a=100 b=0", bundle.balances(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WhoIsExcludedByLawAfterTheCalculationIsWithheld", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1))
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		runID := bundle.plan(ctx, t)
		bundle.await(ctx, t, runID, "awaiting_approval")
		bundle.status(ctx, t, "a", activity.StatusSelfExcluded)
		_, err := bundle.service.Approve(ctx, settlement.Decision{By: "approver", RunID: runID})
		require.NoError(t, err)
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_withheld", result.Outcome)
		require.Equal(t, "a=100:withheld/self_excluded", bundle.credits(ctx, t, runID))
		require.Equal(t, []string{"completed", "completed"}, bundle.awaitJobs(ctx, t))
		require.Contains(t, bundle.logs.verdicts(t)[0], "level=WARN")
		bundle.requireTrueBooks(ctx, t)
	})
}
