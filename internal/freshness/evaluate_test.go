package freshness_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

const tick = 5 * time.Second

var successAt = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// healthy is the evidence of a process that works one queue, whose loop succeeded
// n ticks after the test's beginning.
func healthy(n int) freshness.Evidence {
	success := successAt.Add(time.Duration(n) * tick)
	itemRedAfter := time.Minute
	return freshness.Evidence{
		DB:          freshness.DBEvidence{Schema: freshness.SchemaEvidence{Has: 17, Known: true, Needs: 17}},
		HasSnapshot: true,
		Loops: []freshness.LoopStatus{
			{
				ItemRedAfter: &itemRedAfter, LastSuccessAt: &success, LateAfter: 45 * time.Second, Loop: loop,
				Queue: loop, RedAfter: time.Minute, Required: true, Verdict: freshness.VerdictOK,
			},
			{Loop: "rolling", Queue: "rolling", Required: true, Verdict: freshness.VerdictStalled},
		},
		Queues:       []freshness.QueueEvidence{{FetchAge: time.Second, MaxWorkers: 2, Name: loop, Timeout: 10 * time.Second}},
		RiverStarted: true,
	}
}

// play judges the ticks in their order, 5 s apart, and returns every judgement.
func play(ticks []freshness.Evidence) []freshness.Judgement {
	limits := freshness.LimitsOf(tick, time.Second)
	var state freshness.State
	judgements := make([]freshness.Judgement, len(ticks))
	for i, evidence := range ticks {
		evidence.At = time.Duration(i) * tick
		state, judgements[i] = freshness.Evaluate(state, evidence, limits)
	}
	return judgements
}

// ticks are n healthy ticks, changed by each change from its index on.
func ticks(n int, changes map[int]func(*freshness.Evidence)) []freshness.Evidence {
	all := make([]freshness.Evidence, n)
	change := func(*freshness.Evidence) {}
	for i := range all {
		if next, ok := changes[i]; ok {
			change = next
		}
		all[i] = healthy(i)
		change(&all[i])
	}
	return all
}

// readiness is one letter per tick: G for ready, r for not.
func readiness(judgements []freshness.Judgement) string {
	var text []byte
	for _, judgement := range judgements {
		letter := byte('r')
		if judgement.Ready.OK {
			letter = 'G'
		}
		text = append(text, letter)
	}
	return string(text)
}

func codes(reasons []freshness.Reason) []freshness.Code {
	found := make([]freshness.Code, len(reasons))
	for i, reason := range reasons {
		found[i] = reason.Code
	}
	return found
}

// stalled makes the loop stalled, its last success that of the third tick.
func stalled(evidence *freshness.Evidence) {
	success := successAt.Add(3 * tick)
	evidence.Loops[0].LastSuccessAt = &success
	evidence.Loops[0].Verdict = freshness.VerdictStalled
	evidence.Loops[0].Age = 61 * time.Second
}

func well(*freshness.Evidence) {}

