package settlement_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/settlement"
)

// TestAudit_RunKinds corrupts a week that has been settled in part (run 1), adjusted (2),
// retried (3) and adjusted again (4), and sees the audit find it.
func TestAudit_RunKinds(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle, regular := inPart(ctx, t, weekly)
	bundle.late(ctx, t, "a", 500, 0)
	bundle.late(ctx, t, "b", 500, 0)
	require.Equal(t, "all_delivered", bundle.adjust(ctx, t).Outcome)
	bundle.status(ctx, t, "b", activity.StatusActive)
	require.Equal(t, "all_delivered", bundle.retry(ctx, t, regular.RunID).Outcome)
	require.Equal(t, "all_delivered", bundle.adjust(ctx, t).Outcome)
	bundle.requireTrueBooks(ctx, t)
	// What was undelivered when a retry was asked for, and rejected, is no finding.
	require.Equal(t, "aborted", bundle.rejectedRetry(ctx, t).State)
	bundle.requireTrueBooks(ctx, t)

	item := func(runID, player string) string {
		return " WHERE run_id = " + runID + " AND player_id = (SELECT id FROM player WHERE code = '" + player + "')"
	}
	const excluded = "amount_minor = 0, credited_at = NULL, delivery = NULL, disposition = 'excluded', reason = "
	for _, tc := range []struct{ name, sql, view, detail string }{
		{"ARetryThatCountsWhatItDidNotCredit", "UPDATE settlement_run SET credited_minor = 99 WHERE id = 3", "audit_settlement_outcome", "credited, its amount"},
		{"ARetryThatHadMoreToDo", "UPDATE settlement_run SET eligible_minor = 99 WHERE id = 3", "audit_settlement_outcome", "eligible, excluded"},
		{
			"AParentThatTakesItsRetrysCredits", "UPDATE settlement_run SET credited_minor = 300, failed_minor = 0, num_credited = 3, num_failed = 0, outcome = 'all_delivered' WHERE id = 1",
			"audit_settlement_outcome", "outcome all_delivered, its items make it partial",
		},
		{"AnAttemptOfARetryThatIsGone", "DELETE FROM settlement_attempt WHERE run_id = 3", "audit_settlement_attempt", "attempts is 2, 1 are recorded; delivery is credited, 0 attempts credited it"},
		{"AnItemOfARetry", "UPDATE settlement_item SET run_id = 3" + item("1", "b"), "audit_settlement_origin", "is a retry's, which has no items of its own"},
		{"ARetryOfARetry", "UPDATE settlement_run SET kind = 'retry', parent_id = 3 WHERE id = 4", "audit_settlement_origin", "is the retry of a retry"},
		{"ARetryOfAnotherPeriod", "UPDATE settlement_run SET period_id = 99 WHERE id = 3", "audit_settlement_origin", "is of another period or other terms than the run that it retries"},
		{"AnotherEntitlementBefore", "UPDATE settlement_item SET entitled_minor = 99" + item("2", "a"), "audit_settlement_amount", "entitled is 99, earlier items make 100"},
		{"AnEntitlementBeforeARegularRun", "UPDATE settlement_item SET entitled_minor = 1" + item("1", "a"), "audit_settlement_amount", "entitled is 1, earlier items make 0"},
		{"ADifferenceThatIsNone", "UPDATE settlement_item SET amount_minor = 49" + item("2", "a"), "audit_settlement_amount", "amount is 49, what is capped makes 50"},
		{"AnotherAdj", "UPDATE settlement_item SET adj = 3" + item("2", "a"), "audit_settlement_amount", "adj is 3, it comes after 1 claims"},
		{"AnOverpaymentThatIsNone", "UPDATE settlement_item SET reason = 'overpaid'" + item("2", "b"), "audit_settlement_reason", "reason is overpaid, it should be none"},
		{"AnotherReasonOfAnOverpayment", "UPDATE settlement_item SET reason = 'earlier_undelivered'" + item("4", "c"), "audit_settlement_reason", "reason is earlier_undelivered, it should be overpaid"},
		{"SomebodyWhoseEarlierCreditWasThere", "UPDATE settlement_item SET " + excluded + "'earlier_undelivered'" + item("4", "b"), "audit_settlement_reason", "reason is earlier_undelivered, it should be none"},
		{"ABudgetOfALaterVersion", "UPDATE programme_version SET approved_at = now() + interval '1 day'", "audit_settlement_origin", "was approved before the terms whose budget had room for it"},
		{"ABudgetOfAnotherProgramme", "UPDATE programme_version SET programme_id = 99", "audit_settlement_origin", "the terms whose budget had room for it are not a version of its programme"},
		{"ABudgetThatWasNotInForce", "UPDATE programme_version SET effective_from = '2099-01-01'", "audit_settlement_origin", "its period starts before the terms are effective whose budget had room for it"},
		{
			"ALossbackOfTwoPeriods", "UPDATE programme SET kind = 'lossback'; UPDATE settlement_item SET player_id = (SELECT id FROM player WHERE code = 'a') WHERE player_id = (SELECT id FROM player WHERE code = 'e')",
			"audit_settlement_entitled_once", "weekly/a: claims on 2 periods of a programme that pays a player once",
		},
		{
			"ABudgetThatARetryOverspent", `UPDATE programme_version SET rules = rules || '{"budget": {"limit": 349, "window": "monthly"}}'`,
			"audit_settlement_budget", "to 350, its budget allows 349",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			tx, err := bundle.db.Pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) }()
			_, err = tx.Exec(ctx, "SET LOCAL session_replication_role = replica; SET LOCAL jit = off; "+tc.sql)
			require.NoError(t, err)
			require.Contains(t, findingsOf(ctx, t, tx, tc.view), tc.detail)
		})
	}
}

