package outbox_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

// withProofInterval gives the bundle a relay whose answers last for interval.
func (bundle *testBundle) withProofInterval(t *testing.T, interval time.Duration) {
	t.Helper()
	var err error
	bundle.relay, err = outbox.NewRelay(bundle.db.Pool, bundle.broker, bundle.record, outbox.Config{ProofInterval: interval, WorkerID: "test-1"})
	require.NoError(t, err)
}

func (bundle *testBundle) evidence(t *testing.T) freshness.BrokerEvidence {
	t.Helper()
	all := bundle.relay.Prover().Evidence([]outbox.Stream{bundle.stream})
	require.Len(t, all, 1)
	return all[0]
}

func TestRelay_Drain_Idle(t *testing.T) {
	t.Parallel()

	t.Run("FailsWhileTheBrokerWouldTakeNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.withProofInterval(t, time.Nanosecond)
		bundle.broker.refuse(&outbox.BrokerError{Address: "broker:4222", Err: errAway, Refused: true})

		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, "k"))
		require.ErrorIs(t, err, errAway)
		require.ErrorContains(t, err, "of rolling: the broker at broker:4222 refuses: the broker is away")
		require.Empty(t, bundle.record.completed, "a pass that proved nothing must not complete its job")
		require.Len(t, bundle.record.recorded, 1)
		require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)
		require.False(t, bundle.record.recorded[0].OfItems)

		require.True(t, bundle.record.recorded[0].OfBroker)

		bundle.broker.refuse(nil)
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, "k"))
		require.NoError(t, err)
		require.Equal(t, freshness.Success, bundle.record.completed[0].Kind)
	})

	t.Run("KeepsNoHealthyProcessFromTheShard", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		pass := bundle.pass(ctx, t, "k")
		refused := &stubBroker{refuses: &outbox.BrokerError{Address: "broker:4222", Err: errAway, Refused: true}}
		relay, err := outbox.NewRelay(bundle.db.Pool, refused, bundle.record, outbox.Config{WorkerID: "test-2"})
		require.NoError(t, err)
		_, err = relay.Drain(ctx, pass)
		require.ErrorIs(t, err, errAway)

		bundle.stage(ctx, t, "k")
		var numJobs int
		bundle.scan(ctx, t, &numJobs, `SELECT count(*) FROM river_job WHERE kind = 'outbox_rolling'`)
		require.Equal(t, 1, numJobs, "the append wakes somebody")
		result, err := bundle.relay.Drain(ctx, pass)
		require.NoError(t, err)
		require.Equal(t, 1, result.NumPublished)
	})

	t.Run("AsksOncePerInterval", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.withProofInterval(t, time.Hour)
		for range 3 {
			_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, "k"))
			require.NoError(t, err)
		}
		require.Equal(t, 1, bundle.broker.asked())
	})

	t.Run("TakesAnAcknowledgementForAnAnswer", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.withProofInterval(t, time.Hour)
		bundle.stage(ctx, t, "k")
		for range 2 {
			_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, "k"))
			require.NoError(t, err)
		}
		require.Zero(t, bundle.broker.asked())
		require.True(t, bundle.evidence(t).Answered)
	})

	t.Run("BlamesSingleItemsOnNoProcess", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.stage(ctx, t, "k")
		bundle.broker.judge = func(outbox.Event) outbox.Class { return outbox.ClassRow }
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, "k"))
		require.Error(t, err)
		require.True(t, bundle.record.recorded[0].OfItems)
	})
}