func TestEvaluate_Hysteresis(t *testing.T) {
	t.Parallel()

	type changes = map[int]func(*freshness.Evidence)
	cases := []struct {
		name    string
		changes changes
		want    string
		codes   []freshness.Code // of the first tick that is red again
	}{
		{"GreenAfterTwoGoodTicks", changes{}, "rGGGGGGGGGGG", nil},
		{"OneBadTickIsNotRed", changes{4: stalled, 5: well}, "rGGGGGGGGGGG", nil},
		{
			"TwoBadTicksAreRedForAtLeastThreeTicks", changes{4: stalled, 6: well}, "rGGGGrrrGGGG",
			[]freshness.Code{freshness.CodeLoopStalled},
		},
		{
			"GreenNeedsTwoGoodTicks", changes{4: stalled, 8: well}, "rGGGGrrrrGGG",
			[]freshness.Code{freshness.CodeLoopStalled},
		},
		{
			"GreenNeedsASuccessSinceTheRed",
			changes{4: stalled, 6: func(evidence *freshness.Evidence) {
				stalled(evidence)
				evidence.Loops[0].Verdict = freshness.VerdictBusy
			}},
			"rGGGGrrrrrrr",
			[]freshness.Code{freshness.CodeLoopStalled},
		},
		{
			"APauseEndsARedLoop",
			changes{4: stalled, 6: func(evidence *freshness.Evidence) {
				stalled(evidence)
				evidence.Loops[0].Verdict, evidence.Loops[0].Paused = freshness.VerdictPaused, true
			}},
			"rGGGGrrrGGGG",
			[]freshness.Code{freshness.CodeLoopStalled},
		},
		{
			"FlappingStaysRed",
			changes{4: stalled, 6: well, 7: stalled, 8: well, 9: stalled, 10: well}, "rGGGGrrrrrrG",
			[]freshness.Code{freshness.CodeLoopStalled},
		},
		{"OneFailedProbeIsNotRed", changes{4: failedProbes(1), 5: well}, "rGGGGGGGGGGG", nil},
		{"TwoFailedProbesAreNotRed", changes{4: failedProbes(1), 5: failedProbes(2), 6: well}, "rGGGGGGGGGGG", nil},
		{
			"TheThirdFailedProbeIsRedAtOnce",
			changes{4: failedProbes(1), 5: failedProbes(2), 6: failedProbes(3), 7: well}, "rGGGGGrrrGGG",
			[]freshness.Code{freshness.CodeDBUnreachable},
		},
		{
			"AReadOnlyServerIsRedAtOnce",
			changes{4: func(evidence *freshness.Evidence) { evidence.DB.ReadOnly = true }, 5: well}, "rGGGrrrGGGGG",
			[]freshness.Code{freshness.CodeDBReadOnly},
		},
		{
			"AnOldSchemaIsRedAtOnce",
			changes{4: func(evidence *freshness.Evidence) { evidence.DB.Schema.Has = 16 }}, "rGGGrrrrrrrr",
			[]freshness.Code{freshness.CodeSchemaMismatch},
		},
		{
			"ANewerSchemaIsGreen",
			changes{4: func(evidence *freshness.Evidence) { evidence.DB.Schema.Has = 20 }}, "rGGGGGGGGGGG", nil,
		},
		{
			"ASchemaThatRefusesThisBinaryIsRedAtOnce",
			changes{4: func(evidence *freshness.Evidence) {
				evidence.DB.Schema.Has, evidence.DB.Schema.MinBinary = 20, 18
			}}, "rGGGrrrrrrrr",
			[]freshness.Code{freshness.CodeSchemaMismatch},
		},
		{
			"DrainingIsRedAtOnce",
			changes{4: func(evidence *freshness.Evidence) { evidence.Draining = true }}, "rGGGrrrrrrrr",
			[]freshness.Code{freshness.CodeDraining},
		},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			judgements := play(ticks(12, test.changes))
			require.Equal(t, test.want, readiness(judgements))
			if test.codes == nil {
				return
			}
			red := slices.IndexFunc(judgements[1:], func(judgement freshness.Judgement) bool { return !judgement.Ready.OK }) + 1
			require.Equal(t, test.codes, codes(judgements[red].Ready.Reasons))
			require.Equal(t, time.Duration(red)*tick, judgements[red].Ready.Since)
			require.Equal(t, "docs/runbooks/", judgements[red].Ready.Reasons[0].Runbook[:14])
		})
	}

	t.Run("NeverRedWithoutAReason", func(t *testing.T) {
		t.Parallel()

		for _, test := range cases {
			for i, judgement := range play(ticks(12, test.changes)) {
				require.Equal(t, judgement.Ready.OK, len(judgement.Ready.Reasons) == 0, "%s, tick %d", test.name, i)
				require.NotEmpty(t, judgement.Ready.Status)
			}
		}
	})
}

func failedProbes(num int) func(*freshness.Evidence) {
	return func(evidence *freshness.Evidence) {
		evidence.DB.Error = "refused"
		evidence.DB.NumFailed = num
		evidence.SnapshotAge = time.Duration(num) * tick
	}
}

