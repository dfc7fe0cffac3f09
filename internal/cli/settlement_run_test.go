package cli_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_SettlementRunExitCodes(t *testing.T) {
	t.Parallel()

	require.Equal(t, []int{0, 2, 3, 4, 5}, []int{cli.ExitGood, cli.ExitNoneDelivered, cli.ExitPartial, cli.ExitAborted, cli.ExitWaiting})
	for _, tc := range []struct {
		state, outcome  string
		code, codeAlone int // with and without --wait
		errOut          string
	}{
		{state: "done", outcome: "all_delivered"},
		{state: "done", outcome: "no_eligible"},
		{state: "done", outcome: "all_withheld"},
		{state: "done", outcome: "none_delivered", code: 2, codeAlone: 2},
		{state: "done", outcome: "partial", code: 3, codeAlone: 3},
		{state: "aborted", code: 4, codeAlone: 4},
		{state: "waiting_inputs", code: 5},
		{state: "awaiting_approval", code: 5},
		{state: "planned", code: 1, errOut: "stopped waiting: run 12 is not over; it goes on all the same, now planned"},
		{state: "calculating", code: 1, errOut: "stopped waiting: run 12 is not over; it goes on all the same, now calculating"},
		{state: "calculated", code: 1, errOut: "stopped waiting: run 12 is not over; it goes on all the same, now calculated"},
		{state: "approved", code: 1, errOut: "stopped waiting: run 12 is not over; it goes on all the same, now approved"},
		{state: "delivering", code: 1, errOut: "stopped waiting: run 12 is not over; it goes on all the same, now delivering"},
		{state: "done", code: 1, codeAlone: 1, errOut: `run 12 has an outcome that this version does not know: ""`},
		{state: "done", outcome: "fine", code: 1, codeAlone: 1, errOut: `run 12 has an outcome that this version does not know: "fine"`},
		{state: "lost", code: 1, codeAlone: 1, errOut: `run 12 is in a state that this version does not know: "lost"`},
		{code: 1, codeAlone: 1, errOut: `run 12 is in a state that this version does not know: ""`},
	} {
		t.Run(tc.state+"_"+tc.outcome, func(t *testing.T) {
			t.Parallel()

			for _, flags := range [][]string{nil, {"--json"}, {"--wait"}, {"--wait", "--json"}} {
				bundle := setup(t)
				bundle.actions.run = sampleRunIn(tc.state, tc.outcome)
				waits := len(flags) > 0 && flags[0] == "--wait"
				code := tc.codeAlone
				if waits {
					code = tc.code
				}
				require.Equal(t, code, bundle.run(t, append([]string{"settlement", "run", "weekly-cashback", "2026-W45"}, flags...)...), flags)
				require.Equal(t, []string{fmt.Sprintf("run weekly-cashback 2026-W45 as cli:ana, wait %t 0s", waits)}, bundle.actions.calls)
				require.Contains(t, bundle.out.String(), "12", "it is printed, whatever the code")
				if code == cli.ExitFailed {
					require.Equal(t, "truegreen: "+tc.errOut+"\n", bundle.errOut.String())
				} else {
					require.Empty(t, bundle.errOut.String())
				}
			}
		})
	}
}

func TestExecute_SettlementAdjust(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	bundle.actions.run = sampleRunIn("planned", "")
	bundle.actions.run.RunKind = "adjustment"
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "adjust", "weekly-cashback", "2026-W45", "--reason=late feed", "--as=bo"), bundle.errOut.String())
	require.Equal(t, []string{`adjust weekly-cashback 2026-W45 as bo because "late feed", wait false 0s`}, bundle.actions.calls)
	require.Equal(t, "run 12 (adjustment) of weekly-cashback 2026-W45: planned\n  next: truegreen settlement show 12\n", bundle.out.String())

	bundle = setup(t)
	bundle.actions.run = sampleRun()
	require.Equal(t, cli.ExitPartial, bundle.run(t, "settlement", "adjust", "weekly-cashback", "2026-W45", "--wait", "--timeout=10m"))
	require.Equal(t, []string{`adjust weekly-cashback 2026-W45 as cli:ana because "", wait true 10m0s`}, bundle.actions.calls)
}

