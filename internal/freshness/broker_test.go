package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

// broker is what the process knows of the broker for its loop.
func broker(known freshness.BrokerEvidence, more ...func(*freshness.Evidence)) func(*freshness.Evidence) {
	known.Loop = loop
	return func(evidence *freshness.Evidence) {
		evidence.Brokers = []freshness.BrokerEvidence{known}
		for _, change := range more {
			change(evidence)
		}
	}
}

func TestEvaluate_Broker(t *testing.T) {
	t.Parallel()

	good := freshness.BrokerEvidence{AnswerAge: time.Second, Answered: true}
	failing := func(num int, answered, refused bool) freshness.BrokerEvidence {
		return freshness.BrokerEvidence{Address: "broker:4222", Answered: answered, Error: "the broker at broker:4222", NumFailed: num, Refused: refused}
	}
	failedAgo := func(age time.Duration, isShared bool) func(*freshness.Evidence) {
		return func(evidence *freshness.Evidence) {
			own(3, false, 0)(evidence)
			evidence.Own[0].FailedByBroker, evidence.Own[0].FailureAge, evidence.Own[0].IsShared = true, age, isShared
		}
	}

	for _, test := range []struct {
		name   string
		change func(*freshness.Evidence)
		code   freshness.Code // "": ready
	}{
		{"Good", broker(good), ""},
		{"NotAskedYet", broker(freshness.BrokerEvidence{}), freshness.CodeStarting},
		{"NeverAnswered", broker(failing(1, false, false)), freshness.CodeBrokerUnreachable},
		{"NeverLetIn", broker(failing(1, false, true)), freshness.CodeBrokerRefused},
		{"OneAnswerMissed", broker(failing(1, true, false)), ""},
		{"TwoAnswersMissed", broker(failing(2, true, false)), freshness.CodeBrokerUnreachable},
		{"RefusedOnce", broker(failing(1, true, true)), ""},
		{"RefusedTwice", broker(failing(2, true, true)), freshness.CodeBrokerRefused},
		{"OfAPausedLoop", broker(failing(9, false, true), func(evidence *freshness.Evidence) {
			evidence.Loops[0].Paused = true
		}), ""},
		{"OfALoopOfOthers", func(evidence *freshness.Evidence) {
			evidence.Brokers = []freshness.BrokerEvidence{{Loop: "rolling", NumFailed: 9, Refused: true}}
		}, ""},

		// Nobody owes a process a pass to succeed in: its own answers are the newer evidence.
		{"OwnFailuresAndAGoodAnswerSince", broker(good, failedAgo(11*time.Second, false)), ""},
		{"OwnFailuresThatTheBrokerDidNotCause", broker(good, failedAgo(11*time.Second, false), func(evidence *freshness.Evidence) {
			evidence.Own[0].FailedByBroker = false
		}), freshness.CodeOwnFailures},
		{"OwnFailuresOfThisMoment", broker(good, failedAgo(9*time.Second, false)), freshness.CodeOwnFailures},
		{"OwnFailuresAndNoGoodAnswerSince", broker(freshness.BrokerEvidence{AnswerAge: time.Minute, Answered: true, NumFailed: 1}, failedAgo(11*time.Second, false)), freshness.CodeOwnFailures},
		{"OwnFailuresOfALoopWithoutBroker", failedAgo(time.Hour, false), freshness.CodeOwnFailures},
		{"OwnFailuresThatTheFleetHadTooForLessThanLate", failedAgo(45*time.Second, true), freshness.CodeOwnFailures},
		{"OwnFailuresThatTheFleetHadTooForMoreThanLate", failedAgo(46*time.Second, true), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			last := play(ticks(8, map[int]func(*freshness.Evidence){0: test.change}))[7]
			if test.code == "" {
				require.Empty(t, last.Ready.Reasons)
				return
			}
			require.Equal(t, []freshness.Code{test.code}, codes(last.Ready.Reasons))
			require.False(t, last.Ready.OK)
			require.True(t, last.Live.OK, "nothing here wants a restart")
		})
	}

	t.Run("ComesBeforeWhatItCauses", func(t *testing.T) {
		t.Parallel()
		last := play(ticks(8, map[int]func(*freshness.Evidence){4: broker(failing(3, true, false), stalled, own(3, false, 0))}))[7]
		require.Equal(t, []freshness.Code{
			freshness.CodeBrokerUnreachable, freshness.CodeOwnFailures, freshness.CodeLoopStalled,
		}, codes(last.Ready.Reasons))
		require.Equal(t, "broker:4222", last.Ready.Reasons[0].Observed["address"])
	})

	t.Run("SaysWhatSeveralLoopsHaveInCommonOnce", func(t *testing.T) {
		t.Parallel()
		last := play(ticks(8, map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			evidence.Queues = append(evidence.Queues, freshness.QueueEvidence{MaxWorkers: 1, Name: "rolling", Timeout: time.Second})
			evidence.Loops[1].Verdict = freshness.VerdictOK
			one := failing(3, false, false)
			one.Loop = loop
			other := one
			other.Loop = "rolling"
			evidence.Brokers = []freshness.BrokerEvidence{one, other}
		}}))[7]
		require.Equal(t, []freshness.Code{freshness.CodeBrokerUnreachable}, codes(last.Ready.Reasons))
	})
}

func TestEvaluate_BrokerHysteresis(t *testing.T) {
	t.Parallel()
	away := broker(freshness.BrokerEvidence{Answered: true, Error: "away", NumFailed: 2})
	back := broker(freshness.BrokerEvidence{AnswerAge: time.Second, Answered: true})
	judgements := play(ticks(14, map[int]func(*freshness.Evidence){0: back, 4: away, 8: back}))
	require.Equal(t, "rGGGGrrrrGGGGG", readiness(judgements))
}
