package settlement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/settlement"
)

func TestWatchdog_Look_Runs(t *testing.T) {
	t.Parallel()

	t.Run("ARunThatWaitsForNobodyAndDoesNotEnd", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		bundle.ableAgo(ctx, t, "30 minutes")
		bundle.requireCalm(ctx, t)

		bundle.ableAgo(ctx, t, "32 minutes")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmRunOverdue)
		require.Equal(t, runID, alarm.RunID)
		require.InDelta(t, 32*time.Minute, alarm.Age, float64(time.Minute))
		require.Equal(t, "settlement_cashback", alarm.Loop)
		require.Equal(t, fmt.Sprintf("truegreen settlement show %d", runID), alarm.Do())
		require.Regexp(t, `^is planned, attempt 0 of 3; job \d+ is available$`, alarm.Detail)
		require.False(t, alarm.Paused)

		bundle.exec(ctx, t, "UPDATE loop_contract SET late_after = '40 minutes' WHERE scheduled")
		bundle.requireCalm(ctx, t)
		bundle.exec(ctx, t, "UPDATE loop_contract SET late_after = '31 minutes' WHERE scheduled")
		bundle.exec(ctx, t, "INSERT INTO river_queue (name, paused_at, updated_at) VALUES ('settlement_cashback', now(), now())")
		alarm = bundle.requireAlarm(ctx, t, settlement.AlarmRunOverdue)
		require.True(t, alarm.Paused)
		require.Contains(t, alarm.Detail, "; loop settlement_cashback is paused in River")
		require.Equal(t, "truegreen loops resume settlement_cashback --reason TEXT", alarm.Do())

		bundle.exec(ctx, t, "UPDATE river_queue SET paused_at = NULL")
		bundle.work(ctx, t)
		bundle.await(ctx, t, runID, "done")
		bundle.requireCalm(ctx, t)
	})

	t.Run("ARunWhoseDeadlineIsOver", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		runID := bundle.waiting(ctx, t)
		bundle.ableAgo(ctx, t, "5 days")
		bundle.requireCalm(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_run SET inputs_deadline_at = clock_timestamp() - interval '90 seconds'")
		bundle.requireCalm(ctx, t)

		bundle.exec(ctx, t, "UPDATE settlement_run SET inputs_deadline_at = clock_timestamp() - interval '150 seconds'")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob)
		require.Equal(t, runID, alarm.RunID)
		require.InDelta(t, 150*time.Second, alarm.Age, float64(time.Minute), "since its deadline")

		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_run SET able_since = clock_timestamp() - interval '1 hour'")
		require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmRunOverdue).Detail, "is planned")
	})

	t.Run("AnApprovalThatDoesNotCome", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, byHand())
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		bundle.await(ctx, t, runID, "awaiting_approval")
		bundle.ableAgo(ctx, t, "5 days")
		age := func(created, calculated string) {
			bundle.exec(ctx, t, "UPDATE settlement_run SET created_at = clock_timestamp() - interval '"+created+"', calculated_at = clock_timestamp() - interval '"+calculated+"'")
		}
		for _, calm := range [][2]string{{"5 days", "23 hours 59 minutes"}, {"23 hours 59 minutes", "5 days"}} {
			age(calm[0], calm[1])
			bundle.requireCalm(ctx, t)
		}

		age("5 days", "25 hours")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmApprovalOverdue)
		require.Equal(t, "100 KRW for 1 players wait for the approval of somebody other than person", alarm.Detail)
		require.InDelta(t, 25*time.Hour, alarm.Age, float64(time.Minute))
		require.Contains(t, alarm.Do(), fmt.Sprintf("truegreen settlement approve %d", runID))
		_, err := bundle.service.Approve(ctx, settlement.Decision{By: "ana", RunID: runID})
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})

	t.Run("InputsThatDoNotCome", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		runID := bundle.waiting(ctx, t)
		// Due since long, and nobody asked for its inputs before now.
		bundle.requireCalm(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_run SET created_at = clock_timestamp() - interval '59 minutes'")
		bundle.requireCalm(ctx, t)

		bundle.exec(ctx, t, "UPDATE settlement_run SET created_at = clock_timestamp() - interval '61 minutes'")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmInputsOverdue)
		require.Equal(t, runID, alarm.RunID)
		require.Contains(t, alarm.Detail, "waits for watermarks to reach 2026-11-08T15:00:00Z: bets never set; it is aborted at 20")
		require.Equal(t, "truegreen settlement preview weekly 2026-W45", alarm.Do())
		bundle.watermark(ctx, t, weekEnd().Add(-time.Hour))
		require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmInputsOverdue).Detail, "bets 2026-11-08T14:00:00Z")

		bundle.exec(ctx, t, "UPDATE settlement_period SET due_at = clock_timestamp() - interval '59 minutes'")
		bundle.requireCalm(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_period SET due_at = clock_timestamp() - interval '61 minutes'")
		bundle.requireAlarm(ctx, t, settlement.AlarmInputsOverdue)
		bundle.watermark(ctx, t, weekEnd())
		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})

	t.Run("InputsThatCameAndNoTickDid", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.waiting(ctx, t)
		bundle.ableAgo(ctx, t, "1 hour")
		bundle.watermark(ctx, t, weekEnd())
		for _, tick := range []struct {
			ago    string
			alarms bool
		}{{"75 seconds", false}, {"3 minutes", true}} {
			bundle.exec(ctx, t, `
				INSERT INTO loop_progress (loop, worker_id, last_success_at) VALUES ('settlement_tick', 'test', now() - interval '`+tick.ago+`')
				ON CONFLICT (loop, worker_id) DO UPDATE SET last_success_at = excluded.last_success_at`)
			if !tick.alarms {
				bundle.requireCalm(ctx, t)
				continue
			}
			alarm := bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob)
			require.Regexp(t, `^is waiting_inputs, could go on, and has no job: job \d+ is completed$`, alarm.Detail)
		}
		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})
}

