package settlement_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
	"truegreen/internal/settlement"
)

const laterWeek = "2026-W46"

// twoUndelivered settles a week that leaves one of two players unpaid, and a later one
// that pays nobody, and returns both runs.
func (bundle *testBundle) twoUndelivered(ctx context.Context, t *testing.T) (partial, none int64) {
	t.Helper()
	bundle.programme(ctx, t, weekly)
	bundle.loser(ctx, t, "a", 1000)
	bundle.loser(ctx, t, "b", 1000)
	bundle.loserAt(ctx, t, "c", 1000, weekEnd().Add(time.Hour))
	bundle.status(ctx, t, "b", activity.StatusFrozen)
	bundle.status(ctx, t, "c", activity.StatusFrozen)
	bundle.watermark(ctx, t, weekEnd().AddDate(0, 0, 7))
	bundle.work(ctx, t)
	first, second := bundle.settleWeek(ctx, t, week), bundle.settleWeek(ctx, t, laterWeek)
	require.Equal(t, "partial", first.Outcome)
	require.Equal(t, "none_delivered", second.Outcome)
	return first.RunID, second.RunID
}

func TestAlarms_Weight(t *testing.T) {
	t.Parallel()

	t.Run("WhatPaidNobodyComesBeforeWhatIsOlder", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		partial, none := bundle.twoUndelivered(ctx, t)
		report, err := settlement.NewWatchdog(bundle.service, slog.New(slog.DiscardHandler), settlement.WatchdogConfig{}).Look(ctx)
		require.NoError(t, err)
		var seen []string
		for _, alarm := range report.Alarms {
			if alarm.RunID != 0 {
				require.Equal(t, map[int64]settlement.Weight{none: settlement.WeightPage, partial: settlement.WeightTicket}[alarm.RunID], alarm.Weight)
				seen = append(seen, alarm.Period)
			}
		}
		require.Equal(t, []string{laterWeek, week}, seen)
		require.Equal(t, "page "+laterWeek+", ticket "+week, scalar[string](ctx, t, bundle.db,
			"SELECT string_agg(weight || ' ' || period, ', ') FROM settlement_alarms"))
	})
}

func TestService_AcknowledgeAll(t *testing.T) {
	t.Parallel()

	t.Run("TakesWhatIsPartialAndNothingElseUnlessToldSo", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		partial, none := bundle.twoUndelivered(ctx, t)
		ask := settlement.Acknowledgement{By: "ana", Count: 2, Reason: "frozen, known"}
		refuse := func(ask settlement.Acknowledgement, text string) {
			t.Helper()
			_, err := bundle.service.AcknowledgeAll(ctx, ask)
			require.ErrorContains(t, err, text)
			require.Equal(t, 2, bundle.count(ctx, t, "SELECT count(*) FROM settlement_alarms WHERE alarm = 'not_acknowledged'"))
		}
		listed, err := bundle.service.Acknowledgeable(ctx, ask)
		require.NoError(t, err)
		require.Len(t, listed, 1)
		require.Equal(t, partial, listed[0].RunID)
		refuse(ask, "1 runs match, and not 2: nothing was changed")
		refuse(settlement.Acknowledgement{By: "ana", Outcomes: []string{"fine"}}, `outcome "fine" cannot be acknowledged; there are partial, none_delivered, aborted`)
		refuse(settlement.Acknowledgement{By: "ana", Programme: "nosuch"}, "there is no programme nosuch; there are weekly")
		_, err = bundle.service.AcknowledgeAll(ctx, settlement.Acknowledgement{By: "auto_approve_below", Count: 1})
		require.True(t, fault.Is(err, fault.KindInvalid))

		ask.Count, ask.Programme = 1, "weekly"
		done, err := bundle.service.AcknowledgeAll(ctx, ask)
		require.NoError(t, err)
		require.Len(t, done, 1)
		require.NotNil(t, done[0].AcknowledgedAt)
		require.Equal(t, "ana frozen, known", scalar[string](ctx, t, bundle.db,
			"SELECT actor || ' ' || reason FROM settlement_event WHERE kind = 'acknowledged'"))

		ask.Outcomes = []string{"none_delivered", "aborted"}
		done, err = bundle.service.AcknowledgeAll(ctx, ask)
		require.NoError(t, err)
		require.Equal(t, none, done[0].RunID)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_alarms"))
		bundle.requireTrueBooks(ctx, t)
	})
}
