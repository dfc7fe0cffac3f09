package bench_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/publish/natspublish"
	"truegreen/workers"
)

// payload is 500 bytes of JSON, as events are.
func payload() []byte {
	return fmt.Appendf(nil, `{"amount":"1000","note":"%s"}`, strings.Repeat("x", 471))
}

// stack is a durable database and a broker, as one process would have them.
type stack struct {
	broker    *devstack.NATS
	owed      atomic.Int64 // how many events there are for the relay
	pool      *pgxpool.Pool
	publisher *natspublish.Publisher
	streams   []outbox.Stream
}

func setup(ctx context.Context, b *testing.B) *stack {
	b.Helper()
	// Not b.TempDir: files of a stopped server may still be under removal.
	dir, err := os.MkdirTemp("", "truegreen-bench-")
	require.NoError(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &stack{pool: openPool(ctx, b, dbtest.Durable(ctx, b).URL, 40)}
	s.broker, err = devstack.StartNATS(devstack.NATSConfig{StoreDir: dir})
	require.NoError(b, err)
	b.Cleanup(s.broker.Stop)
	s.publisher, err = natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: 3 * time.Second, URL: s.broker.URL()})
	require.NoError(b, err)
	b.Cleanup(s.publisher.Close)
	s.streams, err = outbox.Streams(ctx, s.pool)
	require.NoError(b, err)
	s.emptyBroker(ctx, b)
	return s
}

// emptyBroker makes the streams anew, so that nobody pays for what another left.
func (s *stack) emptyBroker(ctx context.Context, b *testing.B) {
	b.Helper()
	conn, err := nats.Connect(s.broker.URL())
	require.NoError(b, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(b, err)
	for _, stream := range s.streams {
		err := js.DeleteStream(ctx, natspublish.StreamName(stream.Name))
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			require.NoError(b, err)
		}
		_, err = s.publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: 11 * time.Second, Stream: stream.Name})
		require.NoError(b, err)
	}
}

// openPool sets what the process's own pools have.
func openPool(ctx context.Context, b *testing.B, url string, maxConns int32) *pgxpool.Pool {
	b.Helper()
	config, err := pgxpool.ParseConfig(url)
	require.NoError(b, err)
	config.MaxConns = maxConns
	for name, value := range map[string]string{
		"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}

// startWorkers runs publish jobs and sweeps, as that many processes do, until the
// stop that it returns is called.
func (s *stack) startWorkers(ctx context.Context, b *testing.B, num int) (stop func()) {
	b.Helper()
	var stops []func()
	for n := range num {
		stops = append(stops, s.startWorker(ctx, b, fmt.Sprintf("bench-%d", n)))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

func (s *stack) startWorker(ctx context.Context, b *testing.B, id string) (stop func()) {
	b.Helper()
	registry, err := freshness.New(freshness.Config{})
	require.NoError(b, err)
	require.NoError(b, pgtx.Do(ctx, s.pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	recorder, err := freshness.NewRecorder(id)
	require.NoError(b, err)
	relay, err := outbox.NewRelay(s.pool, s.publisher, recorder, outbox.Config{WorkerID: id})
	require.NoError(b, err)
	registered, err := workers.Register(workers.Services{Recorder: recorder, Relay: relay, Streams: s.streams})
	require.NoError(b, err)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := river.NewClient(riverpgxv5.New(s.pool), &river.Config{
		FetchCooldown:        time.Millisecond,
		ID:                   id,
		JobTimeout:           relay.PassBudget(),
		Logger:               logger,
		Queues:               workers.Queues(s.streams, []string{"outbox_wallet", "outbox_rolling"}),
		RescueStuckJobsAfter: 90 * time.Second,
		Workers:              registered,
	})
	require.NoError(b, err)
	require.NoError(b, client.Start(ctx))
	sweepCtx, stopSweep := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		outbox.NewSweeper(s.pool, logger, outbox.SweeperConfig{}).Run(sweepCtx)
	}()
	return func() {
		stopSweep()
		<-done
		require.NoError(b, client.StopAndCancel(context.WithoutCancel(ctx)))
	}
}

// waitDrained waits until the relay has delivered all that it owes. It reads the
// counts of the shards: a search for what is undelivered would be work of its own.
func (s *stack) waitDrained(ctx context.Context, b *testing.B) {
	b.Helper()
	for {
		var numPublished int64
		err := s.pool.QueryRow(ctx, `SELECT sum(num_published)::bigint FROM outbox_shard`).Scan(&numPublished)
		require.NoError(b, err)
		if numPublished >= s.owed.Load() {
			return
		}
		require.NoError(b, ctx.Err())
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

// stage stores pending wallet events, each key's in order. key is SQL for the key
// of the event that n numbers, from 0; firstSeq is the number of a key's first.
func (s *stack) stage(ctx context.Context, b *testing.B, key string, firstSeq, numEvents int) {
	b.Helper()
	_, err := s.pool.Exec(ctx, `
		WITH numbered AS (
			SELECT n, `+key+` AS key FROM generate_series(0, $1 - 1) AS n
		), stored AS (
			INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
			SELECT key, $2 + row_number() OVER (PARTITION BY key ORDER BY n) - 1, $3::jsonb, outbox_shard_of(key, 4), 'wallet', 'wallet.staked.v1'
			FROM numbered ORDER BY n
			RETURNING id, created_at, key, shard, stream
		)
		INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
		SELECT id, created_at, key, id, shard, stream FROM stored`, numEvents, firstSeq, string(payload()))
	require.NoError(b, err)
	s.owed.Add(int64(numEvents))
	for _, rest := range []string{`VACUUM ANALYZE outbox_event, outbox_delivery`, `CHECKPOINT`} {
		_, err = s.pool.Exec(ctx, rest)
		require.NoError(b, err)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