func TestWatchdog_Look_Jobs(t *testing.T) {
	t.Parallel()

	t.Run("ARunWhoseJobIsGone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		runID := bundle.plan(ctx, t)
		bundle.exec(ctx, t, "DELETE FROM river_job")
		bundle.requireCalm(ctx, t)
		bundle.ableAgo(ctx, t, "75 seconds")
		bundle.requireCalm(ctx, t)
		// Whatever is known of it last: it had its job then.
		bundle.ableAgo(ctx, t, "3 minutes")
		bundle.falsify(ctx, t, "UPDATE settlement_run SET able_since = now()")
		bundle.requireCalm(ctx, t)
		bundle.ableAgo(ctx, t, "3 minutes")
		bundle.falsify(ctx, t, "UPDATE settlement_event SET at = now()")
		bundle.requireCalm(ctx, t)

		bundle.ableAgo(ctx, t, "3 minutes")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob)
		require.Equal(t, runID, alarm.RunID)
		require.Regexp(t, `^is planned, could go on, and has no job: job \d+ is gone$`, alarm.Detail)
		require.Equal(t, fmt.Sprintf("truegreen settlement show %d", runID), alarm.Do())
		bundle.ableAgo(ctx, t, "3 hours")
		bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob) // and not that it is overdue, too
		bundle.exec(ctx, t, "UPDATE settlement_run SET job_id = NULL")
		require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob).Detail, "it never had one")
		bundle.exec(ctx, t, `
			UPDATE loop_contract SET paused_at = now(), paused_by = 'ana', pause_reason = 'stocktaking' WHERE loop = 'settlement_tick'`)
		alarm = bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob)
		require.Equal(t, "truegreen loops resume settlement_tick --reason TEXT", alarm.Do())

		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		bundle.requireAlarm(ctx, t, settlement.AlarmRunOverdue)
		bundle.ableAgo(ctx, t, "3 minutes")
		bundle.requireCalm(ctx, t)
	})

	t.Run("ARunWhoseJobHasEnded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.plan(ctx, t)
		bundle.ableAgo(ctx, t, "20 minutes")
		for _, state := range []string{"available", "pending", "retryable", "scheduled"} {
			bundle.exec(ctx, t, "UPDATE river_job SET state = '"+state+"'")
			bundle.requireCalm(ctx, t)
		}
		bundle.exec(ctx, t, "UPDATE river_job SET state = 'running', attempted_at = now() - interval '10 minutes'")
		bundle.requireCalm(ctx, t)
		for _, state := range []string{"cancelled", "completed", "discarded"} {
			bundle.exec(ctx, t, "UPDATE river_job SET state = '"+state+"', attempted_at = now() - interval '10 minutes', finalized_at = now() - interval '1 minute'")
			bundle.requireCalm(ctx, t)
			bundle.exec(ctx, t, "UPDATE river_job SET attempted_at = now() - interval '1 minute', finalized_at = now() - interval '10 minutes'")
			bundle.requireCalm(ctx, t) // the worker's clock is behind
			bundle.exec(ctx, t, "UPDATE river_job SET attempted_at = now() - interval '5 minutes', finalized_at = now() - interval '3 minutes'")
			require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmRunWithoutJob).Detail, " is "+state)
		}
	})

	t.Run("WhatWasNotDeliveredUntilSomebodyKnows", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		runID := bundle.undelivered(ctx, t)
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmNotAcknowledged)
		require.Equal(t, runID, alarm.RunID)
		require.Equal(t, "none_delivered: 1 of 1 credits failed", alarm.Detail)
		require.Equal(t, "docs/runbooks/settlement-undelivered.md", alarm.Kind.Runbook())
		_, err := bundle.service.Acknowledge(ctx, settlement.Decision{By: "ana", Reason: "known", RunID: runID})
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})

	t.Run("WhatWasAbortedUntilSomebodyKnows", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		runID := bundle.waiting(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_run SET inputs_deadline_at = now() - interval '1 second'")
		_, err := bundle.runner.Tick(ctx, noCompletion)
		require.NoError(t, err)
		bundle.work(ctx, t)
		bundle.await(ctx, t, runID, "aborted")
		require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmNotAcknowledged).Detail, "aborted, inputs_deadline: watermarks (bets never set)")

		// What a person ended, a person knows of.
		_, err = bundle.service.Acknowledge(ctx, settlement.Decision{By: "ana", Reason: "known", RunID: runID})
		require.NoError(t, err)
		_, err = bundle.service.Cancel(ctx, settlement.Decision{By: "ana", Reason: "not wanted", RunID: bundle.plan(ctx, t)})
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)
	})

	t.Run("AJobThatContradictsItsRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		runID := bundle.undelivered(ctx, t)
		_, err := bundle.service.Acknowledge(ctx, settlement.Decision{By: "ana", Reason: "known", RunID: runID})
		require.NoError(t, err)
		bundle.requireCalm(ctx, t)

		bundle.exec(ctx, t, "UPDATE river_job SET state = 'completed' WHERE kind = 'settlement_cashback'")
		alarm := bundle.requireAlarm(ctx, t, settlement.AlarmJobContradicts)
		require.Equal(t, runID, alarm.RunID)
		require.Contains(t, alarm.Detail, "is completed, but it is none_delivered")
		require.Equal(t, "truegreen audit", alarm.Do())
		bundle.exec(ctx, t, "UPDATE river_job SET state = 'discarded' WHERE kind = 'settlement_cashback'")
		bundle.requireCalm(ctx, t)

		// The recorded end alone, of a job that River has long removed.
		bundle.exec(ctx, t, "DELETE FROM river_job")
		bundle.exec(ctx, t, "ALTER TABLE settlement_run DROP CONSTRAINT job_end_agrees_with_outcome")
		bundle.falsify(ctx, t, "UPDATE settlement_run SET job_end = 'completed'")
		require.Contains(t, bundle.requireAlarm(ctx, t, settlement.AlarmJobContradicts).Detail, "ended as completed, but it is none_delivered")
		bundle.falsify(ctx, t, "UPDATE settlement_run SET job_end = 'failed'")
		bundle.requireCalm(ctx, t)
	})
}