// TestEvaluate_Reasons says what makes a process unready, and what does not.
func TestEvaluate_Reasons(t *testing.T) {
	t.Parallel()

	queue := func(change func(*freshness.QueueEvidence)) func(*freshness.Evidence) {
		return func(evidence *freshness.Evidence) { change(&evidence.Queues[0]) }
	}
	status := func(change func(*freshness.LoopStatus)) func(*freshness.Evidence) {
		return func(evidence *freshness.Evidence) { change(&evidence.Loops[0]) }
	}
	cases := []struct {
		name   string
		change func(*freshness.Evidence)
		code   freshness.Code // "": ready
	}{
		{"NothingWrong", well, ""},
		{"AnUnrelatedLoopIsRed", func(evidence *freshness.Evidence) { evidence.Queues = nil }, ""},
		{"AnAdvisoryLoopIsRed", func(evidence *freshness.Evidence) {
			stalled(evidence)
			evidence.Loops[0].Required = false
		}, ""},
		{"APausedLoop", status(func(loop *freshness.LoopStatus) {
			loop.Paused, loop.Verdict = true, freshness.VerdictPaused
		}), ""},
		{"Stalled", stalled, freshness.CodeLoopStalled},
		{"StalledInOnePart", status(func(loop *freshness.LoopStatus) {
			part := "3"
			loop.StuckPart, loop.Verdict = &part, freshness.VerdictStalled
		}), freshness.CodeLagNoProgress},
		{"Failing", status(func(loop *freshness.LoopStatus) { loop.Verdict = freshness.VerdictFailing }), freshness.CodeLoopFailing},
		{"SilentNoop", status(func(loop *freshness.LoopStatus) { loop.Verdict = freshness.VerdictSilentNoop }), freshness.CodeSilentNoop},
		{"Late", status(func(loop *freshness.LoopStatus) { loop.Verdict = freshness.VerdictLate }), ""},
		{"Degraded", status(func(loop *freshness.LoopStatus) { loop.Verdict = freshness.VerdictDegraded }), ""},
		{"Behind", status(func(loop *freshness.LoopStatus) { loop.Verdict = freshness.VerdictBehind }), ""},
		{"NoLoopIsRegistered", func(evidence *freshness.Evidence) { evidence.Loops = nil }, freshness.CodeLoopStalled},

		{"SnapshotOfNow", func(evidence *freshness.Evidence) { evidence.SnapshotAge = 15 * time.Second }, ""},
		{"SnapshotOfLongAgo", func(evidence *freshness.Evidence) { evidence.SnapshotAge = 16 * time.Second }, freshness.CodeSnapshotStale},
		{"SlowDatabase", func(evidence *freshness.Evidence) { evidence.DB.Slow = true }, ""},

		{"NoFetchFor30s", queue(func(queue *freshness.QueueEvidence) { queue.FetchAge = 30 * time.Second }), ""},
		{"NoFetchForLonger", queue(func(queue *freshness.QueueEvidence) { queue.FetchAge = 31 * time.Second }), freshness.CodeFetchStalled},
		{"NoFetchSinceAllSlotsAreBusy", queue(func(queue *freshness.QueueEvidence) {
			queue.FetchAge, queue.LeastOverrun, queue.NumInFlight = time.Minute, -time.Second, 2
		}), ""},
		{"NoFetchSinceAllSlotsAreStuck", queue(func(queue *freshness.QueueEvidence) {
			queue.FetchAge, queue.LeastOverrun, queue.NumInFlight = time.Minute, time.Second, 2
		}), freshness.CodeSlotsStuck},
		{"NoFetchAlthoughASlotIsFree", queue(func(queue *freshness.QueueEvidence) {
			queue.FetchAge, queue.LeastOverrun, queue.NumInFlight = time.Minute, -time.Second, 1
		}), freshness.CodeFetchStalled},
		{"NoFetchOfAPausedQueue", func(evidence *freshness.Evidence) {
			evidence.Loops[0].Paused = true
			evidence.Queues[0].FetchAge = time.Hour
		}, ""},

		{"OwnFailures", own(3, false, 0), freshness.CodeOwnFailures},
		{"TooFewOwnFailures", own(2, false, 0), ""},
		{"OwnFailuresAfterARecentSuccess", own(3, true, 44*time.Second), ""},
		{"OwnFailuresAfterAnOldSuccess", own(3, true, 46*time.Second), freshness.CodeOwnFailures},
		{"OwnFailuresOnAPausedLoop", func(evidence *freshness.Evidence) {
			own(3, false, 0)(evidence)
			evidence.Loops[0].Paused = true
		}, ""},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			last := play(ticks(8, map[int]func(*freshness.Evidence){4: test.change}))[7]
			if test.code == "" {
				require.Empty(t, last.Ready.Reasons)
				return
			}
			require.Equal(t, []freshness.Code{test.code}, codes(last.Ready.Reasons))
			require.NotEmpty(t, last.Ready.Reasons[0].Message)
			require.True(t, last.Live.OK, "nothing here wants a restart")
		})
	}

	t.Run("TheMostTellingComesFirst", func(t *testing.T) {
		t.Parallel()

		last := play(ticks(8, map[int]func(*freshness.Evidence){4: func(evidence *freshness.Evidence) {
			failedProbes(4)(evidence)
			evidence.Queues[0].FetchAge = time.Minute
			evidence.Draining = true
		}}))[7]
		require.Equal(t, []freshness.Code{
			freshness.CodeDraining, freshness.CodeDBUnreachable, freshness.CodeSnapshotStale, freshness.CodeFetchStalled,
		}, codes(last.Ready.Reasons))
		require.Equal(t, freshness.DBUnreachable, last.DB)
	})

	t.Run("AResumedQueueHasTimeToFetch", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(14, map[int]func(*freshness.Evidence){
			4: func(evidence *freshness.Evidence) {
				evidence.Loops[0].Paused = true
				evidence.Queues[0].FetchAge = time.Hour
			},
			5: func(evidence *freshness.Evidence) { evidence.Queues[0].FetchAge = time.Hour },
		}))
		// Paused last at tick 4, so 30 s are over after tick 10, and two bad ticks
		// are red.
		require.Equal(t, "rGGGGGGGGGGGrr", readiness(judgements))
	})
}

