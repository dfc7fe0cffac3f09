package settlement_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/settlement"
)

func TestService_Plan(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setup(ctx, t, defaultConfig())
	bundle.programme(ctx, t, weekly)
	first := bundle.plan(ctx, t)

	t.Run("FindsTheRunThatIsThere", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, first, bundle.plan(ctx, t))
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM settlement_run"))
	})

	t.Run("RefusesWhatCannotBeSettled", func(t *testing.T) {
		t.Parallel()

		for _, refused := range []struct {
			code, period string
			kind         fault.Kind
			text         string
		}{
			{"nothing", week, fault.KindNotFound, "there is no programme nothing; there are weekly"},
			{"weekly", "2026-W99", fault.KindInvalid, "2026-W99"},
			{"weekly", "2026-11", fault.KindInvalid, "2026-11"},
			{"weekly", "2026-W40", fault.KindInvalid, "no approved version was in force on 2026-09-28"},
			{"weekly", "2126-W40", fault.KindNotReady, "it is due at 2126-"},
		} {
			_, err := bundle.service.Plan(ctx, refused.code, refused.period, "person")
			require.True(t, fault.Is(err, refused.kind), "%v", err)
			require.ErrorContains(t, err, refused.text)
		}
	})
}

func TestService_Decisions(t *testing.T) {
	t.Parallel()

	waiting := strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "    auto_approve_below: 101\n", 1)

	t.Run("MakersDoNotApproveWhatTheyMade", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		bundle.loser(ctx, t, "a", 1010) // 101 is not below 101
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		bundle.tick(ctx, t)
		runID := scalar[int64](ctx, t, bundle.db, "SELECT run_id FROM settlement_results WHERE period = $1", week)
		bundle.await(ctx, t, runID, "awaiting_approval")
		require.Equal(t, "a=0", bundle.balances(ctx, t))

		_, err := bundle.service.Approve(ctx, settlement.Decision{By: "maker", RunID: runID})
		require.True(t, fault.Is(err, fault.KindInvalid), "%v", err)
		require.ErrorContains(t, err, "maker made it, so somebody else must approve it")
		require.NotContains(t, err.Error(), "--as", "it does not advise the way round")
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: runID})
		require.NoError(t, err)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, "a=101", bundle.balances(ctx, t))
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: runID})
		require.ErrorContains(t, err, "it is done (all_delivered), and only a run that awaits approval can be approved")
		require.Equal(t, "planned calculated approved pass_begun done", scalar[string](ctx, t, bundle.db,
			"SELECT string_agg(kind, ' ' ORDER BY id) FROM settlement_event WHERE run_id = $1", runID))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("BelowTheThresholdNobodyIsAsked", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		bundle.loser(ctx, t, "a", 1009)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t)
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, "auto_approve_below", result.ApprovedBy)
	})

	t.Run("NobodyIsCalledAsTheTermsThatApprove", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		const name = "auto_approve_below"
		runID := bundle.plan(ctx, t)
		decision := settlement.Decision{By: name, Reason: "why", RunID: runID}
		for what, act := range map[string]func() error{
			"acknowledge": func() error { _, err := bundle.service.Acknowledge(ctx, decision); return err },
			"adjust": func() error {
				_, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: name, Code: "weekly", Key: week})
				return err
			},
			"apply":          func() error { _, err := bundle.service.Apply(ctx, parse(t, waiting), name); return err },
			"approve":        func() error { _, err := bundle.service.Approve(ctx, decision); return err },
			"approve a term": func() error { _, err := bundle.service.ApproveVersion(ctx, "weekly", 1, name); return err },
			"plan":           func() error { _, err := bundle.service.Plan(ctx, "weekly", week, name); return err },
			"retry":          func() error { _, err := bundle.service.Retry(ctx, decision); return err },
		} {
			err := act()
			require.ErrorContains(t, err, "auto_approve_below is the name under which programmes approve by their terms: give another with --as", what)
			require.True(t, fault.Is(err, fault.KindInvalid), what)
		}
	})

	t.Run("WhatIsRejectedPaysNothingAndMakesRoom", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		bundle.loser(ctx, t, "a", 2000)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		bundle.await(ctx, t, runID, "awaiting_approval")
		result, err := bundle.service.Reject(ctx, settlement.Decision{By: "checker", Reason: "wrong rate", RunID: runID})
		require.NoError(t, err)
		require.Equal(t, "aborted rejected wrong rate", strings.Join([]string{result.State, result.AbortReason, result.AbortDetail}, " "))
		require.NotNil(t, result.AcknowledgedAt)
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: runID})
		require.ErrorContains(t, err, "it is aborted")
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE voided_at IS NOT NULL AND delivery IS NULL"))

		again := bundle.plan(ctx, t)
		bundle.await(ctx, t, again, "awaiting_approval")
		_, err = bundle.service.Approve(ctx, settlement.Decision{By: "checker", RunID: again})
		require.NoError(t, err)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, again, "done").Outcome)
		require.Equal(t, "a=200", bundle.balances(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ACancelledRunEndsItsJobWell", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		runID := bundle.plan(ctx, t)
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "not now", RunID: runID})
		require.NoError(t, err)
		bundle.work(ctx, t)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		_, err = bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "again", RunID: runID})
		require.ErrorContains(t, err, "it is aborted, and only a run that has not ended can be cancelled")
		_, err = bundle.service.Acknowledge(ctx, settlement.Decision{By: "operator", Reason: "again", RunID: runID})
		require.ErrorContains(t, err, "operator has acknowledged it at")
		_, err = bundle.service.Reject(ctx, settlement.Decision{By: "operator", Reason: "no", RunID: 99})
		require.True(t, fault.Is(err, fault.KindNotFound), "%v", err)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("APreviewIsWhatTheRunFindsAndLeavesNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, waiting)
		bundle.loser(ctx, t, "a", 2000)
		bundle.bet(ctx, t, "b", 10, 100)
		preview, err := bundle.service.Preview(ctx, "weekly", week)
		require.NoError(t, err)
		require.Nil(t, preview.Watermarks[0].At)
		require.Equal(t, int64(1), preview.Eligible)
		require.Equal(t, int64(2), preview.Evaluated)
		require.Equal(t, money.Minor(200), preview.EligibleAmount)
		require.ElementsMatch(t, []settlement.Reason{
			{Amount: 200, Delivery: "pending", Disposition: "eligible", NumItems: 1},
			{Disposition: "excluded", NumItems: 1, Reason: "winner"},
		}, preview.Reasons)
		for _, table := range []string{"settlement_period", "settlement_run", "settlement_item", "settlement_event"} {
			require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM "+table), table)
		}
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE kind LIKE 'settlement%'"))

		// A run keeps the version that it was planned with, and the preview says so.
		runID := bundle.plan(ctx, t)
		bundle.programme(ctx, t, strings.Replace(waiting, "rate_ppm: 100000", "rate_ppm: 500000", 1))
		preview, err = bundle.service.Preview(ctx, "weekly", week)
		require.NoError(t, err)
		require.Equal(t, 1, preview.Version.Number)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		result := bundle.await(ctx, t, runID, "awaiting_approval")
		require.Equal(t, int64(preview.EligibleAmount), *result.EligibleAmount)
		_, err = bundle.service.Preview(ctx, "weekly", week)
		require.ErrorContains(t, err, "has calculated it: see truegreen settlement show")
	})
}
