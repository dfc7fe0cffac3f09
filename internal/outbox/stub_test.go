package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

var errAway = errors.New("the broker is away")

// stubBroker does what a real broker can't be made to do on demand. Without
// orders it acknowledges everything.
type stubBroker struct {
	mu    sync.Mutex
	sent  []outbox.Event
	judge func(outbox.Event) outbox.Class // the fate of an event; nil acknowledges
	err   error                           // why an event is not acknowledged; nil for errAway
	hook  func()                          // runs before each batch
	see   func([]outbox.Event)            // is shown each batch

	numAsked int   // for a proof
	refuses  error // what a proof fails with; nil for none
}

func (broker *stubBroker) Publish(_ context.Context, events []outbox.Event) []outbox.Outcome {
	broker.mu.Lock()
	defer broker.mu.Unlock()
	if broker.hook != nil {
		broker.hook()
	}
	if broker.see != nil {
		broker.see(events)
	}
	outcomes := make([]outbox.Outcome, len(events))
	stopped := make(map[string]bool)
	for i, event := range events {
		class := outbox.ClassAcknowledged
		switch {
		case stopped[event.Key]:
			class = outbox.ClassNotSent
		case broker.judge != nil:
			class = broker.judge(event)
		}
		outcomes[i] = outbox.Outcome{Class: class}
		if class == outbox.ClassAcknowledged {
			for before := range outcomes[:i] {
				outcomes[before].Overtaken = outcomes[before].Class == outbox.ClassAmbiguous
			}
			broker.sent = append(broker.sent, event)
			outcomes[i].BrokerRef = fmt.Sprintf("STUB/%d", len(broker.sent))
			continue
		}
		stopped[event.Key] = true
		outcomes[i].Err = errAway
		if broker.err != nil {
			outcomes[i].Err = broker.err
		}
	}
	return outcomes
}

func (broker *stubBroker) Prove(context.Context, outbox.Stream) error {
	broker.mu.Lock()
	defer broker.mu.Unlock()
	broker.numAsked++
	return broker.refuses
}

func (broker *stubBroker) refuse(err error) {
	broker.mu.Lock()
	defer broker.mu.Unlock()
	broker.refuses = err
}

func (broker *stubBroker) asked() int {
	broker.mu.Lock()
	defer broker.mu.Unlock()
	return broker.numAsked
}

func (broker *stubBroker) keys() []string {
	broker.mu.Lock()
	defer broker.mu.Unlock()
	keys := make([]string, len(broker.sent))
	for i, event := range broker.sent {
		keys[i] = fmt.Sprintf("%s#%d", event.Key, event.KeySeq)
	}
	return keys
}

// record keeps what passes claimed, in the order of their commits; what was
// rolled back is in it too.
type record struct {
	completed []freshness.Progress
	fence     error // what the completion returns
	recorded  []freshness.Progress
}

func (record *record) Record(_ context.Context, _ pgx.Tx, progress freshness.Progress) error {
	record.recorded = append(record.recorded, progress)
	return nil
}

func (record *record) complete(_ context.Context, _ pgx.Tx, progress freshness.Progress) error {
	record.completed = append(record.completed, progress)
	return record.fence
}

type testBundle struct {
	broker *stubBroker
	db     *dbtest.DB
	record *record
	relay  *outbox.Relay
	stream outbox.Stream
}

// setup gives a relay for the rolling stream: counted, parked events block.
func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	bundle := &testBundle{broker: &stubBroker{}, db: dbtest.Database(ctx, t), record: &record{}}
	var err error
	bundle.relay, err = outbox.NewRelay(bundle.db.Pool, bundle.broker, bundle.record, outbox.Config{BatchSize: 10, WorkerID: "test-1"})
	require.NoError(t, err)
	streams, err := outbox.Streams(ctx, bundle.db.Pool)
	require.NoError(t, err)
	for _, stream := range streams {
		if stream.Name == outbox.StreamRolling {
			bundle.stream = stream
		}
	}
	return bundle
}

// pass is the first attempt of a job for the shard of key.
func (bundle *testBundle) pass(ctx context.Context, t *testing.T, key string) outbox.Pass {
	t.Helper()
	pass := outbox.Pass{Attempt: 1, Complete: bundle.record.complete, Stream: bundle.stream}
	err := bundle.db.Pool.QueryRow(ctx, `SELECT outbox_shard_of($1, $2)`, key, bundle.stream.NumShards).Scan(&pass.Shard)
	require.NoError(t, err)
	return pass
}

// stage appends one event for each key given.
func (bundle *testBundle) stage(ctx context.Context, t *testing.T, keys ...string) {
	t.Helper()
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	for _, key := range keys {
		_, err := outbox.Append(ctx, tx, outbox.StreamRolling, outbox.Message{Key: key, Payload: []byte(`{"n":1}`), Type: "rolling.accrued.v1"})
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(ctx))
}

// neighbours returns n keys that share a shard.
func (bundle *testBundle) neighbours(ctx context.Context, t *testing.T, n int) []string {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT 'k' || n FROM generate_series(1, 1000) AS n WHERE outbox_shard_of('k' || n, $1) = 0 LIMIT $2`, bundle.stream.NumShards, n)
	require.NoError(t, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, keys, n)
	return keys
}

// row is what a test asks of an event.
type row struct {
	Attempts  int
	BrokerRef *string
	Class     *string
	Failures  int
	Key       string
	KeySeq    int64
	NotBefore *time.Time
	State     string
}

func (bundle *testBundle) rows(ctx context.Context, t *testing.T) []row {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT attempts, broker_ref, last_error_class AS class, failures, key, key_seq, not_before, state
		FROM outbox_events ORDER BY id`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	require.NoError(t, err)
	return all
}

func (bundle *testBundle) states(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var states []string
	for _, row := range bundle.rows(ctx, t) {
		states = append(states, fmt.Sprintf("%s#%d %s", row.Key, row.KeySeq, row.State))
	}
	return states
}

func (bundle *testBundle) scan(ctx context.Context, t *testing.T, into any, query string, args ...any) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, query, args...).Scan(into))
}

func (bundle *testBundle) exec(ctx context.Context, t *testing.T, query string, args ...any) {
	t.Helper()
	_, err := bundle.db.Pool.Exec(ctx, query, args...)
	require.NoError(t, err)
}
