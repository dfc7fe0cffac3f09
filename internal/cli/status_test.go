package cli_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_Status(t *testing.T) {
	t.Parallel()

	t.Run("PrintsATable", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.report = sampleReport()
		require.Equal(t, cli.ExitBad, bundle.run(t, "status"))
		require.Equal(t, `bad
  outbox_wallet has stopped: last success 1m13s ago, red after 1m

LOOP            VERDICT  LAST SUCCESS  RED AFTER  OLDEST DUE  FAILURES  LAST ERROR
outbox_wallet   failing  1m13s ago     1m         48s         5         drain shard 2 of wallet: 3 of 3 events not acknowledged: nats: no responders available for request
outbox_rolling  ok       850ms ago     1m         -           0         -
outbox_agent    paused   never         1m         3d4h        0         paused by cli:ana: broker is moved

STREAM   PENDING  DELAYED  BLOCKED  PARKED  PUBLISHED  OLDEST DUE  LAST ACKNOWLEDGED
wallet   3        1        2        4       123456     48s         1m13s ago
rolling  0        0        0        0       0          -           never

WORKER     READY  SEEN    QUEUES                        REASONS
host-1-aa  no     2s ago  outbox_wallet,outbox_rolling  loop_failing: outbox_wallet; own_failures
host-2-bb  yes    4s ago  outbox_wallet                 -
`, bundle.out.String())
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("SaysWhatIsMissing", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.report = cli.StatusReport{Level: cli.LevelDegraded}
		require.Equal(t, cli.ExitDegraded, bundle.run(t, "status"))
		require.Equal(t, "degraded\n\nno loop is registered: no worker ever started on this database\n\nno streams\n\nno worker was seen lately\n", bundle.out.String())
	})

	t.Run("KeepsControlCharactersFromTheTerminal", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.report = cli.StatusReport{
			Level:   cli.LevelGood,
			Loops:   []cli.LoopStatus{{LastError: "one\ntwo\t\x1b[2Jthree", Name: "x", Verdict: "ok"}},
			Reasons: []string{"\x1b[31mred"},
		}
		require.Equal(t, cli.ExitGood, bundle.run(t, "status"))
		require.Contains(t, bundle.out.String(), "one two [2Jthree\n")
		require.NotContains(t, bundle.out.String(), "\x1b")
	})

	t.Run("PrintsJSONWithAgesInMilliseconds", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		report := sampleReport()
		report.Level = cli.LevelGood
		report.Loops, report.Streams, report.Workers = report.Loops[:1], report.Streams[1:], report.Workers[1:]
		report.Reasons = nil
		bundle.actions.report = report
		require.Equal(t, cli.ExitGood, bundle.run(t, "status", "--json"))
		require.JSONEq(t, `{
			"accepted": [], "alarms": [{
				"age_ms": 11040000, "weight": "ticket", "alarm": "not_acknowledged", "detail": "partial: 7 of 758 credits failed",
				"do": "truegreen settlement show 1", "period": "2026-W47", "programme": "weekly-cashback",
				"run_id": 1, "runbook": "docs/runbooks/settlement-undelivered.md", "since": "2026-11-24T14:05:12Z"
			}],
			"level": "good",
			"loops": [{
				"consecutive_failures": 5, "gates_readiness": true,
				"last_error": "drain shard 2 of wallet: 3 of 3 events not acknowledged: nats: no responders available for request",
				"name": "outbox_wallet", "oldest_due_age_ms": 48000, "pause_reason": "", "paused_by": "",
				"red_after_ms": 60000, "success_age_ms": 73000, "verdict": "failing"
			}],
			"num_more_alarms": 0,
			"reasons": [],
			"streams": [{
				"blocked": 0, "delayed": 0, "last_published_age_ms": null, "name": "rolling",
				"oldest_due_age_ms": null, "parked": 0, "pending": 0, "published": 0
			}],
			"unread": [], "workers": [{
				"id": "host-2-bb", "queues": ["outbox_wallet"], "ready": true, "reasons": [], "seen_age_ms": 4000, "version": "v1"
			}]
		}`, bundle.out.String())
	})

	t.Run("PrintsEmptyListsAsSuch", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.report = cli.StatusReport{Level: cli.LevelGood, NumMoreAlarms: 3}
		require.Equal(t, cli.ExitGood, bundle.run(t, "status", "--json"))
		require.JSONEq(t, `{"accepted": [], "alarms": [], "level": "good", "loops": [], "num_more_alarms": 3, "reasons": [], "streams": [], "unread": [], "workers": []}`, bundle.out.String())
	})

	t.Run("TakesNoUnreadListForAnEmptyOne", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.report = cli.StatusReport{Level: cli.LevelBad, Unread: []string{"loops", "streams", "workers"}}
		require.Equal(t, cli.ExitBad, bundle.run(t, "status"))
		require.Equal(t, "bad\n\nloops: could not be read, see above\n\nstreams: could not be read, see above\n\nworkers: could not be read, see above\n", bundle.out.String())

		bundle = setup(t)
		bundle.actions.report = cli.StatusReport{Level: cli.LevelGood}
		require.Equal(t, cli.ExitGood, bundle.run(t, "status"))
		require.Equal(t, "good\n\nno loop is registered: no worker ever started on this database\n\nno streams\n\nno worker was seen lately\n", bundle.out.String())
	})

	t.Run("IsBadWhenItCannotBeFoundOut", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.err = errors.New("read freshness: connection refused")
		require.Equal(t, cli.ExitBad, bundle.run(t, "status"))
		require.Equal(t, "truegreen: read freshness: connection refused\n", bundle.errOut.String())
	})

	t.Run("IsBadWhenTheReportSaysNothing", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, cli.ExitBad, setup(t).run(t, "status"))
	})
}