// own is what this process did on the loop.
func own(numFailures int, hasSucceeded bool, age time.Duration) func(*freshness.Evidence) {
	return func(evidence *freshness.Evidence) {
		evidence.Own = []freshness.OwnProgress{{
			ConsecutiveFailures: numFailures, HasSucceeded: hasSucceeded, LastError: "no broker", Loop: loop, SuccessAge: age,
		}}
	}
}

func TestEvaluate_Proof(t *testing.T) {
	t.Parallel()

	starting := func(evidence *freshness.Evidence) {
		evidence.Loops[0].LastSuccessAt = nil
		evidence.Loops[0].Verdict = freshness.VerdictStarting
	}
	t.Run("NotReadyBeforeTheFirstProof", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(6, map[int]func(*freshness.Evidence){0: starting, 4: well}))
		require.Equal(t, "rrrrrG", readiness(judgements))
		require.Equal(t, []freshness.Code{freshness.CodeStarting}, codes(judgements[3].Ready.Reasons))
		require.Equal(t, "starting", judgements[3].Ready.Status)
	})

	t.Run("ReadyByAnOwnSuccess", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(4, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			starting(evidence)
			own(0, true, time.Second)(evidence)
		}}))
		require.Equal(t, "rGGG", readiness(judgements))
	})

	t.Run("NotReadyBeforeRiverRuns", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(4, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			evidence.RiverStarted = false
		}}))
		require.Equal(t, "rrrr", readiness(judgements))
		require.False(t, judgements[3].Startup.OK)
	})

	t.Run("ReadyWithoutQueues", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(3, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			evidence.Queues = nil
		}}))
		require.Equal(t, "rGG", readiness(judgements))
	})

	t.Run("ReadyWhileItsLoopsArePaused", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(3, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			evidence.Loops[0].Paused, evidence.Loops[0].Verdict = true, freshness.VerdictPaused
		}}))
		require.Equal(t, "rGG", readiness(judgements))
	})
}

func TestEvaluate_Startup(t *testing.T) {
	t.Parallel()

	t.Run("NothingTakesItBack", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(9, map[int]func(*freshness.Evidence){2: func(evidence *freshness.Evidence) {
			failedProbes(9)(evidence)
			evidence.DB.Schema.Has = 16
			evidence.RiverStarted = false
		}}))
		require.True(t, judgements[0].Startup.OK)
		require.True(t, judgements[8].Startup.OK)
		require.Equal(t, "started", judgements[8].Startup.Status)
	})

	t.Run("AnOldSchemaKeepsItBack", func(t *testing.T) {
		t.Parallel()

		judgements := play(ticks(2, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			evidence.DB.Schema.Has = 16
		}}))
		require.Equal(t, []freshness.Code{freshness.CodeSchemaMismatch}, codes(judgements[1].Startup.Reasons))
	})
}

func TestEvaluate_Info(t *testing.T) {
	t.Parallel()

	info := func(change func(*freshness.Evidence)) []freshness.Code {
		return codes(play(ticks(3, map[int]func(*freshness.Evidence){0: change}))[2].Info)
	}
	require.Empty(t, info(well))
	require.Equal(t, []freshness.Code{
		freshness.CodeBehind, freshness.CodeDegraded, freshness.CodeLate, freshness.CodePoolSaturated, freshness.CodeClockSkew,
	}, info(func(evidence *freshness.Evidence) {
		old := 2 * time.Minute
		evidence.Loops[0].Age = 50 * time.Second
		evidence.Loops[0].NumParked = 1
		evidence.Loops[0].OldestDueAge = &old
		evidence.Loops[0].Verdict = freshness.VerdictBusy
		evidence.SaturatedPools = []string{"main"}
		evidence.ClockSkew = -10 * time.Minute
	}))
	require.Equal(t, []freshness.Code{freshness.CodePaused}, info(func(evidence *freshness.Evidence) {
		evidence.Loops[0].Paused = true
	}))
	require.Equal(t, []freshness.Code{freshness.CodeLoopStalled}, info(func(evidence *freshness.Evidence) {
		stalled(evidence)
		evidence.Loops[0].Required = false
	}))
}
