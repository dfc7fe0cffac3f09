package settlement_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
)

// byHand lets every run that pays anything wait for a person.
func byHand() string { return strings.Replace(weekly, "    auto_approve_below: 1000000000\n", "", 1) }

func (bundle *testBundle) watchdog(config settlement.WatchdogConfig) *settlement.Watchdog {
	return settlement.NewWatchdog(bundle.service, slog.New(slog.NewTextHandler(bundle.logs, nil)), config)
}

// look returns the alarms that stand, those of later weeks left out.
func (bundle *testBundle) look(ctx context.Context, t *testing.T) []settlement.Alarm {
	t.Helper()
	report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
	require.NoError(t, err)
	require.Zero(t, report.NumMore)
	var alarms []settlement.Alarm
	for _, alarm := range report.Alarms {
		if alarm.Period == week {
			alarms = append(alarms, alarm)
		}
	}
	return alarms
}

// requireAlarm expects one alarm to stand, of this kind, and returns it.
func (bundle *testBundle) requireAlarm(ctx context.Context, t *testing.T, kind settlement.AlarmKind) settlement.Alarm {
	t.Helper()
	alarms := bundle.look(ctx, t)
	require.Len(t, alarms, 1)
	require.Equal(t, kind, alarms[0].Kind)
	require.Equal(t, "weekly", alarms[0].Programme)
	return alarms[0]
}

func (bundle *testBundle) requireCalm(ctx context.Context, t *testing.T) {
	t.Helper()
	require.Empty(t, bundle.look(ctx, t))
}

// falsify changes what the database's triggers keep as it is.
func (bundle *testBundle) falsify(ctx context.Context, t *testing.T, statements ...string) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		for _, statement := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
			_, err := tx.Exec(ctx, statement)
			require.NoError(t, err, statement)
		}
		return nil
	}))
}

// approvedAgo lets the programmes have been approved so long ago.
func (bundle *testBundle) approvedAgo(ctx context.Context, t *testing.T, ago string) {
	t.Helper()
	bundle.falsify(ctx, t, "UPDATE programme_version SET approved_at = clock_timestamp() - interval '"+ago+"'")
}

// ableAgo lets the runs, and what is noted of them and of ended jobs, be so old.
func (bundle *testBundle) ableAgo(ctx context.Context, t *testing.T, ago string) {
	t.Helper()
	bundle.falsify(ctx, t,
		"UPDATE settlement_run SET able_since = clock_timestamp() - interval '"+ago+"'",
		"UPDATE settlement_event SET at = clock_timestamp() - interval '"+ago+"'",
		"UPDATE river_job SET attempted_at = clock_timestamp() - interval '"+ago+"', finalized_at = clock_timestamp() - interval '"+ago+"' WHERE finalized_at IS NOT NULL",
	)
}

// waiting makes a run of the week that waits for its inputs. No client works.
func (bundle *testBundle) waiting(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	bundle.programme(ctx, t, weekly)
	runID := bundle.plan(ctx, t)
	require.NoError(t, bundle.client.Start(ctx))
	bundle.await(ctx, t, runID, "waiting_inputs")
	require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
	require.NoError(t, bundle.client.StopAndCancel(ctx))
	return runID
}

// undelivered makes a run of the week that ended none_delivered, and its job
// discarded.
func (bundle *testBundle) undelivered(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	bundle.programme(ctx, t, weekly)
	bundle.loser(ctx, t, "a", 1000)
	bundle.status(ctx, t, "a", activity.StatusFrozen)
	bundle.watermark(ctx, t, weekEnd())
	bundle.work(ctx, t)
	result := bundle.settle(ctx, t)
	require.Equal(t, "none_delivered", result.Outcome)
	require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
	return result.RunID
}