// rejectedRetry settles another week in part, asks for a retry that somebody rejects,
// and delivers the rest by another.
func (bundle *testBundle) rejectedRetry(ctx context.Context, t *testing.T) settlement.Result {
	t.Helper()
	bundle.loserAt(ctx, t, "e", 1000, weekEnd())
	bundle.loserAt(ctx, t, "f", 1000, weekEnd())
	bundle.status(ctx, t, "f", activity.StatusFrozen)
	bundle.watermark(ctx, t, weekEnd().AddDate(0, 0, 7))
	partial := bundle.settleWeek(ctx, t, nextWeek)
	require.Equal(t, "partial", partial.Outcome)
	runID := scalar[int64](ctx, t, bundle.db, `
		INSERT INTO settlement_run (
			abort_detail, abort_reason, acknowledge_reason, acknowledged_at, acknowledged_by, calculated_at, created_by, currency, eligible_minor, finished_at,
			inputs_at, inputs_deadline_at, kind, max_attempts, num_eligible, num_evaluated, num_excluded, parent_id, period_ends_at, period_id, state, version_id
		)
		SELECT
			'no', 'rejected', 'no', now(), 'checker', now(), 'operator', currency, failed_minor, now(),
			inputs_at, inputs_deadline_at, 'retry', max_attempts, num_failed, num_failed, 0, id, period_ends_at, period_id, 'aborted', version_id
		FROM settlement_run WHERE id = $1 RETURNING id`, partial.RunID)
	bundle.requireTrueBooks(ctx, t)
	bundle.status(ctx, t, "f", activity.StatusActive)
	require.Equal(t, "all_delivered", bundle.retry(ctx, t, partial.RunID).Outcome)
	result, err := bundle.service.Get(ctx, runID)
	require.NoError(t, err)
	return result
}

// findingsOf is what a view says, a line each.
func findingsOf(ctx context.Context, t *testing.T, tx pgx.Tx, view string) string {
	t.Helper()
	var found string
	require.NoError(t, tx.QueryRow(ctx, "SELECT coalesce(string_agg(subject || ': ' || detail, E'\n'), '') FROM "+view).Scan(&found))
	return found
}