func TestAlarmReasons(t *testing.T) {
	t.Parallel()

	alarm := sampleAlarm()
	require.Equal(t, []string{"ticket: run 1 of weekly-cashback 2026-W47: not_acknowledged for 3h4m (truegreen settlement show 1): partial: 7 of 758 credits failed"},
		cli.AlarmReasons([]cli.AlarmStatus{alarm}))

	page, period := alarm, alarm
	period.DoAll = ""
	page.Weight, page.RunID, page.Detail = "page", 9, "none_delivered: 5 of 5 credits failed"
	period.Alarm, period.RunID, period.Weight = "period_without_run", 0, "page"
	alarms := []cli.AlarmStatus{page, period, period}
	for i := range 11 {
		alarm.RunID = int64(i + 1)
		alarms = append(alarms, alarm)
	}
	require.Equal(t, []string{
		"page: run 9 of weekly-cashback 2026-W47: not_acknowledged for 3h4m (truegreen settlement show 1): none_delivered: 5 of 5 credits failed",
		"page: 2 × period_without_run, the oldest for 3h4m (truegreen settlement show 1; truegreen status --json has the others): period 2026-W47 of weekly-cashback, period 2026-W47 of weekly-cashback; the first: partial: 7 of 758 credits failed",
		"ticket: 11 × not_acknowledged, the oldest for 3h4m (truegreen settlement acknowledge --all --reason TEXT): " +
			"run 1 of weekly-cashback 2026-W47, run 2 of weekly-cashback 2026-W47, run 3 of weekly-cashback 2026-W47 and 8 more; the first: partial: 7 of 758 credits failed",
	}, cli.AlarmReasons(alarms))
}

func sampleAlarm() cli.AlarmStatus {
	return cli.AlarmStatus{
		Age:       3*time.Hour + 4*time.Minute,
		Alarm:     "not_acknowledged",
		Detail:    "partial: 7 of 758 credits failed",
		Do:        "truegreen settlement show 1",
		DoAll:     "truegreen settlement acknowledge --all --reason TEXT",
		Period:    "2026-W47",
		Programme: "weekly-cashback",
		Runbook:   "docs/runbooks/settlement-undelivered.md",
		RunID:     1,
		Since:     time.Date(2026, 11, 24, 14, 5, 12, 0, time.UTC),
		Weight:    "ticket",
	}
}

func sampleReport() cli.StatusReport {
	return cli.StatusReport{
		Alarms: []cli.AlarmStatus{sampleAlarm()},
		Level:  cli.LevelBad,
		Loops: []cli.LoopStatus{
			{
				ConsecutiveFailures: 5,
				GatesReadiness:      true,
				LastError:           "drain shard 2 of wallet: 3 of 3 events not acknowledged: nats: no responders available for request",
				Name:                "outbox_wallet",
				OldestDueAge:        new(48 * time.Second),
				RedAfter:            time.Minute,
				SuccessAge:          new(73 * time.Second),
				Verdict:             "failing",
			},
			{Name: "outbox_rolling", RedAfter: time.Minute, SuccessAge: new(850 * time.Millisecond), Verdict: "ok"},
			{
				LastError:    "left over from before",
				Name:         "outbox_agent",
				OldestDueAge: new(76*time.Hour + 30*time.Minute),
				PauseReason:  "broker is moved",
				PausedBy:     "cli:ana",
				RedAfter:     time.Minute,
				Verdict:      "paused",
			},
		},
		Reasons: []string{"outbox_wallet has stopped: last success 1m13s ago, red after 1m"},
		Streams: []cli.StreamStatus{
			{
				Blocked: 2, Delayed: 1, LastPublishedAge: new(73 * time.Second), Name: "wallet",
				OldestDueAge: new(48 * time.Second), Parked: 4, Pending: 3, Published: 123456,
			},
			{Name: "rolling"},
		},
		Workers: []cli.WorkerStatus{
			{
				ID: "host-1-aa", Queues: []string{"outbox_wallet", "outbox_rolling"},
				Reasons: []string{"loop_failing: outbox_wallet", "own_failures"}, SeenAge: 2 * time.Second, Version: "v1",
			},
			{ID: "host-2-bb", Queues: []string{"outbox_wallet"}, Ready: true, SeenAge: 4 * time.Second, Version: "v1"},
		},
	}
}