func TestExecute_SettlementRun(t *testing.T) {
	t.Parallel()

	args := []string{"settlement", "run", "weekly-cashback", "2026-W45"}

	t.Run("PrintsTheVerdictAndWhatIsNext", func(t *testing.T) {
		t.Parallel()

		for name, tc := range map[string]struct {
			change func(run *cli.SettlementRun)
			out    string
		}{
			"Partial": {
				change: func(*cli.SettlementRun) {},
				out: "run 12 of weekly-cashback 2026-W45: done/partial; " +
					"1203 evaluated, 1003 eligible, 990 credited, 10 failed, 3 withheld, 200 excluded; " +
					"eligible 1250000 KRW, credited 1234500 KRW, failed 15500 KRW (minor units)\n" +
					"  next: truegreen settlement retry 12\n" +
					"  next: truegreen settlement acknowledge 12 --reason TEXT\n" +
					"  next: truegreen settlement show 12\n",
			},
			"PartialAcknowledged": {
				change: func(run *cli.SettlementRun) {
					run.AcknowledgedAt, run.ParentRunID, run.RunKind = run.FinishedAt, 7, "retry"
				},
				out: "run 12 (retry of run 7) of weekly-cashback 2026-W45: done/partial; " +
					"1203 evaluated, 1003 eligible, 990 credited, 10 failed, 3 withheld, 200 excluded; " +
					"eligible 1250000 KRW, credited 1234500 KRW, failed 15500 KRW (minor units)\n" +
					"  next: truegreen settlement show 12\n",
			},
			"NoneDelivered": {
				change: func(run *cli.SettlementRun) { *run = sampleRunIn("done", "none_delivered"); run.Eligible = 1 },
				out: "run 12 of weekly-cashback 2026-W45: done/none_delivered; " +
					"0 evaluated, 1 eligible, 0 credited, 0 failed, 0 withheld, 0 excluded; " +
					"eligible 0 KRW, credited 0 KRW, failed 0 KRW (minor units)\n" +
					"  next: truegreen settlement retry 12\n" +
					"  next: truegreen settlement acknowledge 12 --reason TEXT\n" +
					"  next: truegreen settlement show 12\n",
			},
			"AbortedWhileItPaid": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("aborted", "")
					run.AbortReason, run.StartedAt = "cancelled", new(time.Date(2026, 11, 9, 2, 0, 0, 0, time.UTC))
				},
				out: "run 12 of weekly-cashback 2026-W45: aborted/cancelled\n" +
					"  next: truegreen settlement retry 12\n" +
					"  next: truegreen settlement show 12\n",
			},
			"AwaitingApproval": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("awaiting_approval", "")
					run.Eligible, run.EligibleAmount, run.Evaluated, run.Pending = 2, 9007199254740993, 2, 2
					run.WaitsFor = "approval by somebody other than ana"
				},
				out: "run 12 of weekly-cashback 2026-W45: awaiting_approval; " +
					"2 evaluated, 2 eligible, 0 credited, 0 failed, 0 withheld, 0 excluded, 2 pending; " +
					"eligible 9007199254740993 KRW, credited 0 KRW, failed 0 KRW (minor units); " +
					"waits for approval by somebody other than ana\n" +
					"  next, by somebody else: truegreen settlement approve 12\n" +
					"  next: truegreen settlement show 12\n",
			},
			"WaitingInputs": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("waiting_inputs", "")
					run.Deadline = new(time.Date(2026, 11, 10, 2, 0, 0, 0, time.UTC))
					run.WaitsFor = "the watermark of bets to reach 2026-11-09T00:00:00Z"
				},
				out: "run 12 of weekly-cashback 2026-W45: waiting_inputs; " +
					"waits for the watermark of bets to reach 2026-11-09T00:00:00Z, until 2026-11-10T02:00:00Z at most\n" +
					"  next: truegreen settlement show 12\n",
			},
			"Aborted": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("aborted", "")
					run.AbortReason, run.AbortDetail = "budget", "12 KRW\x1b[2J too much"
				},
				out: "run 12 of weekly-cashback 2026-W45: aborted/budget (12 KRW [2J too much)\n  next: truegreen settlement show 12\n",
			},
			"AbortedWhileDelivering": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("aborted", "")
					run.AbortReason, run.Evaluated, run.Eligible, run.Credited = "cancelled", 2, 2, 1
				},
				out: "run 12 of weekly-cashback 2026-W45: aborted/cancelled; " +
					"2 evaluated, 2 eligible, 1 credited, 0 failed, 0 withheld, 0 excluded; " +
					"eligible 0 KRW, credited 0 KRW, failed 0 KRW (minor units)\n" +
					"  next: truegreen settlement show 12\n",
			},
			"Delivering": {
				change: func(run *cli.SettlementRun) {
					*run = sampleRunIn("delivering", "")
					run.Attempt, run.MaxAttempts = 2, 6
				},
				out: "run 12 of weekly-cashback 2026-W45: delivering; " +
					"0 evaluated, 0 eligible, 0 credited, 0 failed, 0 withheld, 0 excluded; " +
					"eligible 0 KRW, credited 0 KRW, failed 0 KRW (minor units); attempt 2 of 6\n" +
					"  next: truegreen settlement show 12\n",
			},
			"Planned": {
				change: func(run *cli.SettlementRun) { *run = sampleRunIn("planned", "") },
				out:    "run 12 of weekly-cashback 2026-W45: planned\n  next: truegreen settlement show 12\n",
			},
		} {
			bundle := setup(t)
			bundle.actions.run = sampleRun()
			tc.change(&bundle.actions.run)
			bundle.run(t, args...)
			require.Equal(t, tc.out, bundle.out.String(), name)
			require.Empty(t, bundle.errOut.String(), name)
			require.Equal(t, []string{"database"}, bundle.groups)
		}
	})

	t.Run("PrintsJSONWithAmountsAsText", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.run = sampleRun()
		require.Equal(t, cli.ExitPartial, bundle.run(t, append(args, "--json")...))
		require.JSONEq(t, "{"+sampleRunJSON+"}", bundle.out.String())
	})

	t.Run("ShowsProgressWhileItWaits", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		waiting := sampleRunIn("waiting_inputs", "")
		waiting.WaitsFor = "the watermark of bets"
		bundle.actions.progress = []cli.SettlementRun{waiting, sampleRunIn("calculating", "")}
		bundle.actions.run = sampleRunIn("done", "all_delivered")
		require.Equal(t, cli.ExitGood, bundle.run(t, append(args, "--wait", "--as=bo", "--timeout=90s")...))
		require.Equal(t, "run 12: waiting_inputs; waits for the watermark of bets\nrun 12: calculating\n", bundle.errOut.String())
		require.Equal(t, []string{"run weekly-cashback 2026-W45 as bo, wait true 1m30s"}, bundle.actions.calls)
	})

	t.Run("SaysAfterATimeoutThatTheRunGoesOn", func(t *testing.T) {
		t.Parallel()

		for _, err := range []error{nil, fmt.Errorf("wait for run 12: %w", context.DeadlineExceeded), fmt.Errorf("wait: %w", context.Canceled)} {
			bundle := setup(t)
			bundle.actions.err = err
			bundle.actions.run = sampleRunIn("calculating", "")
			require.Equal(t, cli.ExitFailed, bundle.run(t, append(args, "--wait", "--timeout=30s")...))
			require.Equal(t, "run 12 of weekly-cashback 2026-W45: calculating\n  next: truegreen settlement show 12\n", bundle.out.String())
			require.Equal(t, "truegreen: stopped waiting (--timeout=30s): run 12 is not over; it goes on all the same, now calculating\n", bundle.errOut.String())
		}
	})

	t.Run("LosesNoErrorThatIsNotAboutWaiting", func(t *testing.T) {
		t.Parallel()

		for _, tc := range []struct {
			err error
			run cli.SettlementRun
		}{
			{errors.New("reach database: gone"), sampleRunIn("done", "all_delivered")},
			{fmt.Errorf("reach database: %w", context.DeadlineExceeded), cli.SettlementRun{}},
		} {
			bundle := setup(t)
			bundle.actions.err, bundle.actions.run = tc.err, tc.run
			require.Equal(t, cli.ExitFailed, bundle.run(t, append(args, "--wait")...))
			require.Equal(t, "truegreen: "+tc.err.Error()+"\n", bundle.errOut.String())
			require.Empty(t, bundle.out.String())
		}
	})
}

// sampleRunJSON is what --json makes of sampleRun, without the braces.
const sampleRunJSON = `
	"abort_detail": "", "abort_reason": "", "acknowledged_at": null, "approved_by": "bo", "attempt": 2, "created_by": "cli:ana",
	"credited": 990, "credited_amount": "1234500", "currency": "KRW", "deadline": null, "eligible": 1003, "eligible_amount": "1250000",
	"evaluated": 1203, "excluded": 200, "failed": 10, "failed_amount": "15500", "finished_at": "2026-11-09T02:10:05.0000006Z",
	"kind": "cashback", "max_attempts": 6, "outcome": "partial", "parent_run_id": 0, "pending": 0, "period": "2026-W45", "programme": "weekly-cashback",
	"run_id": 12, "run_kind": "regular", "started_at": "2026-11-09T11:00:00+09:00", "state": "done", "version": 3, "waits_for": "",
	"withheld": 3`
