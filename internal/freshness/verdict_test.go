package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

const (
	loop   = "outbox_wallet" // late after 45 s, red after 60 s, its items after 60 s
	stream = "wallet"
)

// TestReadLoops_Verdict reaches every verdict by its rows. Each case that ends in
// a verdict has a neighbour on the other side of its rule.
func TestReadLoops_Verdict(t *testing.T) {
	t.Parallel()

	const neutral = `{"output": {"neutral": true}}`
	minutes := func(n int) time.Duration { return time.Duration(n) * time.Minute }
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	cases := []struct {
		name    string
		arrange func(rows rows)
		verdict freshness.Verdict
	}{
		{"NeverSucceededAndYoung", func(rows rows) { rows.baseline(loop, seconds(50)) }, freshness.VerdictStarting},
		{"NeverSucceededAndOld", func(rows rows) { rows.baseline(loop, seconds(61)) }, freshness.VerdictStalled},
		{"OnlyEverFailedAndYoung", func(rows rows) {
			rows.baseline(loop, seconds(5))
			rows.failed(loop, "w1", 2, seconds(1))
			rows.failed(loop, "w2", 1, seconds(2))
		}, freshness.VerdictFailing},
		{"OnlyEverFailedButTwice", func(rows rows) {
			rows.baseline(loop, seconds(5))
			rows.failed(loop, "w1", 2, seconds(1))
		}, freshness.VerdictStarting},
		{"OnlyEverFailedBeforeItWasResumed", func(rows rows) {
			rows.baseline(loop, seconds(5))
			rows.failed(loop, "w1", 9, seconds(6))
		}, freshness.VerdictStarting},
		{"PausedByUs", func(rows rows) {
			rows.exec(`UPDATE loop_contract SET paused_at = now(), paused_by = 'kim', pause_reason = 'move' WHERE loop = $1`, loop)
		}, freshness.VerdictPaused},
		{"PausedInRiver", func(rows rows) {
			rows.exec(`INSERT INTO river_queue (name, paused_at) VALUES ($1, now())`, loop)
		}, freshness.VerdictPaused},
		{"QueueKnownAndNotPaused", func(rows rows) {
			rows.exec(`INSERT INTO river_queue (name) VALUES ($1)`, loop)
		}, freshness.VerdictStalled},

		{"CompletionsMoveOnAndTheProofDoesNot", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.job(loop, "completed", seconds(4), 0, `{}`)
		}, freshness.VerdictSilentNoop},
		{"CompletionsMoveOnAndThereNeverWasAProof", func(rows rows) {
			rows.job(loop, "completed", seconds(4), 0, `{}`)
		}, freshness.VerdictSilentNoop},
		{"CompletionsMoveOnForLessThanLate", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.job(loop, "completed", seconds(6), 0, `{}`)
		}, freshness.VerdictLate},
		{"NeutralCompletionsAreNoWork", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.job(loop, "completed", seconds(4), 0, neutral)
		}, freshness.VerdictLate},
		{"AWorkersClockIsNoEvidence", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(70))
			rows.job(loop, "completed", seconds(71), minutes(10), `{}`)
		}, freshness.VerdictStalled},

		{"OldAndFailing", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(61))
			rows.failed(loop, "w1", 3, seconds(1))
		}, freshness.VerdictFailing},
		{"OldAndFailedLessOften", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(61))
			rows.failed(loop, "w1", 2, seconds(1))
		}, freshness.VerdictStalled},
		{"LateAndFailing", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(46))
			rows.failed(loop, "w1", 3, seconds(1))
		}, freshness.VerdictFailing},
		{"LateAndFailedLessOften", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(46))
			rows.failed(loop, "w1", 2, seconds(1))
		}, freshness.VerdictLate},
		{"FailingAndNotLate", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(40))
			rows.failed(loop, "w1", 9, seconds(1))
		}, freshness.VerdictIdle},
		{"FailuresOfTheWholeFleet", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(46))
			rows.failed(loop, "w1", 1, seconds(1))
			rows.failed(loop, "w2", 2, seconds(2))
		}, freshness.VerdictFailing},
		{"FailuresBeforeAnothersSuccess", func(rows rows) {
			rows.failed(loop, "w1", 9, seconds(50))
			rows.succeeded(loop, "w2", seconds(46))
		}, freshness.VerdictLate},

		{"AShardStands", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(1))
			rows.event(event{age: seconds(61), key: "a", shard: 1, stream: stream})
			rows.published(stream, 1, seconds(61))
			rows.published(stream, 0, seconds(1))
		}, freshness.VerdictStalled},
		{"AShardIsBehindAndMoves", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(1))
			rows.event(event{age: seconds(61), key: "a", shard: 1, stream: stream})
			rows.published(stream, 1, seconds(59))
		}, freshness.VerdictBehind},
		{"AShardHasSomethingDue", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(1))
			rows.event(event{age: seconds(59), key: "a", shard: 1, stream: stream})
		}, freshness.VerdictOK},
		{"AShardThatWasResumedALittleAgo", func(rows rows) {
			rows.baseline(loop, seconds(20))
			rows.succeeded(loop, "w1", seconds(1))
			rows.event(event{age: minutes(30), key: "a", shard: 1, stream: stream})
		}, freshness.VerdictBehind},
		{"ABackoffOfTheShardIsNoExcuse", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(1))
			rows.event(event{age: seconds(61), key: "a", shard: 1, stream: stream})
			rows.exec(`UPDATE outbox_shard SET backoff_until = clock_timestamp() + interval '5 s' WHERE stream = $1`, stream)
		}, freshness.VerdictStalled},

		{"LateWhileAPassRuns", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.job(loop, "running", seconds(9), 0, `{}`)
		}, freshness.VerdictBusy},
		{"LateWhileAPassRunsBeyondItsBudget", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.job(loop, "running", seconds(11), 0, `{}`)
		}, freshness.VerdictLate},
		{"OldWhileAPassRuns", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(61))
			rows.job(loop, "running", seconds(1), 0, `{}`)
		}, freshness.VerdictStalled},

		{"SomethingIsParked", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.event(event{age: minutes(60), key: "a", parkedAgo: minutes(50), stream: stream})
		}, freshness.VerdictDegraded},
		{"SomethingFailedAndWaits", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(50))
			rows.event(event{age: minutes(60), delay: seconds(3), failedAgo: seconds(1), key: "a", stream: stream})
		}, freshness.VerdictDegraded},
		{"NoSuccessForLate", func(rows rows) { rows.succeeded(loop, "w1", seconds(46)) }, freshness.VerdictLate},
		{"FoundNothing", func(rows rows) { rows.succeeded(loop, "w1", seconds(44)) }, freshness.VerdictIdle},
		{"MovedSomething", func(rows rows) {
			rows.succeeded(loop, "w1", seconds(44))
			rows.exec(`UPDATE loop_progress SET last_items_at = last_success_at`)
		}, freshness.VerdictOK},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx, rows := txBundle(ctx, t)
			test.arrange(rows)
			require.Equal(t, test.verdict, statusOf(ctx, t, tx, loop).Verdict)
		})
	}
}

