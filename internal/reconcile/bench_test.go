package reconcile_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/reconcile"
)

// numBenchEvents is how many rows and messages are compared, of a tenth as many keys.
const numBenchEvents = 1_000_000

// tableSource reads a table instead of a broker, and notes how large the heap grew.
type tableSource struct {
	maxHeap uint64
	pool    *pgxpool.Pool
}

func (source *tableSource) Read(ctx context.Context, _ string, each func(reconcile.Message) error) (reconcile.Extent, error) {
	extent := reconcile.Extent{First: 1, Last: numBenchEvents, Name: "TRUEGREEN_ROLLING"}
	rows, err := source.pool.Query(ctx, "SELECT event_id::text, key, key_seq, sequence, type FROM bench_message ORDER BY sequence")
	if err != nil {
		return extent, err
	}
	message := reconcile.Message{StoredAt: time.Now()}
	var sequence int64
	_, err = pgx.ForEachRow(rows, []any{&message.EventID, &message.Key, &message.KeySeq, &sequence, &message.Type}, func() error {
		message.Sequence = uint64(sequence)
		if sequence%100_000 == 0 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			source.maxHeap = max(source.maxHeap, stats.HeapSys)
		}
		return each(message)
	})
	return extent, err
}

func BenchmarkRun(b *testing.B) {
	ctx := b.Context()
	db := dbtest.Database(ctx, b)
	for _, sql := range []string{
		`INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
		SELECT 'player-' || n % 100000, n / 100000 + 1, jsonb_build_object('amount', n::text, 'currency', 'KRW', 'balance', (n * 7)::text), 0, 'rolling', 'rolling.accrued.v1'
		FROM generate_series(0, 999999) AS n`,
		`INSERT INTO outbox_delivery (id, attempts, broker_ref, created_at, key, place, published_at, shard, stream)
		SELECT id, 1, 'TRUEGREEN_ROLLING/' || id, created_at, key, id, clock_timestamp(), shard, stream FROM outbox_event`,
		`CREATE UNLOGGED TABLE bench_message AS SELECT id AS sequence, event_id, key, key_seq, type FROM outbox_event`,
		`INSERT INTO outbox_key (stream, key, last_seq) SELECT stream, key, max(key_seq) FROM outbox_event GROUP BY stream, key`,
		`INSERT INTO river_job (args, attempted_at, finalized_at, kind, max_attempts, metadata, queue, state)
		SELECT jsonb_build_object('shard', n % 4), now(), now(), 'outbox_rolling', 20,
			jsonb_build_object('output', jsonb_build_object('result', jsonb_build_object('first_id', n, 'last_id', n + 400, 'num_failed', 0, 'num_published', 5))), 'outbox_rolling', 'completed'
		FROM generate_series(1, 999000, 50) AS n`,
		`ANALYZE`,
	} {
		_, err := db.Pool.Exec(ctx, sql)
		require.NoError(b, err)
	}
	source := &tableSource{pool: db.Pool}
	for b.Loop() {
		report, err := reconcile.Run(ctx, db.Pool, source, reconcile.Options{Streams: []string{rolling}})
		require.NoError(b, err)
		require.Zero(b, report.NumOpen())
		require.EqualValues(b, numBenchEvents, report.Streams[0].NumMessages)
	}
	b.ReportMetric(float64(source.maxHeap)/(1<<20), "MB-heap")
	b.ReportMetric(float64(numBenchEvents)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