func TestWatchdog_Look_Periods(t *testing.T) {
	t.Parallel()

	t.Run("APeriodWithoutARun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.requireCalm(ctx, t) // the weeks are long over, but no tick can have known
		bundle.approvedAgo(ctx, t, "75 seconds")
		bundle.requireCalm(ctx, t)

		bundle.approvedAgo(ctx, t, "3 minutes")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun)
		require.InDelta(t, 3*time.Minute, alarm.Age, float64(time.Minute))
		require.Equal(t, "truegreen settlement run weekly 2026-W45", alarm.Do())
		require.Equal(t, "due by version 1, and no tick has given it a run", alarm.Detail)
		require.Equal(t, "settlement_tick", alarm.Loop)
		require.Zero(t, alarm.RunID)

		bundle.programme(ctx, t, strings.Replace(weekly, "rate_ppm: 100000", "rate_ppm: 200000", 1))
		alarm = bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun)
		require.InDelta(t, 3*time.Minute, alarm.Age, float64(time.Minute), "other terms do not begin it anew")
		require.Equal(t, "due by version 2, and no tick has given it a run", alarm.Detail)

		bundle.approvedAgo(ctx, t, "100 years")
		require.True(t, bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun).Since.Equal(weekEnd()), "when it was due")
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_period"), "who looks adds nothing")

		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
		require.NoError(t, err)
		require.Empty(t, report.Alarms)
	})

	t.Run("AnyRunOfThePeriodWillDo", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.approvedAgo(ctx, t, "3 minutes")
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "ana", Reason: "not wanted", RunID: bundle.plan(ctx, t)})
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})

	t.Run("NotBeforeItIsDueNorWithoutApproval", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		monday := lastMonday()
		grace := time.Since(monday.AddDate(0, 0, 7)).Round(time.Minute) + 30*time.Minute
		bundle.programme(ctx, t, weeklySince(monday)+"    grace: "+grace.String()+"\n")
		bundle.approvedAgo(ctx, t, "90 days")
		bundle.requireCalm(ctx, t)

		bundle.falsify(ctx, t, "UPDATE programme_version SET approved_at = NULL, approved_by = NULL")
		report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
		require.NoError(t, err)
		require.Empty(t, report.Alarms)
	})

	t.Run("AShorterGraceIsNotLateAtOnce", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		monday := lastMonday()
		grace := time.Since(monday.AddDate(0, 0, 7)).Round(time.Minute) + 30*time.Minute
		bundle.programme(ctx, t, weeklySince(monday)+"    grace: "+grace.String()+"\n")
		bundle.approvedAgo(ctx, t, "90 days")
		bundle.programme(ctx, t, weeklySince(monday)) // overdue, but only since just now
		bundle.requireCalm(ctx, t)
	})

	t.Run("ATickThatMayComeLaterIsWaitedFor", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.approvedAgo(ctx, t, "3 minutes")
		bundle.exec(ctx, t, "UPDATE loop_contract SET red_after = '20 minutes' WHERE loop = 'settlement_tick'")
		bundle.requireCalm(ctx, t)
		bundle.approvedAgo(ctx, t, "21 minutes")
		bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun)

		// Nor does it need a worker that has ever run.
		bundle.exec(ctx, t, "DELETE FROM loop_contract")
		bundle.approvedAgo(ctx, t, "75 seconds")
		bundle.requireCalm(ctx, t)
		bundle.approvedAgo(ctx, t, "3 minutes")
		bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun)
	})

	t.Run("SaysWhoPausedTheTick", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.approvedAgo(ctx, t, "3 minutes")
		bundle.exec(ctx, t, `
			UPDATE loop_contract SET paused_at = now(), paused_by = 'ana', pause_reason = 'stocktaking' WHERE loop = 'settlement_tick'`)
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmPeriodWithoutRun)
		require.True(t, alarm.Paused)
		require.Contains(t, alarm.Detail, "; loop settlement_tick is paused by ana: stocktaking")
		require.Equal(t, "truegreen loops resume settlement_tick --reason TEXT", alarm.Do())
	})

	t.Run("AProgrammeThatCannotBeReadHidesNoOther", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "code: weekly", "code: a-broken", 1))
		bundle.programme(ctx, t, weekly)
		bundle.approvedAgo(ctx, t, "3 minutes")
		bundle.falsify(ctx, t, `
			UPDATE programme_version SET rules = '{"kind": 7}' WHERE programme_id = (SELECT id FROM programme WHERE code = 'a-broken')`)
		report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
		require.ErrorContains(t, err, "look for periods of programme a-broken: read version 1")
		require.NotEmpty(t, report.Alarms)
		for _, alarm := range report.Alarms {
			require.Equal(t, "weekly", alarm.Programme)
		}
	})

	t.Run("WhatIsManyHidesNothingElse", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.NewReplacer("code: weekly", "code: daily", "period: weekly", "period: daily", "2026-11-02", "2026-01-01").Replace(weekly))
		bundle.programme(ctx, t, weekly)
		runID := bundle.plan(ctx, t)
		bundle.ableAgo(ctx, t, "2 hours")
		bundle.approvedAgo(ctx, t, "3 minutes")
		report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
		require.NoError(t, err)
		require.Len(t, report.Alarms, 100)
		require.Greater(t, report.NumMore, 200)
		first := report.Alarms[0]
		require.Equal(t, settlement.AlarmRunOverdue, first.Kind, "the oldest")
		require.Equal(t, runID, first.RunID)
		require.Equal(t, "2026-01-01", report.Alarms[1].Period)
	})
}

func TestWatchdog_Look(t *testing.T) {
	t.Parallel()

	t.Run("WaitsForNoLockAndForNoConnectionForLong", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.plan(ctx, t)
		bundle.ableAgo(ctx, t, "1 hour")
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		for _, lock := range []string{"SELECT FROM programme FOR UPDATE", "SELECT FROM settlement_run FOR UPDATE", "SELECT FROM river_job FOR UPDATE"} {
			_, err = tx.Exec(ctx, lock)
			require.NoError(t, err)
		}
		bundle.requireAlarm(ctx, t, settlement.AlarmRunOverdue)

		for range bundle.db.Pool.Config().MaxConns - 1 {
			conn, err := bundle.db.Pool.Acquire(ctx)
			require.NoError(t, err)
			defer conn.Release()
		}
		_, err = bundle.watchdog(settlement.WatchdogConfig{Timeout: 50 * time.Millisecond}).Look(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})

	t.Run("NothingStandsWhereAllIsSettled", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, time.Now().Truncate(time.Second))
		bundle.work(ctx, t)
		bundle.tick(ctx, t)
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE state <> 'done'") == 0
		}, patience, poll)
		bundle.awaitJobs(ctx, t)
		// However long ago all of it was.
		bundle.approvedAgo(ctx, t, "90 days")
		bundle.ableAgo(ctx, t, "60 days")
		bundle.falsify(ctx, t, "UPDATE settlement_run SET calculated_at = now() - interval '60 days', created_at = now() - interval '60 days'")
		report, err := bundle.watchdog(settlement.WatchdogConfig{Timeout: patience}).Look(ctx)
		require.NoError(t, err)
		require.Empty(t, report.Alarms)
	})
}
