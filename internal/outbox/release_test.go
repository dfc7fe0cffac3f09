package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

// TestRelay_Drain_Released lets others resolve events that a running pass has passed.
func TestRelay_Drain_Released(t *testing.T) {
	t.Parallel()

	t.Run("AnAdoptedEventLetsThoseBehindItGoInOrder", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		held, busy := keys[0], keys[1]
		bundle.stage(ctx, t, held, held, held)
		for range 45 {
			bundle.stage(ctx, t, busy)
		}
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row' WHERE id = 1`)
		numBatches := 0
		bundle.broker.hook = func() {
			if numBatches++; numBatches == 4 {
				bundle.exec(ctx, t, `SELECT outbox_adopt(array_agg(event_id), '{STUB/1}', 'ana') FROM outbox_event WHERE id = 1`)
				bundle.stage(ctx, t, held)
			}
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, held))
		require.NoError(t, err)
		require.Equal(t, []string{held + "#2", held + "#3", held + "#4"}, bundle.sentOf(held))
	})

	t.Run("ALateAcknowledgementLeavesTheKeyHeld", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = clock_timestamp()`)
		bundle.broker.hook = func() {
			bundle.stage(ctx, t, key)
			bundle.exec(ctx, t, `UPDATE outbox_shard SET lease_epoch = lease_epoch + 1 WHERE lease_owner IS NOT NULL`)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.ErrorIs(t, err, outbox.ErrLeaseLost)
		rows := bundle.rows(ctx, t)
		require.Equal(t, "published", rows[0].State)
		require.NotNil(t, rows[1].NotBefore)
	})

	t.Run("OneThatWasGivenUpInFlightMakesThePassFail", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		bundle.broker.hook = func() {
			bundle.exec(ctx, t, `UPDATE outbox_delivery SET discarded_at = clock_timestamp(), discarded_by = 'ana', discard_reason = 'test' WHERE id = 1 AND discarded_at IS NULL`)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "event 1 was discarded while it was in flight, and the broker has it all the same")
		require.Equal(t, []string{keys[0] + "#1 discarded", keys[1] + "#1 published"}, bundle.states(ctx, t))
		require.Empty(t, bundle.record.completed)
	})

	t.Run("AKeyThatIsParkedAgainWithoutAnotherMarkerHoldsUpNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stream.ParkedBlocks = false
		bundle.exec(ctx, t, `UPDATE outbox_stream SET park_policy = 'skip' WHERE stream = 'rolling'`)
		bundle.exec(ctx, t, `SELECT outbox_append('rolling', $1, 'rolling.accrued.v1', to_jsonb(repeat('x', 5000)))`, keys[0])
		for range 14 { // more than a batch
			bundle.stage(ctx, t, keys[0])
		}
		bundle.stage(ctx, t, keys[1])
		// Its marker went when it was parked before; the stream takes less than it has.
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET gap_left_at = clock_timestamp() WHERE id = 1`)
		bundle.exec(ctx, t, `UPDATE outbox_stream SET max_event_bytes = 4096 WHERE stream = 'rolling'`)
		bundle.broker.judge = func(event outbox.Event) outbox.Class {
			if event.ID == 1 {
				return outbox.ClassPermanent
			}
			return outbox.ClassAcknowledged
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "1 events not delivered and 1 of them parked")
		require.Equal(t, []string{keys[1] + "#1"}, bundle.broker.keys(), "the rest of the key is the next pass's")
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Len(t, bundle.sentOf(keys[0]), 14)
	})
}

// TestRelay_Drain_InFlight looks at what a worker that dies now would leave behind.
func TestRelay_Drain_InFlight(t *testing.T) {
	t.Parallel()

	t.Run("IsNotedOfWhatTheLastLookFinds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = clock_timestamp() + interval '1 hour' WHERE id = 1`)
		var noted []string
		bundle.broker.hook = func() {
			var num *int
			bundle.scan(ctx, t, &num, `SELECT max(inflight_num) FROM outbox_shard`)
			require.NotNil(t, num)
			noted = append(noted, fmt.Sprint(*num))
			// Below the cursor, and not new: only the last look comes to it.
			bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = clock_timestamp() WHERE id = 1`)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, []string{"1", "1"}, noted)
		require.Equal(t, []string{keys[1] + "#1", keys[0] + "#1"}, bundle.broker.keys())
	})

	t.Run("IsNotSaidOfWhatWaitedBehindAParkedEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys[0], keys[1], keys[1], keys[1], keys[0])
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row' WHERE id = 2`)
		bundle.exec(ctx, t, `
			UPDATE outbox_shard
			SET inflight_first = 1, inflight_last = 5, inflight_num = 2, lease_owner = 'dead', lease_expires_at = clock_timestamp()
			WHERE stream = 'rolling' AND shard = $1`, bundle.pass(ctx, t, keys[0]).Shard)
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		attempts := make([]int, 0, 5)
		for _, row := range bundle.rows(ctx, t) {
			attempts = append(attempts, row.Attempts)
		}
		require.Equal(t, []int{2, 0, 0, 0, 2}, attempts)
	})

	t.Run("IsSaidOfTheOneThatWasAloneAndNotOfAnotherInItsPlace", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		// As a gap marker and its event, which was redriven since.
		bundle.exec(ctx, t, "BEGIN; SET LOCAL session_replication_role = replica; UPDATE outbox_delivery SET place = 1 WHERE id = 2; COMMIT")
		bundle.exec(ctx, t, `
			UPDATE outbox_shard
			SET inflight_first = 1, inflight_id = 2, inflight_last = 1, inflight_num = 1, lease_owner = 'dead', lease_expires_at = clock_timestamp()
			WHERE stream = 'rolling' AND shard = $1`, bundle.pass(ctx, t, keys[0]).Shard)
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		rows := bundle.rows(ctx, t)
		require.Equal(t, []int{1, 2}, []int{rows[0].Attempts, rows[1].Attempts})
	})

	t.Run("HasALeaseForAsLongAsItMayTake", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		config := outbox.Config{AckTimeout: 2 * time.Second, BatchSize: 1, LeaseTTL: 3 * time.Second, WorkerID: "test-1"}
		var err error
		bundle.relay, err = outbox.NewRelay(bundle.db.Pool, bundle.broker, slowRecord{bundle.record}, config)
		require.NoError(t, err)
		bundle.stage(ctx, t, key, key)
		numBatches := 0
		bundle.broker.hook = func() {
			var left time.Duration
			bundle.scan(ctx, t, &left, `SELECT max(lease_expires_at) - clock_timestamp() FROM outbox_shard`)
			require.Greater(t, left, config.AckTimeout)
			numBatches++
		}
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.NoError(t, err)
		require.Equal(t, 2, numBatches)
	})
}

// slowRecord stands for a database whose commits take long.
type slowRecord struct{ *record }

func (slow slowRecord) Record(ctx context.Context, tx pgx.Tx, progress freshness.Progress) error {
	if _, err := tx.Exec(ctx, `SELECT pg_sleep(1.5)`); err != nil {
		return err
	}
	return slow.record.Record(ctx, tx, progress)
}

// sentOf are the events of key in the order in which the broker got them.
func (bundle *testBundle) sentOf(key string) []string {
	var sent []string
	for _, event := range bundle.broker.sent {
		if event.Key == key {
			sent = append(sent, fmt.Sprintf("%s#%d", event.Key, event.KeySeq))
		}
	}
	return sent
}
