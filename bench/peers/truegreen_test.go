package peers_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/publish/natspublish"
	"truegreen/workers"
)

// truegreenRelay is the relay of this project, as a process runs it.
type truegreenRelay struct {
	eventIDs  []string
	pool      *pgxpool.Pool
	publisher *natspublish.Publisher
	streams   []outbox.Stream
}

func newTruegreen(ctx context.Context, b *testing.B, br *broker) *truegreenRelay {
	b.Helper()
	r := &truegreenRelay{pool: openPool(ctx, b, 40, map[string]string{
		// As the process's relay has them.
		"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan",
	})}
	var err error
	r.publisher, err = natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: 3 * time.Second, URL: br.server.URL()})
	require.NoError(b, err)
	b.Cleanup(r.publisher.Close)
	r.streams, err = outbox.Streams(ctx, r.pool)
	require.NoError(b, err)
	for _, stream := range r.streams {
		_, err := r.publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: 11 * time.Second, Stream: stream.Name})
		require.NoError(b, err)
	}
	registry, err := freshness.New(freshness.Config{})
	require.NoError(b, err)
	require.NoError(b, pgtx.Do(ctx, r.pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	return r
}

func (*truegreenRelay) stream() string { return natspublish.StreamName(outbox.StreamWallet) }

func (r *truegreenRelay) database() *pgxpool.Pool { return r.pool }

func (r *truegreenRelay) ids() []string { return r.eventIDs }

func (r *truegreenRelay) fill(ctx context.Context, b *testing.B, events []event) {
	b.Helper()
	r.eventIDs = make([]string, 0, len(events))
	for batch := range slices.Chunk(events, fillBatch) {
		var keys, types, payloads []string
		var keySeqs []int64
		for _, event := range batch {
			keys = append(keys, event.key)
			keySeqs = append(keySeqs, event.keySeq)
			payloads = append(payloads, string(event.payload))
			types = append(types, eventType)
		}
		var stored []string
		err := r.pool.QueryRow(ctx,
			`SELECT outbox_append_many('wallet', $1, $2, $3::text[]::jsonb[], key_seqs => $4)::text[]`,
			keys, types, payloads, keySeqs).Scan(&stored)
		require.NoError(b, err)
		r.eventIDs = append(r.eventIDs, stored...)
	}
	settle(ctx, b, r.pool)
}

func (r *truegreenRelay) start(ctx context.Context, b *testing.B) (stop func()) {
	b.Helper()
	recorder, err := freshness.NewRecorder("bench")
	require.NoError(b, err)
	relay, err := outbox.NewRelay(r.pool, r.publisher, recorder, outbox.Config{WorkerID: "bench"})
	require.NoError(b, err)
	registered, err := workers.Register(workers.Services{Recorder: recorder, Relay: relay, Streams: r.streams})
	require.NoError(b, err)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := river.NewClient(riverpgxv5.New(r.pool), &river.Config{
		FetchCooldown:        time.Millisecond,
		JobTimeout:           relay.PassBudget(),
		Logger:               logger,
		Queues:               workers.Queues(r.streams, []string{"outbox_wallet", "outbox_rolling"}),
		RescueStuckJobsAfter: 90 * time.Second,
		Workers:              registered,
	})
	require.NoError(b, err)
	require.NoError(b, client.Start(ctx))
	sweepCtx, stopSweep := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		outbox.NewSweeper(r.pool, logger, outbox.SweeperConfig{}).Run(sweepCtx)
	}()
	return func() {
		stopSweep()
		<-done
		require.NoError(b, client.StopAndCancel(context.WithoutCancel(ctx)))
	}
}

// isDone looks at every event's acknowledgement.
func (r *truegreenRelay) isDone(ctx context.Context, b *testing.B) bool {
	b.Helper()
	var open bool
	err := r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM outbox_delivery WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL)`).Scan(&open)
	require.NoError(b, err)
	return !open
}
