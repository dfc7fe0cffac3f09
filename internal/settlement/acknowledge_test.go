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

func TestService_Accept(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		accepted   settlement.Acceptance
		alsoFrozen []string
		isCalm     bool
	}{
		"OfThePlayer":      {accepted: settlement.Acceptance{Player: "b"}, isCalm: true},
		"OfTheProgramme":   {accepted: settlement.Acceptance{MaxCredits: 1, Programme: "weekly"}, isCalm: true},
		"OfOneMoreInIt":    {accepted: settlement.Acceptance{MaxCredits: 2, Programme: "weekly"}, alsoFrozen: []string{"d"}, isCalm: true},
		"OfFewerInIt":      {accepted: settlement.Acceptance{MaxCredits: 1, Programme: "weekly"}, alsoFrozen: []string{"d"}},
		"OfThePlayerInIt":  {accepted: settlement.Acceptance{Player: "b", Programme: "weekly"}, isCalm: true},
		"OfAnotherPlayer":  {accepted: settlement.Acceptance{Player: "a"}},
		"OfAnotherFailure": {accepted: settlement.Acceptance{FailureCode: "wallet_closed", Player: "b"}},
		"ThatIsRevoked":    {accepted: settlement.Acceptance{Player: "b", Reason: "revoke"}},
	} {
		t.Run("EndsTheAlarmOfWhatIsPartialAlone_"+name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			bundle := setup(ctx, t, defaultConfig())
			bundle.loser(ctx, t, "a", 1000)
			bundle.loser(ctx, t, "b", 1000)
			bundle.loserAt(ctx, t, "c", 1000, weekEnd().Add(time.Hour))
			bundle.status(ctx, t, "b", activity.StatusFrozen)
			bundle.status(ctx, t, "c", activity.StatusFrozen)
			for _, code := range tc.alsoFrozen {
				bundle.loser(ctx, t, code, 1000)
				bundle.status(ctx, t, code, activity.StatusFrozen)
			}
			bundle.watermark(ctx, t, weekEnd().AddDate(0, 0, 7))
			bundle.programme(ctx, t, weekly)
			ask := tc.accepted
			ask.By, ask.ExpiresAt = "ana", time.Now().Add(24*time.Hour)
			if ask.FailureCode == "" {
				ask.FailureCode = "wallet_frozen"
			}
			if ask.Reason == "" {
				ask.Reason = "court order"
			}
			accepted, err := bundle.service.Accept(ctx, ask)
			require.NoError(t, err)
			if ask.Reason == "revoke" {
				require.NoError(t, bundle.service.RevokeAcceptance(ctx, accepted.ID, "bo", "thawed"))
				require.True(t, fault.Is(bundle.service.RevokeAcceptance(ctx, accepted.ID, "bo", "thawed"), fault.KindNotFound))
				list, err := bundle.service.Accepted(ctx)
				require.NoError(t, err)
				require.Empty(t, list)
			}
			bundle.work(ctx, t)

			first := bundle.settleWeek(ctx, t, week)
			require.Equal(t, "partial", first.Outcome)
			require.Equal(t, tc.isCalm, first.AcknowledgedAt != nil)
			if tc.isCalm {
				require.Equal(t, "ana", scalar[string](ctx, t, bundle.db, "SELECT acknowledged_by FROM settlement_run"))
				require.NotEqual(t, "degraded", bundle.verdict(ctx, t))
			}
			// One that paid nobody alarms whatever is accepted.
			second := bundle.settleWeek(ctx, t, laterWeek)
			require.Equal(t, "none_delivered", second.Outcome)
			require.Nil(t, second.AcknowledgedAt)
			bundle.requireTrueBooks(ctx, t)

			_, err = bundle.db.Pool.Exec(ctx, "UPDATE settlement_acceptance SET reason = 'other'")
			require.ErrorContains(t, err, "acceptances are evidence")
			_, err = bundle.db.Pool.Exec(ctx, "DELETE FROM settlement_acceptance")
			require.ErrorContains(t, err, "acceptances are evidence")
		})
	}
}