func TestProver(t *testing.T) {
	t.Parallel()

	t.Run("CountsFailuresUntilAGoodAnswer", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.withProofInterval(t, time.Nanosecond)
		require.Equal(t, freshness.BrokerEvidence{Loop: "outbox_rolling"}, withoutAge(bundle.evidence(t)))

		bundle.broker.refuse(&outbox.BrokerError{Address: "broker:4222", Err: errAway})
		for range 2 {
			require.Error(t, bundle.relay.Prover().Prove(ctx, bundle.stream))
		}
		require.Equal(t, freshness.BrokerEvidence{
			Address: "broker:4222", Error: "the broker at broker:4222 does not answer: the broker is away", Loop: "outbox_rolling", NumFailed: 2,
		}, withoutAge(bundle.evidence(t)))

		bundle.broker.refuse(nil)
		require.NoError(t, bundle.relay.Prover().Prove(ctx, bundle.stream))
		require.Equal(t, freshness.BrokerEvidence{Answered: true, Loop: "outbox_rolling"}, withoutAge(bundle.evidence(t)))
	})

	t.Run("ForgivesSilenceWhileTheBrokerAnswersForAnotherStream", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.withProofInterval(t, time.Nanosecond)
		other := outbox.Stream{JobKind: "outbox_wallet", Name: "wallet"}
		broker := &answeringBroker{answer: map[string]error{}}
		var err error
		bundle.relay, err = outbox.NewRelay(bundle.db.Pool, broker, bundle.record, outbox.Config{ProofInterval: time.Nanosecond, WorkerID: "test-1"})
		require.NoError(t, err)
		prover := bundle.relay.Prover()
		require.NoError(t, prover.Prove(ctx, bundle.stream))

		// While this stream's question is under way, the other one's is answered.
		broker.hook = func(stream string) {
			if stream == bundle.stream.Name {
				require.NoError(t, prover.Prove(ctx, other))
			}
		}
		broker.answer[bundle.stream.Name] = &outbox.BrokerError{Err: errAway}
		require.NoError(t, prover.Prove(ctx, bundle.stream))
		require.Zero(t, bundle.evidence(t).NumFailed)

		// A refusal is an answer.
		broker.answer[bundle.stream.Name] = &outbox.BrokerError{Err: errAway, Refused: true}
		require.Error(t, prover.Prove(ctx, bundle.stream))
		require.Equal(t, 1, bundle.evidence(t).NumFailed)
	})

	t.Run("AProcessThatStopsBlamesNobody", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t.Context(), t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		bundle.broker.refuse(&outbox.BrokerError{Err: errAway})
		require.ErrorIs(t, bundle.relay.Prover().Prove(ctx, bundle.stream), context.Canceled)
		require.Zero(t, bundle.evidence(t).NumFailed)
	})

	t.Run("RunAsksWithoutAnyPass", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t.Context(), t)
		bundle.withProofInterval(t, 10*time.Millisecond)
		bundle.broker.refuse(&outbox.BrokerError{Err: errAway, Refused: true})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			bundle.relay.Prover().Run(ctx, slog.New(slog.DiscardHandler), []outbox.Stream{bundle.stream})
		}()
		require.Eventually(t, func() bool { return bundle.evidence(t).NumFailed > 2 }, time.Minute, time.Millisecond)
		bundle.broker.refuse(nil)
		require.Eventually(t, func() bool { return bundle.evidence(t).Answered }, time.Minute, time.Millisecond)
		cancel()
		<-ended
	})

	t.Run("RunAsksForWhatTheStreamIsProvisionedForNow", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t.Context(), t)
		var err error
		broker := &limitedBroker{limit: 2000}
		bundle.relay, err = outbox.NewRelay(bundle.db.Pool, broker, bundle.record, outbox.Config{ProofInterval: 10 * time.Millisecond, WorkerID: "test-1"})
		require.NoError(t, err)
		bundle.stream.MaxEventBytes = 5000 // as read when the process started
		require.NoError(t, outbox.Provision(t.Context(), bundle.db.Pool, bundle.stream.Name, 2000))
		go bundle.relay.Prover().Run(t.Context(), slog.New(slog.DiscardHandler), []outbox.Stream{bundle.stream})
		require.Eventually(t, func() bool { return bundle.evidence(t).Answered }, time.Minute, time.Millisecond)
	})
}

func withoutAge(evidence freshness.BrokerEvidence) freshness.BrokerEvidence {
	evidence.AnswerAge = 0
	return evidence
}

// answeringBroker answers for each stream as it is told.
type answeringBroker struct {
	stubBroker

	answer map[string]error
	hook   func(stream string)
}

func (broker *answeringBroker) Prove(_ context.Context, stream outbox.Stream) error {
	if broker.hook != nil {
		broker.hook(stream.Name)
	}
	return broker.answer[stream.Name]
}

// limitedBroker takes events up to a size.
type limitedBroker struct {
	stubBroker

	limit int
}

func (broker *limitedBroker) Prove(_ context.Context, stream outbox.Stream) error {
	if stream.MaxEventBytes > broker.limit {
		return &outbox.BrokerError{Err: errors.New("takes less"), Refused: true}
	}
	return nil
}
