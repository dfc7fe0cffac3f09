package settlement_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
	"truegreen/internal/settlement"
)

// inPart settles a week of which b's credit is refused: a and c have 100 each.
func inPart(ctx context.Context, t *testing.T, terms string) (*testBundle, settlement.Result) {
	t.Helper()
	bundle := setup(ctx, t, defaultConfig())
	bundle.programme(ctx, t, terms)
	for _, code := range []string{"a", "b", "c"} {
		bundle.loser(ctx, t, code, 1000)
	}
	bundle.status(ctx, t, "b", activity.StatusFrozen)
	bundle.watermark(ctx, t, weekEnd())
	bundle.work(ctx, t)
	result := bundle.await(ctx, t, bundle.plan(ctx, t), "done", "awaiting_approval")
	if result.State == "awaiting_approval" {
		_, err := bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: result.RunID})
		require.NoError(t, err)
		result = bundle.await(ctx, t, result.RunID, "done")
	}
	require.Equal(t, "partial", result.Outcome)
	require.Equal(t, "a=100 b=0 c=100", bundle.balances(ctx, t))
	return bundle, result
}

// retry makes a retry of a run and waits for its end.
func (bundle *testBundle) retry(ctx context.Context, t *testing.T, runID int64) settlement.Result {
	t.Helper()
	result, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", Reason: "again", RunID: runID})
	require.NoError(t, err)
	return bundle.await(ctx, t, result.RunID, "done", "aborted")
}

// cancelWhileItPays cancels a run whose chunk waits for a wallet, and lets the wallet go.
func (bundle *testBundle) cancelWhileItPays(ctx context.Context, t *testing.T, runID int64, release func()) {
	t.Helper()
	bundle.awaitLockWaits(ctx, t, 1)
	cancelled := make(chan error, 1)
	go func() {
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "wrong list", RunID: runID})
		cancelled <- err
	}()
	bundle.awaitLockWaits(ctx, t, 2)
	release()
	require.NoError(t, <-cancelled)
}

// history is the kinds of a run's events, with who and why.
func (bundle *testBundle) history(ctx context.Context, t *testing.T, runID int64) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, `
		SELECT string_agg(kind || CASE WHEN actor LIKE 'job:%' THEN '' ELSE ' by ' || actor END || coalesce(' for ' || nullif(reason, ''), ''), ', ' ORDER BY id)
		FROM settlement_event WHERE run_id = $1 AND kind NOT IN ('pass_begun', 'pass_failed', 'calculated')`, runID)
}

