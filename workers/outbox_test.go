package workers_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/jobs"
	"truegreen/workers"
)

// switchBroker acknowledges while it is on.
type switchBroker struct {
	on     atomic.Bool
	number atomic.Int64
}

func (broker *switchBroker) Publish(_ context.Context, events []outbox.Event) []outbox.Outcome {
	outcomes := make([]outbox.Outcome, len(events))
	for i := range outcomes {
		outcomes[i] = outbox.Outcome{Class: outbox.ClassInfrastructure, Err: errors.New("switched off")}
		if broker.on.Load() {
			broker.number.Add(1)
			outcomes[i] = outbox.Outcome{BrokerRef: "SWITCH/1", Class: outbox.ClassAcknowledged}
		}
	}
	return outcomes
}

func (broker *switchBroker) Prove(context.Context, outbox.Stream) error { return nil }

type testBundle struct {
	broker *switchBroker
	client *river.Client[pgx.Tx]
	db     *dbtest.DB
}

// setup runs a real client on the rolling queue.
func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	bundle := &testBundle{broker: &switchBroker{}, db: dbtest.Database(ctx, t)}
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	recorder, err := freshness.NewRecorder("test")
	require.NoError(t, err)
	relay, err := outbox.NewRelay(bundle.db.Pool, bundle.broker, recorder, outbox.Config{WorkerID: "test"})
	require.NoError(t, err)
	streams, err := outbox.Streams(ctx, bundle.db.Pool)
	require.NoError(t, err)
	registered, err := workers.Register(workers.Services{Recorder: recorder, Relay: relay, Streams: streams})
	require.NoError(t, err)
	bundle.client, err = river.NewClient(riverpgxv5.New(bundle.db.Pool), &river.Config{
		FetchCooldown: time.Millisecond,
		Logger:        slog.New(slog.DiscardHandler),
		Middleware:    []rivertype.Middleware{workers.NewLogMiddleware(slog.New(slog.DiscardHandler))},
		Queues:        workers.Queues(streams, []string{jobs.QueueOutboxRolling}),
		Workers:       registered,
	})
	require.NoError(t, err)
	require.NoError(t, bundle.client.Start(ctx))
	t.Cleanup(func() { require.NoError(t, bundle.client.StopAndCancel(context.WithoutCancel(ctx))) })
	return bundle
}

func (bundle *testBundle) stage(ctx context.Context, t *testing.T) {
	t.Helper()
	_, err := bundle.db.Pool.Exec(ctx, `SELECT outbox_append('rolling', 'k', 'rolling.accrued.v1', '{}')`)
	require.NoError(t, err)
}

// waitFor waits until a query is true.
func (bundle *testBundle) waitFor(ctx context.Context, t *testing.T, query string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var is bool
		return bundle.db.Pool.QueryRow(ctx, query).Scan(&is) == nil && is
	}, time.Minute, 10*time.Millisecond, query)
}

func TestOutboxWorker_Work(t *testing.T) {
	t.Parallel()

	t.Run("CompletesAJobWhoseEventsAreAllAcknowledged", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.broker.on.Store(true)
		bundle.stage(ctx, t)
		bundle.waitFor(ctx, t, `SELECT EXISTS (SELECT FROM river_job WHERE kind = 'outbox_rolling' AND state = 'completed')
			AND NOT EXISTS (SELECT FROM outbox_events WHERE state <> 'published')`)
		bundle.waitFor(ctx, t, `SELECT last_success_at IS NOT NULL AND last_items_at IS NOT NULL FROM loop_progress WHERE loop = 'outbox_rolling'`)
	})

	t.Run("LeavesAnErroredAttemptForWhatWasNotDelivered", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.stage(ctx, t)
		// The attempt, its error and its next time, which is when the shard may be
		// tried again and not much later.
		bundle.waitFor(ctx, t, `SELECT EXISTS (
			SELECT FROM job_failures JOIN river_job ON river_job.id = job_id
			WHERE error LIKE '%1 events not delivered, 0 acknowledged%switched off%'
				AND river_job.state IN ('available', 'retryable')
				AND scheduled_at > attempted_at AND scheduled_at < attempted_at + interval '15 s')`)
		bundle.waitFor(ctx, t, `SELECT NOT EXISTS (SELECT FROM river_job WHERE state IN ('completed', 'cancelled'))`)
		bundle.waitFor(ctx, t, `SELECT consecutive_failures > 0 AND last_success_at IS NULL FROM loop_progress WHERE loop = 'outbox_rolling'`)

		// The same job comes back by itself, without a sweep, and delivers.
		bundle.broker.on.Store(true)
		bundle.waitFor(ctx, t, `SELECT EXISTS (SELECT FROM river_job WHERE attempt > 1 AND state = 'completed' AND cardinality(errors) > 0)`)
		bundle.waitFor(ctx, t, `SELECT NOT EXISTS (SELECT FROM outbox_events WHERE state <> 'published')`)
	})

	t.Run("RefusesAShardThatDoesNotExist", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		_, err := bundle.client.Insert(ctx, jobs.OutboxRollingArgs{Shard: 99}, nil)
		require.NoError(t, err)
		bundle.waitFor(ctx, t, `SELECT EXISTS (SELECT FROM job_failures WHERE error LIKE '%shard 99 of rolling: there are shards 0 to 3%')`)
	})
}

func TestRegister(t *testing.T) {
	t.Parallel()
	_, err := workers.Register(workers.Services{})
	require.ErrorContains(t, err, "does not know outbox stream wallet")
}
