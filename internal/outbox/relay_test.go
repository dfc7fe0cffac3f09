package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

func TestRelay_Drain(t *testing.T) {
	t.Parallel()

	t.Run("PublishesInOrderPerKeyAndStoresTheAcknowledgement", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		var want []string
		for seq := range 15 { // more than a batch
			bundle.stage(ctx, t, keys...)
			want = append(want, fmt.Sprintf("%s#%d", keys[0], seq+1), fmt.Sprintf("%s#%d", keys[1], seq+1))
		}

		result, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, outbox.DrainResult{FirstID: 1, LastID: 30, NumPublished: 30, NumSent: 30, Stream: outbox.StreamRolling}, result)
		require.Equal(t, want, bundle.broker.keys())
		for i, row := range bundle.rows(ctx, t) {
			require.Equal(t, "published", row.State)
			require.Equal(t, fmt.Sprintf("STUB/%d", i+1), *row.BrokerRef)
			require.Equal(t, 1, row.Attempts)
		}
		require.Equal(t, []freshness.Progress{{Kind: freshness.Success, Loop: "outbox_rolling", NumItems: 30, Result: result}}, bundle.record.completed)
	})

	t.Run("MarksOnlyWhatTheBrokerAcknowledged", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 3)
		bundle.stage(ctx, t, keys[0], keys[1], keys[1], keys[2])
		bundle.broker.judge = func(event outbox.Event) outbox.Class {
			if event.Key == keys[1] {
				return outbox.ClassRow
			}
			return outbox.ClassAcknowledged
		}

		result, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "1 events not delivered, 2 acknowledged: event")
		require.ErrorContains(t, err, keys[1])
		require.Equal(t, outbox.DrainResult{FirstID: 1, LastID: 4, NumFailed: 1, NumPublished: 2, NumSent: 3, Stream: outbox.StreamRolling}, result)
		require.Equal(t, []string{
			keys[0] + "#1 published", keys[1] + "#1 delayed", keys[1] + "#2 blocked", keys[2] + "#1 published",
		}, bundle.states(ctx, t))
		require.Empty(t, bundle.record.completed, "a pass that did not deliver all must not complete its job")

		failed := bundle.rows(ctx, t)[1]
		require.Equal(t, 1, failed.Failures)
		require.Equal(t, "row", *failed.Class)
		require.Zero(t, bundle.rows(ctx, t)[2].Attempts, "a blocked event was never sent")
	})

	t.Run("HoldsAnOutageAgainstTheShardAndNotTheEvents", func(t *testing.T) {
		t.Parallel()
		for _, class := range []outbox.Class{outbox.ClassInfrastructure, outbox.ClassAmbiguous} {
			t.Run(string(class), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle := setup(ctx, t)
				keys := bundle.neighbours(ctx, t, 2)
				bundle.stage(ctx, t, keys...)
				bundle.broker.judge = func(outbox.Event) outbox.Class { return class }

				_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
				require.ErrorIs(t, err, errAway)
				for _, row := range bundle.rows(ctx, t) {
					require.Equal(t, "pending", row.State)
					require.Equal(t, 0, row.Failures)
					require.Equal(t, 1, row.Attempts)
					require.Nil(t, row.NotBefore)
				}
				require.Len(t, bundle.record.recorded, 1)
				require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)

				// The shard rests: the next pass yields, which proves nothing.
				bundle.broker.judge = nil
				result, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
				require.NoError(t, err)
				require.True(t, result.Yielded)
				require.Equal(t, freshness.Neutral, bundle.record.completed[0].Kind)

				bundle.exec(ctx, t, `UPDATE outbox_shard SET backoff_until = now() WHERE backoff_until IS NOT NULL`)
				result, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
				require.NoError(t, err)
				require.Equal(t, 2, result.NumPublished)
			})
		}
	})

	t.Run("CountsSilenceAgainstTheEventOnlyIfALaterOneWasAcknowledged", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 4)
		bundle.stage(ctx, t, keys...)
		bundle.broker.judge = func(event outbox.Event) outbox.Class {
			if event.Key == keys[0] || event.Key == keys[2] {
				return outbox.ClassAcknowledged
			}
			return outbox.ClassAmbiguous
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "2 events not delivered, 2 acknowledged")
		require.ErrorIs(t, err, errAway, "the shard rests")
		require.Equal(t, []string{keys[0] + "#1 published", keys[1] + "#1 delayed", keys[2] + "#1 published", keys[3] + "#1 pending"}, bundle.states(ctx, t))
		rows := bundle.rows(ctx, t)
		require.Equal(t, 1, rows[1].Failures, "the broker went past it")
		require.Zero(t, rows[3].Failures, "the broker may not have come to it")
		require.Nil(t, rows[3].NotBefore)
		require.Equal(t, 1, rows[3].Attempts)
		require.Equal(t, "ambiguous", *rows[3].Class)
		require.Empty(t, bundle.record.completed)
	})

	t.Run("ParksAtOnceWhatNoMessageCanBeMadeOf", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		bundle.broker.err = fmt.Errorf("%w: bad subject", outbox.ErrUnsendable)
		bundle.broker.judge = func(event outbox.Event) outbox.Class {
			if event.Key == keys[0] {
				return outbox.ClassPermanent
			}
			return outbox.ClassAcknowledged
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "1 events not delivered and 1 of them parked, 1 acknowledged")
		require.ErrorContains(t, err, "permanent: no message can be made of it: bad subject")
		require.Equal(t, []string{keys[0] + "#1 parked", keys[1] + "#1 published"}, bundle.states(ctx, t))
	})

	t.Run("YieldsAShardThatIsLeased", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		pass := bundle.pass(ctx, t, key)
		bundle.broker.hook = func() {
			bundle.broker.hook = nil
			result, err := bundle.relay.Drain(ctx, pass)
			require.NoError(t, err)
			require.Equal(t, outbox.DrainResult{Stream: outbox.StreamRolling, Yielded: true}, result)
		}
		result, err := bundle.relay.Drain(ctx, pass)
		require.NoError(t, err)
		require.Equal(t, 1, result.NumPublished)
		require.Equal(t, freshness.Neutral, bundle.record.completed[0].Kind)
		require.Equal(t, freshness.Success, bundle.record.completed[1].Kind)
	})

	t.Run("KeepsAcknowledgementsAndNothingElseWhenTheLeaseIsLost", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		for range 20 {
			bundle.stage(ctx, t, keys[0])
		}
		bundle.broker.judge = func(event outbox.Event) outbox.Class {
			if event.Key == keys[1] {
				return outbox.ClassRow
			}
			return outbox.ClassAcknowledged
		}
		bundle.broker.hook = func() {
			bundle.exec(ctx, t, `UPDATE outbox_shard SET lease_epoch = lease_epoch + 1, lease_owner = 'other' WHERE lease_owner IS NOT NULL`)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorIs(t, err, outbox.ErrLeaseLost)
		rows := bundle.rows(ctx, t)
		require.Equal(t, "published", rows[0].State)
		require.Equal(t, "pending", rows[1].State, "a failure mark of a lost lease must not count")
		require.Zero(t, rows[1].Failures)
		require.Len(t, bundle.broker.keys(), 9, "nothing of the next batch may be sent")
		require.Empty(t, bundle.record.completed)
	})

	t.Run("ReturnsAnErrorWhenItsOwnCompletionIsRefused", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		bundle.record.fence = errors.New("another attempt runs")
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.ErrorIs(t, err, bundle.record.fence)
		require.Equal(t, "published", bundle.rows(ctx, t)[0].State, "an acknowledgement stays a fact")
	})

	t.Run("NamesEventsThatWereAcknowledgedButCouldNotBeMarked", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		bundle.exec(ctx, t, `ALTER TABLE outbox_delivery ADD CONSTRAINT unmarkable CHECK (published_at IS NULL) NOT VALID`)
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.ErrorContains(t, err, "mark 1 acknowledged and 0 failed events, first id 1")
		require.Equal(t, "pending", bundle.rows(ctx, t)[0].State)
		require.Equal(t, 1, bundle.rows(ctx, t)[0].Attempts, "it was sent, and may be at the broker")
		require.Equal(t, "ambiguous", *bundle.rows(ctx, t)[0].Class)
		require.Empty(t, bundle.record.completed)
		require.Empty(t, bundle.record.recorded, "what was rolled back is no progress")
	})

	t.Run("FillsItsBatchesPastHeldKeys", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 3)
		for range 30 { // three batches of events that cannot go
			bundle.stage(ctx, t, keys[0], keys[1])
		}
		bundle.stage(ctx, t, keys[2])
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = now() + interval '1 hour' WHERE id = (SELECT min(id) FROM outbox_event WHERE key = $1)`, keys[0])
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET parked_at = now(), park_reason = 'test' WHERE id = (SELECT min(id) FROM outbox_event WHERE key = $1)`, keys[1])
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, []string{keys[2] + "#1"}, bundle.broker.keys())
	})

	t.Run("FindsAnEventThatCommittedLateWithALowerID", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		late, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		_, err = outbox.Append(ctx, late, outbox.StreamRolling, outbox.Message{Key: keys[0], Payload: []byte(`{}`), Type: "a.b"})
		require.NoError(t, err)
		bundle.stage(ctx, t, keys[1])
		bundle.broker.hook = func() {
			bundle.broker.hook = nil
			require.NoError(t, late.Commit(ctx))
		}
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, []string{keys[1] + "#1", keys[0] + "#1"}, bundle.broker.keys())
	})

	t.Run("LetsNoLaterEventOfAKeyPassOneWhoseDelayEndsWithinThePass", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		for _, of := range []struct {
			key string
			num int
		}{{keys[0], 10}, {keys[1], 15}, {keys[0], 5}} {
			for range of.num {
				bundle.stage(ctx, t, of.key)
			}
		}
		batch := 0
		bundle.broker.judge = func(outbox.Event) outbox.Class { return outbox.ClassRow }
		bundle.broker.hook = func() {
			if batch++; batch == 2 {
				bundle.broker.judge = nil
				bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = now() - interval '1 s' WHERE not_before IS NOT NULL`)
			}
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "1 events not delivered, 15 acknowledged")
		for _, sent := range bundle.broker.keys() {
			require.Contains(t, sent, keys[1]+"#", "a key that failed is the next pass's")
		}
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		var want, got []string
		for seq := range 15 {
			want = append(want, fmt.Sprintf("%s#%d", keys[0], seq+1))
		}
		for _, sent := range bundle.broker.keys() {
			if strings.HasPrefix(sent, keys[0]+"#") {
				got = append(got, sent)
			}
		}
		require.Equal(t, want, got)
	})

	t.Run("ClaimsNoSuccessForAnIdleShardOfAStreamWithWorkElsewhere", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		idle := bundle.pass(ctx, t, key)
		idle.Shard = 1
		_, err := bundle.relay.Drain(ctx, idle)
		require.NoError(t, err)
		require.Equal(t, freshness.Neutral, bundle.record.completed[0].Kind)

		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.NoError(t, err)
		_, err = bundle.relay.Drain(ctx, idle)
		require.NoError(t, err)
		require.Equal(t, freshness.Progress{Kind: freshness.Success, Loop: "outbox_rolling"}, bundle.record.completed[2])
	})

	t.Run("MarksWhatIsInFlightWhenItIsToStopAndSendsNothingMore", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t.Context(), t)
		key := bundle.neighbours(t.Context(), t, 1)[0]
		for range 30 {
			bundle.stage(t.Context(), t, key)
		}
		pass := bundle.pass(t.Context(), t, key)
		ctx, stop := context.WithCancel(t.Context())
		bundle.broker.hook = stop
		_, err := bundle.relay.Drain(ctx, pass)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, bundle.broker.keys(), 10)
		var numPublished int
		bundle.scan(t.Context(), t, &numPublished, `SELECT count(*) FROM outbox_delivery WHERE published_at IS NOT NULL`)
		require.Equal(t, 10, numPublished)
		require.Empty(t, bundle.record.completed)
		var numLeased int
		bundle.scan(t.Context(), t, &numLeased, `SELECT count(*) FROM outbox_shard WHERE lease_owner IS NOT NULL`)
		require.Zero(t, numLeased, "the next worker need not wait for the lease to run out")
	})

	t.Run("LeavesTheRestToASuccessorWhenItsTimeIsOver", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		var err error
		bundle.relay, err = outbox.NewRelay(bundle.db.Pool, bundle.broker, bundle.record, outbox.Config{
			AckTimeout: 250 * time.Millisecond, BatchSize: 10, LeaseTTL: 450 * time.Millisecond, PassBudget: 500 * time.Millisecond, WorkerID: "test-1",
		})
		require.NoError(t, err)
		key := bundle.neighbours(ctx, t, 1)[0]
		for range 30 {
			bundle.stage(ctx, t, key)
		}
		bundle.exec(ctx, t, `DELETE FROM river_job`)
		bundle.broker.hook = func() { bundle.exec(ctx, t, `SELECT pg_sleep(0.6)`) }
		result, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.NoError(t, err)
		require.Equal(t, 10, result.NumPublished)
		require.Len(t, bundle.record.completed, 1)
		var numJobs int
		bundle.scan(ctx, t, &numJobs, `SELECT count(*) FROM river_job WHERE kind = 'outbox_rolling' AND args = '{"shard": 0}' AND state = 'available'`)
		require.Equal(t, 1, numJobs)
	})
}

func TestNewRelay(t *testing.T) {
	t.Parallel()
	_, err := outbox.NewRelay(nil, nil, nil, outbox.Config{AckTimeout: 8 * time.Second, BatchSize: 20_000, MaxRetryDelay: time.Minute})
	for _, part := range []string{"WorkerID is required", "BatchSize must be from 1 to 10000, got 20000", "AckTimeout", "MaxRetryDelay must be from 1s to 15s, got 1m0s"} {
		require.ErrorContains(t, err, part)
	}
}