func TestService_Retry(t *testing.T) {
	t.Parallel()

	t.Run("AttemptsWhatItsParentLeftAndNothingElse", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, parent := inPart(ctx, t, weekly)
		bundle.status(ctx, t, "b", activity.StatusActive)
		retry := bundle.retry(ctx, t, parent.RunID)
		require.Equal(t, "all_delivered", retry.Outcome)
		require.Equal(t, "retry", retry.RunKind)
		require.Equal(t, parent.RunID, retry.ParentRunID)
		require.Equal(t, []int64{1, 1, 0, 0, 0, 1}, []int64{*retry.Evaluated, *retry.Eligible, *retry.Excluded, *retry.Failed, *retry.Withheld, *retry.Credited})
		require.Equal(t, []int64{100, 100}, []int64{*retry.EligibleAmount, *retry.CreditedAmount})
		require.Equal(t, "a=100 b=100 c=100", bundle.balances(ctx, t))

		// The items are the parent's, the attempts are not, and its end stays its end.
		require.Equal(t, "a=100:credited b=100:credited c=100:credited", bundle.credits(ctx, t, parent.RunID))
		require.Equal(t, "1:3 2:1", scalar[string](ctx, t, bundle.db, `
			SELECT string_agg(run_id || ':' || n, ' ' ORDER BY run_id) FROM (SELECT run_id, count(*) AS n FROM settlement_attempt GROUP BY run_id) AS counted`))
		again, err := bundle.service.Get(ctx, parent.RunID)
		require.NoError(t, err)
		require.Equal(t, "partial", again.Outcome)
		require.Equal(t, int64(2), *again.Credited)
		require.Equal(t, int64(100), *again.FailedAmount)
		// What was alarmed about it is mended.
		require.NotNil(t, again.AcknowledgedAt)
		require.Equal(t, "operator", scalar[string](ctx, t, bundle.db, "SELECT acknowledged_by FROM settlement_run WHERE id = $1", parent.RunID))
		require.Equal(t, "planned by person, approved by auto_approve_below for 300 is below 1000000000, done, retried by operator for again, acknowledged for run 2 has left nothing undelivered",
			bundle.history(ctx, t, parent.RunID))
		require.Equal(t, "planned by operator for again, approved by auto_approve_below for 100 is below 1000000000, done", bundle.history(ctx, t, retry.RunID))
		bundle.requireTrueBooks(ctx, t)

		_, err = bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: parent.RunID})
		require.ErrorContains(t, err, "retry run 1: nothing of run 1 is undelivered")
		require.True(t, fault.Is(err, fault.KindInvalid))
	})

	t.Run("ARetryThatFailsIsRetriedAsItsParent", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, parent := inPart(ctx, t, weekly)
		first := bundle.retry(ctx, t, parent.RunID)
		require.Equal(t, "none_delivered", first.Outcome)
		require.Equal(t, int64(1), *first.Failed)
		require.Equal(t, "discarded", scalar[string](ctx, t, bundle.db, "SELECT state::text FROM river_job WHERE id = (SELECT job_id FROM settlement_run WHERE id = $1)", first.RunID))
		again, err := bundle.service.Get(ctx, parent.RunID)
		require.NoError(t, err)
		require.Nil(t, again.AcknowledgedAt)

		bundle.status(ctx, t, "b", activity.StatusActive)
		second := bundle.retry(ctx, t, first.RunID)
		require.Equal(t, "all_delivered", second.Outcome)
		require.Equal(t, parent.RunID, second.ParentRunID)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_run WHERE outcome <> 'all_delivered' AND acknowledged_at IS NULL"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("SomeOfItsItemsMayFailAgainOrBeWithheld", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for _, code := range []string{"a", "b", "c", "d"} {
			bundle.loser(ctx, t, code, 1000)
		}
		for _, code := range []string{"b", "c", "d"} {
			bundle.status(ctx, t, code, activity.StatusFrozen)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		parent := bundle.settle(ctx, t)
		bundle.status(ctx, t, "b", activity.StatusActive)
		bundle.status(ctx, t, "c", activity.StatusSelfExcluded)
		retry := bundle.retry(ctx, t, parent.RunID)
		require.Equal(t, "partial", retry.Outcome)
		require.Equal(t, []int64{3, 1, 1, 1}, []int64{*retry.Eligible, *retry.Credited, *retry.Withheld, *retry.Failed})
		bundle.requireTrueBooks(ctx, t)

		bundle.status(ctx, t, "d", activity.StatusSelfExcluded)
		last := bundle.retry(ctx, t, parent.RunID)
		require.Equal(t, "all_withheld", last.Outcome)
		require.Equal(t, int64(1), *last.Eligible)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_run WHERE acknowledged_at IS NULL AND outcome = 'partial'"))
		bundle.requireTrueBooks(ctx, t)

		var text strings.Builder
		require.NoError(t, bundle.service.Export(ctx, last.RunID, &text))
		require.Equal(t, 2, strings.Count(text.String(), "\n"), text.String())
		require.Contains(t, text.String(), "1,weekly,2026-W45,d,KRW,0,")
	})

	t.Run("GoesOnWithARunThatWasCancelledWhileItPaid", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 1
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		// Many, because the next chunk may take the run before the person does, again
		// and again where processors are few.
		const numPlayers = 100
		for n := range numPlayers {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		release := bundle.lockWallet(ctx, t, numbered(1))
		runID := bundle.plan(ctx, t)
		bundle.work(ctx, t)
		bundle.cancelWhileItPays(ctx, t, runID, release)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t), "who stops it has no failure")
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM job_failures"))
		require.Contains(t, bundle.logs.verdicts(t)[0], "level=WARN")
		// The chunk that it was in, and perhaps one that began before the person's turn.
		paid := bundle.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100")
		require.GreaterOrEqual(t, paid, 2)
		require.Less(t, paid, numPlayers)
		bundle.requireTrueBooks(ctx, t)
		_, err := bundle.service.Plan(ctx, "weekly", week, "person")
		require.ErrorContains(t, err, "run 1 was aborted after it had begun to pay, so no other may start: truegreen settlement retry 1 goes on with it")

		retry := bundle.retry(ctx, t, runID)
		require.Equal(t, "all_delivered", retry.Outcome)
		require.Equal(t, int64(numPlayers-paid), *retry.Credited)
		require.Equal(t, numPlayers, bundle.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WaitsForAnotherPersonsApproval", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, parent := inPart(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1))
		bundle.status(ctx, t, "b", activity.StatusActive)
		retry, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: parent.RunID})
		require.NoError(t, err)
		require.Equal(t, "awaiting_approval", retry.State)
		_, err = bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: parent.RunID})
		require.ErrorContains(t, err, "run 2 does it already, and awaits approval: truegreen settlement approve 2 or reject it")
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "operator", RunID: retry.RunID})
		require.ErrorContains(t, err, "operator made it, so somebody else must approve it")
		require.NotContains(t, err.Error(), "--as", "it does not advise the way round")

		rejected, err := bundle.service.Reject(ctx, settlement.Decision{By: "checker", Reason: "not yet", RunID: retry.RunID})
		require.NoError(t, err)
		require.Equal(t, "aborted", rejected.State)
		require.Equal(t, "a=100:credited b=100:failed/wallet_frozen c=100:credited", bundle.credits(ctx, t, parent.RunID))
		bundle.requireTrueBooks(ctx, t)

		retry, err = bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: rejected.RunID})
		require.NoError(t, err)
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", Reason: "asked the player", RunID: retry.RunID})
		require.NoError(t, err)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, retry.RunID, "done").Outcome)
		require.Equal(t, "planned by operator, approved by checker for asked the player, done", bundle.history(ctx, t, retry.RunID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ReservesItsBudgetAnew", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		terms := strings.Replace(weekly, "    max_attempts: 3\n", "    max_attempts: 1\n    budget: {window: monthly, limit: 300}\n", 1)
		bundle, parent := inPart(ctx, t, terms)
		// What b did not get was released, and the next week takes it.
		bundle.loserAt(ctx, t, "d", 1000, weekEnd().Add(time.Hour))
		bundle.watermark(ctx, t, weekEnd().AddDate(0, 0, 7))
		next, err := bundle.service.Plan(ctx, "weekly", "2026-W46", "person")
		require.NoError(t, err)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, next, "done", "aborted").Outcome)

		bundle.status(ctx, t, "b", activity.StatusActive)
		retry := bundle.retry(ctx, t, parent.RunID)
		require.Equal(t, "aborted budget it owes 100, and of the budget of 300 (version 1) for 2026-11 300 are used or reserved",
			strings.Join([]string{retry.State, retry.AbortReason, retry.AbortDetail}, " "))
		require.Equal(t, "a=100 b=0 c=100 d=100", bundle.balances(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ABudgetThatWasRaisedSinceHasRoomForIt", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		limited := func(limit string) string {
			return strings.Replace(weekly, "    max_attempts: 3\n", "    max_attempts: 1\n    budget: {window: monthly, limit: "+limit+"}\n", 1)
		}
		bundle, parent := inPart(ctx, t, limited("300"))
		bundle.late(ctx, t, "a", 500, 0)
		adjust := func() settlement.Result {
			runID, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week})
			require.NoError(t, err)
			return bundle.await(ctx, t, runID, "done", "aborted")
		}
		require.Equal(t, "all_delivered", adjust().Outcome)
		bundle.status(ctx, t, "b", activity.StatusActive)
		require.Equal(t, "it owes 100, and of the budget of 300 (version 1) for 2026-11 250 are used or reserved", bundle.retry(ctx, t, parent.RunID).AbortDetail)

		bundle.programme(ctx, t, limited("350"))
		preview, err := bundle.service.Preview(ctx, "weekly", week)
		require.NoError(t, err)
		require.Equal(t, &settlement.BudgetUse{Limit: 350, Used: 250, Version: 2, Window: "2026-11"}, preview.Budget)
		require.Equal(t, "all_delivered", bundle.retry(ctx, t, parent.RunID).Outcome)
		bundle.requireTrueBooks(ctx, t)
		bundle.late(ctx, t, "c", 500, 0)
		require.Equal(t, "it owes 50, and of the budget of 350 (version 2) for 2026-11 350 are used or reserved", adjust().AbortDetail)
		bundle.programme(ctx, t, limited("400"))
		require.Equal(t, "all_delivered", adjust().Outcome)
		require.Equal(t, "a=150 b=100 c=150", bundle.balances(ctx, t))
		// A lower limit binds what follows, and makes nothing false that was before.
		bundle.programme(ctx, t, limited("200"))
		bundle.requireTrueBooks(ctx, t)
		bundle.late(ctx, t, "a", 500, 0)
		require.Equal(t, "it owes 50, and of the budget of 200 (version 4) for 2026-11 400 are used or reserved", adjust().AbortDetail)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("WaitsForAPersonIfTheTermsInForceSaySo", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, parent := inPart(ctx, t, weekly)
		require.Equal(t, "auto_approve_below", parent.ApprovedBy)
		bundle.programme(ctx, t, strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1))
		bundle.status(ctx, t, "b", activity.StatusActive)
		retry, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: parent.RunID})
		require.NoError(t, err)
		require.Equal(t, "awaiting_approval", retry.State)
	})

	t.Run("EndsNoAlarmOfBooksThatWereNotAsTheyShouldBe", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 5 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.exec(ctx, t, "INSERT INTO ledger_txn (at, kind, reference) VALUES (now(), 'credit', 'settle/weekly/2026-W45/p-003/KRW/0')")
		bundle.work(ctx, t)
		parent := bundle.settle(ctx, t)
		require.Equal(t, "invariant", parent.AbortReason)
		// Somebody takes back what should not have been there.
		bundle.exec(ctx, t, "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM ledger_txn WHERE reference = 'settle/weekly/2026-W45/p-003/KRW/0'; COMMIT")
		require.Equal(t, "all_delivered", bundle.retry(ctx, t, parent.RunID).Outcome)
		parent, err := bundle.service.Get(ctx, parent.RunID)
		require.NoError(t, err)
		require.Nil(t, parent.AcknowledgedAt)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("RefusesWhatHasNothingToRetry", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		retried := func(runID int64) error {
			_, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: runID})
			return err
		}
		require.True(t, fault.Is(retried(7), fault.KindNotFound))
		runID := bundle.plan(ctx, t)
		require.ErrorContains(t, retried(runID), "run 1 is planned: only what a run has left undelivered when it ends can be retried")
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "not now", RunID: runID})
		require.NoError(t, err)
		require.ErrorContains(t, retried(runID), "run 1 was aborted before it began to pay, and left nothing to retry: truegreen settlement run weekly 2026-W45 starts another")
	})
}
