package settlement_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

func TestRunner_Tick(t *testing.T) {
	t.Parallel()

	t.Run("GivesEachMissedPeriodOneRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.work(ctx, t)
		require.Equal(t, rivertype.JobStateCompleted, bundle.tick(ctx, t).State)
		// However many weeks are over by now, from the first on.
		require.GreaterOrEqual(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results"), 3)
		require.Equal(t, "2026-W45 2026-W46 2026-W47", scalar[string](ctx, t, bundle.db,
			"SELECT string_agg(period, ' ' ORDER BY period) FROM settlement_results WHERE period <= '2026-W47'"))
		require.Equal(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results"),
			bundle.count(ctx, t, "SELECT count(DISTINCT period) FROM settlement_results"))
		require.Equal(t, "maker", scalar[string](ctx, t, bundle.db, "SELECT min(created_by) FROM settlement_results"))
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE period_ends_at > now()"))

		before := bundle.count(ctx, t, "SELECT count(*) FROM settlement_results")
		require.Equal(t, rivertype.JobStateCompleted, bundle.tick(ctx, t).State)
		require.Equal(t, before, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("TwoAtOnceDoTheWorkOfOne", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.work(ctx, t)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { bundle.tick(ctx, t) })
		}
		both.Wait()
		numRuns := bundle.count(ctx, t, "SELECT count(*) FROM settlement_run")
		require.Equal(t, numRuns, bundle.count(ctx, t, "SELECT count(DISTINCT period_id) FROM settlement_run"))
		require.Equal(t, numRuns, bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE kind = 'settlement_cashback'"))
	})

	t.Run("WaitsForTheGrace", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		// The last week is due a month after its end.
		monday := lastMonday()
		bundle.programme(ctx, t, weeklySince(monday)+"    grace: 744h\n")
		bundle.work(ctx, t)
		require.Equal(t, rivertype.JobStateCompleted, bundle.tick(ctx, t).State)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_run"))

		year, number := monday.ISOWeek()
		_, err := bundle.service.Plan(ctx, "weekly", fmt.Sprintf("%d-W%02d", year, number), "person")
		require.True(t, fault.Is(err, fault.KindNotReady), "%v", err)
		require.ErrorContains(t, err, "it is due at ")
	})

	t.Run("RunsWaitForTheirInputsAndAreResumed", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd().Add(-time.Microsecond))
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		result := bundle.await(ctx, t, runID, "waiting_inputs")
		require.Contains(t, result.WaitsFor(), "the watermarks of bets to reach 2026-11-08T15:00:00Z")
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_item"))
		// Others of the programme are planned, this one is left waiting.
		bundle.tick(ctx, t)
		require.Equal(t, "waiting_inputs", bundle.await(ctx, t, runID, "waiting_inputs").State)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE (args ->> 'run_id')::bigint = $1", runID))

		bundle.watermark(ctx, t, weekEnd())
		bundle.tick(ctx, t)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, "a=100", bundle.balances(ctx, t))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ADeadFeedIsAbortedAtTheDeadline", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		bundle.await(ctx, t, runID, "waiting_inputs")
		_, err := bundle.db.Pool.Exec(ctx, "UPDATE settlement_run SET inputs_deadline_at = now() - interval '1 second' WHERE id = $1", runID)
		require.NoError(t, err)
		bundle.tick(ctx, t)

		result := bundle.await(ctx, t, runID, "aborted")
		require.Equal(t, "inputs_deadline", result.AbortReason)
		require.Contains(t, result.AbortDetail, "watermarks (bets never set) have not reached the period's end")
		require.Empty(t, result.Outcome)
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE (args ->> 'run_id')::bigint = $1 AND state = 'discarded'", runID) == 1
		}, patience, poll)
		require.Equal(t, 3, bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE error LIKE '%was aborted (inputs_deadline)%'"))
		require.Contains(t, bundle.logs.verdicts(t)[0], "level=ERROR")
		require.Equal(t, "failing", bundle.verdict(ctx, t))
		bundle.requireTrueBooks(ctx, t)

		// The period has had a run, so no tick starts another; a person may.
		bundle.tick(ctx, t)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE period = $1", week))
		bundle.watermark(ctx, t, weekEnd())
		again := bundle.plan(ctx, t)
		require.NotEqual(t, runID, again)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, again, "done").Outcome)
	})

	t.Run("ARunWhoseInputsCameIsDueUntilItsJobIsWorked", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		runID := bundle.plan(ctx, t)
		require.NoError(t, bundle.client.Start(ctx))
		bundle.await(ctx, t, runID, "waiting_inputs")
		require.NoError(t, bundle.client.StopAndCancel(ctx))
		bundle.watermark(ctx, t, weekEnd())
		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		// Nobody works the queue, and hours pass.
		_, err = bundle.db.Pool.Exec(ctx, `
			UPDATE settlement_run SET able_since = able_since - interval '5 hours' WHERE id = $1`, runID)
		require.NoError(t, err)
		_, err = bundle.db.Pool.Exec(ctx, "UPDATE loop_contract SET baseline_at = baseline_at - interval '50 hours'")
		require.NoError(t, err)
		require.Equal(t, "planned", scalar[string](ctx, t, bundle.db, "SELECT state FROM settlement_run WHERE id = $1", runID))
		require.Equal(t, "stalled", bundle.verdict(ctx, t))
	})

	t.Run("WhatIsLockedHoldsBackNothingElse", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "code: weekly", "code: a-locked", 1))
		bundle.programme(ctx, t, weekly)
		orphan := bundle.plan(ctx, t)
		_, err := bundle.service.Plan(ctx, "weekly", "2026-W46", "person")
		require.NoError(t, err)
		_, err = bundle.db.Pool.Exec(ctx, "DELETE FROM river_job")
		require.NoError(t, err)
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		_, err = tx.Exec(ctx, "SELECT FROM programme WHERE code = 'a-locked' FOR UPDATE")
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "SELECT FROM settlement_run WHERE id = $1 FOR UPDATE", orphan)
		require.NoError(t, err)

		result, err := bundle.runner.Tick(ctx, noCompletion)
		require.ErrorContains(t, err, "plan runs of programme a-locked")
		require.ErrorContains(t, err, fmt.Sprintf("resume run %d", orphan))
		require.Positive(t, result.NumPlanned)
		require.Equal(t, 1, result.NumResumed)
		require.GreaterOrEqual(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE programme = 'weekly'"), 3)
	})

	t.Run("ALongBacklogIsWorkedOffTickByTick", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.NewReplacer("period: weekly", "period: daily", "2026-11-02", "2026-01-01").Replace(weekly))
		first, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		require.Equal(t, 200, first.NumPlanned)
		second, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		require.Positive(t, second.NumPlanned)
		require.Equal(t, "2026-01-01 true", scalar[string](ctx, t, bundle.db, `
			SELECT min(key) || ' ' || (count(*) = max(key)::date - min(key)::date + 1) FROM settlement_period`))
	})

	t.Run("ACalculationThatNeverEndsIsAborted", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		_, err := bundle.db.Pool.Exec(ctx, "ALTER TABLE settlement_item ADD CONSTRAINT nope CHECK (amount_minor < 10)")
		require.NoError(t, err)
		runID := bundle.plan(ctx, t)
		bundle.work(ctx, t)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		bundle.tick(ctx, t)
		result := bundle.await(ctx, t, runID, "aborted")
		require.Equal(t, "calculation", result.AbortReason)
		require.Contains(t, result.AbortDetail, "3 calculations were begun, and none came to its end; at last: settle run")
		require.Contains(t, result.AbortDetail, "nope")
	})

	t.Run("ARunWhoseJobIsGoneGetsAnother", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		_, err := bundle.db.Pool.Exec(ctx, "DELETE FROM river_job")
		require.NoError(t, err)
		bundle.work(ctx, t)
		bundle.tick(ctx, t)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM settlement_event WHERE run_id = $1 AND kind = 'resumed'", runID))
	})

	t.Run("ARunWhoseAttemptsAreSpentIsEnded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 1
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.loser(ctx, t, "b", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		release := bundle.lockWallet(ctx, t, "b")
		require.NoError(t, bundle.client.Start(ctx))
		require.Eventually(t, func() bool { return bundle.balances(ctx, t) == "a=100 b=0" }, patience, poll)
		require.NoError(t, bundle.client.StopAndCancel(ctx))
		release()
		// As a worker leaves it that was killed in its last pass: one credit was
		// committed, the other is pending, the pass was cut off there before, and the
		// rescuer has discarded the job.
		for _, statement := range []string{
			"UPDATE settlement_run SET attempt = max_attempts, is_sliced = false, taken_player_id = cursor_player_id",
			"UPDATE river_job SET state = 'discarded', finalized_at = now(), attempt = max_attempts",
		} {
			_, err := bundle.db.Pool.Exec(ctx, statement)
			require.NoError(t, err)
		}
		bundle.work(ctx, t)
		bundle.tick(ctx, t)

		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, "a=100:credited b=100:failed/not_attempted", bundle.credits(ctx, t, runID))
		require.Equal(t, 3, result.Attempt)
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE state = 'discarded' AND (args ->> 'run_id')::bigint = $1", runID) == 2
		}, patience, poll)
	})

	t.Run("AProcessThatStopsSpendsNoAttempt", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		release := bundle.lockWallet(ctx, t, "a")
		require.NoError(t, bundle.client.Start(ctx))
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
		}, patience, poll)
		require.NoError(t, bundle.client.StopAndCancel(ctx))
		release()
		bundle.work(ctx, t)
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM job_failures"))
	})

	t.Run("AProcessThatStopsInACalculationSpendsNone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		_, err = tx.Exec(ctx, "LOCK TABLE settlement_item IN EXCLUSIVE MODE")
		require.NoError(t, err)
		require.NoError(t, bundle.client.Start(ctx))
		bundle.awaitLockWaits(ctx, t, 1)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT num_calculations FROM settlement_run"))
		require.NoError(t, bundle.client.StopAndCancel(ctx))
		require.Equal(t, 0, bundle.count(ctx, t, "SELECT num_calculations FROM settlement_run"))
		require.NoError(t, tx.Rollback(ctx))
		bundle.work(ctx, t)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT num_calculations FROM settlement_run"))
	})

	t.Run("AProcessThatStopsBeforeACalculationSpendsNone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly+"    less_promotions: true\n")
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		require.NoError(t, dbsqlc.New().SettlementCreditsBegin(ctx, tx))
		require.NoError(t, bundle.client.Start(ctx))
		bundle.awaitLockWaits(ctx, t, 1)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT num_calculations FROM settlement_run"))
		require.NoError(t, bundle.client.StopAndCancel(ctx))
		require.Equal(t, 0, bundle.count(ctx, t, "SELECT num_calculations FROM settlement_run"))
		require.NoError(t, tx.Rollback(ctx))
		bundle.work(ctx, t)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
	})

	t.Run("AProgrammeThatFailsHoldsBackNoOther", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "code: weekly", "code: a-broken", 1))
		bundle.programme(ctx, t, weekly)
		// A period that is stored otherwise than its time zone says.
		_, err := bundle.db.Pool.Exec(ctx, `
			INSERT INTO settlement_period (due_at, ends_at, key, programme_id, starts_at)
			SELECT '2026-11-09T00:00Z', '2026-11-09T00:00Z', '2026-W45', id, '2026-11-02T00:00Z' FROM programme WHERE code = 'a-broken'`)
		require.NoError(t, err)
		bundle.work(ctx, t)
		job := bundle.tick(ctx, t)
		require.Equal(t, rivertype.JobStateDiscarded, job.State)
		require.Contains(t, job.Errors[0].Error, "plan runs of programme a-broken: period 2026-W45 is stored as")
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE programme = 'a-broken'"))
		require.GreaterOrEqual(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE programme = 'weekly'"), 3)
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT consecutive_failures FROM worker_freshness WHERE loop = 'settlement_tick'"))
	})

	t.Run("AWeekWithAChangeOfClocksHasItsHours", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.NewReplacer(
			"time_zone: Asia/Seoul", "time_zone: Europe/Berlin", "effective_from: 2026-11-02", "effective_from: 2026-10-19",
		).Replace(weekly))
		bundle.work(ctx, t)
		bundle.tick(ctx, t)
		require.Equal(t, "169 168 168", scalar[string](ctx, t, bundle.db, `
			SELECT string_agg((extract(epoch FROM ends_at - starts_at)::int / 3600)::text, ' ' ORDER BY starts_at)
			FROM settlement_period WHERE key <= '2026-W45'`))
		require.Zero(t, bundle.count(ctx, t, `
			SELECT count(*) FROM settlement_period AS a JOIN settlement_period AS b ON b.key > a.key
			WHERE NOT EXISTS (SELECT FROM settlement_period AS c WHERE c.starts_at = a.ends_at)`))
	})
}
