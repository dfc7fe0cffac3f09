package freshness_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

// TestEvaluate_Sentences reads what is said of a loop, given the rows of the database:
// that it is the case, and that no number in it is a default.
func TestEvaluate_Sentences(t *testing.T) {
	t.Parallel()

	minutes := func(n int) time.Duration { return time.Duration(n) * time.Minute }
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, test := range []struct {
		name, loop string
		arrange    func(rows rows)
		says       string // without the loop's name; ages are whole seconds up to a slow machine
	}{
		{"ARunPaidNobody", scheduled, func(rows rows) {
			rows.run(0, none)
			rows.failed(scheduled, "w1", 10, time.Second)
		}, "1 run paid nobody or ended aborted, without an acknowledgement: truegreen status"},
		{"RunsPaidNobodyThoughOthersDid", scheduled, func(rows rows) {
			rows.run(0, none)
			rows.run(0, aborted)
			rows.succeeded(scheduled, "w1", 0)
		}, "2 runs paid nobody or ended aborted, without an acknowledgement: truegreen status"},
		{"ARunPaidAPart", scheduled, func(rows rows) { rows.run(0, partial) },
			"1 run left players unpaid, without an acknowledgement: truegreen status"},
		{"ARunIsLate", scheduled, func(rows rows) { rows.run(minutes(32), "") },
			"its oldest due run has waited 32m0s, late after 31m0s"},
		{"ARunIsStalled", scheduled, func(rows rows) { rows.run(minutes(62), "") },
			"its oldest due run has waited 1h2m0s, red after 1h1m0s"},
		{"ARunIsLateAndItsPassesFail", scheduled, func(rows rows) {
			rows.run(minutes(32), "")
			rows.failed(scheduled, "w1", 4, time.Second)
		}, "its oldest due run has waited 32m0s, and the last 4 passes failed: no broker"},
		{"OnlyEverFailed", loop, func(rows rows) {
			rows.baseline(loop, seconds(20))
			rows.failed(loop, "w1", 3, 0)
		}, "no success since it was created or resumed 20s ago, and the last 3 passes failed: no broker"},
		{"FailsAfterASuccess", loop, func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.failed(loop, "w1", 5, 0)
		}, "no success for 50s, and the last 5 passes failed: no broker"},
		{"NeverRan", loop, func(rows rows) { rows.baseline(loop, minutes(10)) },
			"no success since it was created or resumed 10m0s ago, red after 1m0s"},
		{"EventsFailedAndAreParked", loop, func(rows rows) {
			rows.succeeded(loop, "w1", 0)
			rows.event(event{age: minutes(60), key: "a", parkedAgo: minutes(50), stream: stream})
			rows.event(event{age: minutes(60), delay: seconds(30), failedAgo: seconds(1), key: "b", stream: stream})
			rows.published(stream, 0, 0)
		}, "1 event failed and will be retried, 1 event parked until an operator redrives or discards: truegreen outbox parked"},
		{"EventsAreParkedAlone", loop, func(rows rows) {
			rows.succeeded(loop, "w1", 0)
			rows.event(event{age: minutes(60), key: "a", parkedAgo: minutes(50), stream: stream})
			rows.event(event{age: minutes(60), key: "b", parkedAgo: minutes(50), stream: stream})
			rows.published(stream, 0, 0)
		}, "2 events parked until an operator redrives or discards: truegreen outbox parked"},
		{"AShardIsStuck", loop, func(rows rows) {
			rows.succeeded(loop, "w1", 0)
			rows.event(event{age: seconds(70), key: "a", shard: 1, stream: stream})
			rows.published(stream, 1, seconds(70))
		}, "shard 1 has had an event due for 1m10s, and none was acknowledged in that time"},
		{"AShardIsBehind", loop, func(rows rows) {
			rows.succeeded(loop, "w1", 0)
			rows.event(event{age: seconds(70), key: "a", shard: 1, stream: stream})
			rows.published(stream, 1, 0)
		}, "the oldest due event is 1m10s old, behind after 1m0s"},
		{"PausedInRiver", loop, func(rows rows) {
			rows.exec(`INSERT INTO river_queue (name, paused_at) VALUES ($1, now())`, loop)
		}, "its queue was paused in River, by whom is not recorded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx, rows := txBundle(ctx, t)
			rows.baseline(scheduled, 100*24*time.Hour)
			test.arrange(rows)
			status := statusOf(ctx, t, tx, test.loop)
			status.Age, status.OldestDueAge = status.Age.Truncate(10*time.Second), truncated(status.OldestDueAge)
			evidence := healthy(0)
			evidence.Loops, evidence.Queues = []freshness.LoopStatus{status}, []freshness.QueueEvidence{{MaxWorkers: 1, Name: status.Queue, Timeout: time.Minute}}
			judgement := play([]freshness.Evidence{evidence, evidence})[1]
			var said []string
			for _, reason := range append(judgement.Ready.Reasons, judgement.Info...) {
				said = append(said, strings.TrimPrefix(reason.Message, test.loop+": "))
			}
			require.Equal(t, []string{test.says}, said)
		})
	}
}

// truncated takes from an age what a slow machine may have added.
func truncated(age *time.Duration) *time.Duration {
	if age == nil {
		return nil
	}
	whole := age.Truncate(10 * time.Second)
	return &whole
}