func TestReadLoops_Columns(t *testing.T) {
	t.Parallel()

	t.Run("NothingEverHappened", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		status := statusOf(ctx, t, tx, loop)
		require.Equal(t, "outbox_wallet", status.Kind)
		require.Equal(t, "outbox_wallet", status.Queue)
		require.Equal(t, 10*time.Second, status.Budget)
		require.Equal(t, 45*time.Second, status.LateAfter)
		require.Equal(t, 60*time.Second, status.RedAfter)
		require.Equal(t, 60*time.Second, *status.ItemRedAfter)
		require.True(t, status.Required)
		require.False(t, status.Paused)
		require.Nil(t, status.LastSuccessAt)
		require.Nil(t, status.SuccessAge)
		require.Nil(t, status.LastCompletedJobAt)
		require.Nil(t, status.LastError)
		require.Nil(t, status.OldestDueAge)
		require.Nil(t, status.StuckPart)
	})

	t.Run("ShowsWhatStands", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, rows := txBundle(ctx, t)
		rows.failed(loop, "w1", 4, time.Second)
		rows.job(loop, "completed", 2*time.Hour, 0, `{}`)
		rows.event(event{age: 90 * time.Second, key: "a", shard: 2, stream: stream})
		rows.event(event{age: time.Second, key: "b", shard: 3, stream: stream})

		status := statusOf(ctx, t, tx, loop)
		require.Equal(t, 4, status.ConsecutiveFailures)
		require.Equal(t, "no broker", *status.LastError)
		require.Equal(t, "2", *status.StuckPart)
		require.GreaterOrEqual(t, *status.OldestDueAge, 90*time.Second)
		require.NotNil(t, status.LastCompletedJobAt)
		require.Equal(t, freshness.VerdictFailing, status.Verdict)
	})

	t.Run("NamesWhoPaused", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, rows := txBundle(ctx, t)
		rows.exec(`INSERT INTO river_queue (name, paused_at) VALUES ($1, now())`, loop)
		require.Equal(t, "unknown", *statusOf(ctx, t, tx, loop).PausedBy)

		rows.exec(`UPDATE loop_contract SET paused_at = now(), paused_by = 'kim', pause_reason = 'move' WHERE loop = $1`, loop)
		status := statusOf(ctx, t, tx, loop)
		require.Equal(t, "kim", *status.PausedBy)
		require.Equal(t, "move", *status.PauseReason)
	})

	t.Run("NoAgeIsNegative", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, rows := txBundle(ctx, t)
		rows.succeeded(loop, "w1", -10*time.Minute)
		rows.event(event{age: -10 * time.Minute, key: "a", stream: stream})
		status := statusOf(ctx, t, tx, loop)
		require.Zero(t, status.Age)
		require.Zero(t, *status.SuccessAge)
		require.Zero(t, *status.OldestDueAge)
	})
}
