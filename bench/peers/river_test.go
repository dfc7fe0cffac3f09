package peers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/pgtx"
)

// riverConfig is how the relay of one job per event is set up.
type riverConfig struct {
	numQueues  int
	numWorkers int // of each queue
}

func (c riverConfig) String() string {
	return fmt.Sprintf("queues=%d/workers=%d", c.numQueues, c.numWorkers)
}

// riverRelay has one River job for each event, which holds the event.
type riverRelay struct {
	config riverConfig
	js     jetstream.JetStream
	jobIDs []string
	name   string
	pool   *pgxpool.Pool
}

// publishArgs are an event.
//
// Inserted by: the transaction that makes the event.
// Unique by: nothing.
// Twice: the broker drops the second one, which has the same id.
type publishArgs struct {
	ID      string          `json:"id"`
	Key     string          `json:"key"`
	KeySeq  int64           `json:"key_seq"`
	Payload json.RawMessage `json:"payload"`
}

// Kind is the name of the job.
func (publishArgs) Kind() string { return "publish_event" }

type publishWorker struct {
	river.WorkerDefaults[publishArgs]

	js     jetstream.JetStream
	stream string
}

// Work publishes the event and waits for its acknowledgement.
func (w *publishWorker) Work(_ context.Context, job *river.Job[publishArgs]) error {
	future, err := publish(w.js, w.stream, job.Args.ID, job.Args.Key, strconv.FormatInt(job.Args.KeySeq, 10), job.Args.Payload)
	if err != nil {
		return fmt.Errorf("publish event %s: %w", job.Args.ID, err)
	}
	if err := await(future); err != nil {
		return fmt.Errorf("await acknowledgement of event %s: %w", job.Args.ID, err)
	}
	return nil
}

func newRiver(ctx context.Context, b *testing.B, br *broker, name string, config riverConfig) *riverRelay {
	b.Helper()
	br.createStream(ctx, b, name)
	return &riverRelay{config: config, js: connect(b, br.server.URL()), name: name, pool: openPool(ctx, b, 40, freshPlans)}
}

func (r *riverRelay) stream() string { return r.name }

func (r *riverRelay) database() *pgxpool.Pool { return r.pool }

func (r *riverRelay) ids() []string { return r.jobIDs }

func queueName(queue int) string { return "publish_" + strconv.Itoa(queue) }

func (r *riverRelay) client(b *testing.B) *river.Client[pgx.Tx] {
	b.Helper()
	workers := river.NewWorkers()
	require.NoError(b, river.AddWorkerSafely(workers, &publishWorker{js: r.js, stream: r.name}))
	queues := make(map[string]river.QueueConfig)
	for queue := range r.config.numQueues {
		queues[queueName(queue)] = river.QueueConfig{MaxWorkers: r.config.numWorkers}
	}
	client, err := river.NewClient(riverpgxv5.New(r.pool), &river.Config{
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Queues:            queues,
		Workers:           workers,
	})
	require.NoError(b, err)
	return client
}

func (r *riverRelay) fill(ctx context.Context, b *testing.B, events []event) {
	b.Helper()
	r.jobIDs = newIDs(len(events))
	client := r.client(b)
	next := 0
	for batch := range slices.Chunk(events, fillBatch) {
		params := make([]river.InsertManyParams, len(batch))
		for i, event := range batch {
			params[i] = river.InsertManyParams{
				Args:       publishArgs{ID: r.jobIDs[next], Key: event.key, KeySeq: event.keySeq, Payload: event.payload},
				InsertOpts: &river.InsertOpts{Queue: queueName(next % r.config.numQueues)},
			}
			next++
		}
		err := pgtx.Do(ctx, r.pool, func(tx pgx.Tx) error {
			_, err := client.InsertManyFastTx(ctx, tx, params)
			return err
		})
		require.NoError(b, err)
	}
	settle(ctx, b, r.pool)
}

func (r *riverRelay) start(ctx context.Context, b *testing.B) (stop func()) {
	b.Helper()
	client := r.client(b)
	require.NoError(b, client.Start(ctx))
	return func() { require.NoError(b, client.StopAndCancel(context.WithoutCancel(ctx))) }
}

// isDone looks at the state of the jobs.
func (r *riverRelay) isDone(ctx context.Context, b *testing.B) bool {
	b.Helper()
	var open bool
	err := r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'retryable', 'running', 'scheduled', 'pending'))`).Scan(&open)
	require.NoError(b, err)
	return !open
}
