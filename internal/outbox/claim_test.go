package outbox_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// stageLarge appends one event of numBytes for each key given.
func (bundle *testBundle) stageLarge(ctx context.Context, t *testing.T, numBytes int, keys ...string) {
	t.Helper()
	bundle.exec(ctx, t, `
		SELECT outbox_append_many('rolling', $1::text[], array_fill('rolling.accrued.v1'::text, ARRAY[cardinality($1)]),
			array_fill(to_jsonb(repeat('x'::text, $2 - 2)), ARRAY[cardinality($1)]))`, keys, numBytes)
}

// relayWith replaces the bundle's relay.
func (bundle *testBundle) relayWith(t *testing.T, pool *pgxpool.Pool, config outbox.Config) {
	t.Helper()
	config.WorkerID = "test-1"
	relay, err := outbox.NewRelay(pool, bundle.broker, bundle.record, config)
	require.NoError(t, err)
	bundle.relay = relay
}

func TestRelay_Drain_Bytes(t *testing.T) {
	t.Parallel()

	for name, old := range map[string]bool{"Measured": false, "AppendedBeforeSizesWereNoted": true} {
		t.Run("BoundABatch/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			bundle.relayWith(t, bundle.db.Pool, outbox.Config{BatchBytes: 200_000})
			keys := bundle.neighbours(ctx, t, 12)
			bundle.stageLarge(ctx, t, 60_000, keys[:8]...)
			bundle.stageLarge(ctx, t, 300_000, keys[8])
			bundle.stageLarge(ctx, t, 100, keys[9:]...)
			if old {
				bundle.exec(ctx, t, `BEGIN; SET LOCAL session_replication_role = replica; UPDATE outbox_event SET num_bytes = NULL; COMMIT`)
			}
			var batches []int
			bundle.broker.see = func(events []outbox.Event) { batches = append(batches, len(events)) }
			_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
			require.NoError(t, err)
			require.Equal(t, []int{3, 3, 2, 1, 3}, batches)
			require.Len(t, bundle.broker.keys(), 12)
		})
	}

	t.Run("ShrinkWhereReadingTakesTooLongAndFailNoEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		config := bundle.db.Pool.Config()
		// 2.5 MB/s, and two seconds to read a batch of 8 MB.
		dial := config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return &slowConn{Conn: conn, tick: time.NewTicker(10 * time.Millisecond)}, err
		}
		pool, err := pgxpool.NewWithConfig(ctx, config)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		bundle.relayWith(t, pool, outbox.Config{
			AckTimeout: 2 * time.Second, BatchBytes: 16 << 20, LeaseTTL: 4 * time.Second, PassBudget: 6 * time.Second,
		})
		keys := bundle.neighbours(ctx, t, 40)
		bundle.stageLarge(ctx, t, 200_000, keys...)
		numFailed := 0
		for len(bundle.broker.keys()) < len(keys) {
			if _, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0])); err != nil {
				require.ErrorContains(t, err, "so that the next claim is half as large")
				numFailed++
			}
			require.LessOrEqual(t, numFailed, 9, "nothing shrinks")
		}
		require.Positive(t, numFailed)
		for _, row := range bundle.rows(ctx, t) {
			require.Equal(t, 1, row.Attempts, "what was not read to its end was not sent")
			require.Nil(t, row.Class)
		}
	})

	t.Run("ShrinkWhereTheClaimItselfTakesTooLong", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.relayWith(t, bundle.db.Pool, outbox.Config{
			AckTimeout: time.Second, BatchSize: 8, LeaseTTL: 2 * time.Second, PassBudget: 3 * time.Second,
		})
		keys := bundle.neighbours(ctx, t, 8)
		bundle.stage(ctx, t, keys...)
		// A lease does not ask for events, and a claim does.
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "LOCK TABLE outbox_event IN ACCESS EXCLUSIVE MODE")
		require.NoError(t, err)
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "claim events: not done after 1s, so that the next claim is half as large")
		require.NoError(t, tx.Rollback(ctx))

		var batches []int
		bundle.broker.see = func(events []outbox.Event) { batches = append(batches, len(events)) }
		for tries := 0; len(bundle.broker.keys()) < len(keys); tries++ {
			require.Less(t, tries, 10, err)
			_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		}
		require.LessOrEqual(t, batches[0], 4)
	})

	t.Run("ShrinkWhereTheBrokerIsTooSlowAndGrowAgain", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 20)
		bundle.stageLarge(ctx, t, 60_000, keys...)
		var batches []int
		numTaken, most := 0, 3
		bundle.broker.see = func(events []outbox.Event) {
			batches = append(batches, len(events))
			numTaken = 0
			if len(batches) > 3 {
				most = 10
			}
		}
		bundle.broker.judge = func(outbox.Event) outbox.Class {
			if numTaken++; numTaken > most {
				return outbox.ClassNotSent
			}
			return outbox.ClassAcknowledged
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, []int{10, 5, 2, 5, 7}, batches)
		for _, row := range bundle.rows(ctx, t) {
			require.Equal(t, "published", row.State)
			require.Equal(t, 1, row.Attempts)
		}
	})

	t.Run("AreReadAgainAfterAClaimThatFailedBesideMarks", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 15) // more than a batch
		bundle.stage(ctx, t, keys...)
		bundle.broker.hook = func() {
			bundle.broker.hook = nil
			bundle.exec(ctx, t, `ALTER TABLE outbox_event RENAME COLUMN key_seq TO seq`)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "claim events: ")
		bundle.exec(ctx, t, `ALTER TABLE outbox_event RENAME COLUMN seq TO key_seq`)
		rows := bundle.rows(ctx, t)
		for _, row := range rows[:10] {
			require.Equal(t, "published", row.State, "the claim must not roll an acknowledgement back")
		}
		for _, row := range rows[10:] {
			require.Zero(t, row.Attempts)
		}
	})
}

// slowConn reads 25 kB per tick.
type slowConn struct {
	net.Conn
	tick *time.Ticker
}

func (conn *slowConn) Read(data []byte) (int, error) {
	<-conn.tick.C
	return conn.Conn.Read(data[:min(len(data), 25_000)])
}
