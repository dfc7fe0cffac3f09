package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
)

// BenchmarkEvidence measures one reading of all loops, as every process makes it every
// few seconds: on an empty database, and behind what a backup and a bulk import leave
// there. With -short everything is a tenth as much.
func BenchmarkEvidence(b *testing.B) {
	ctx := b.Context()
	world := newEvidenceWorld(ctx, b)
	scale := 1_000_000
	if testing.Short() {
		scale = 100_000
	}

	world.measure(ctx, b, "Empty")
	world.completeJobs(ctx, b, 5*scale)
	world.measure(ctx, b, "CompletedJobs")
	world.holdSnapshot(ctx, b)
	world.deliver(ctx, b, 3*scale)
	world.measure(ctx, b, "HeldSnapshot")
	world.beat(ctx, b, 3*scale/100)
	world.measure(ctx, b, "HeldSnapshotAndPasses")
	world.appendUncommitted(ctx, b, scale)
	world.measure(ctx, b, "AndUncommittedEvents")
	world.completeUncommitted(ctx, b, scale)
	world.measure(ctx, b, "AndUncommittedJobs")
}

// evidenceWorld is a database whose loops are watched.
type evidenceWorld struct {
	pool  *pgxpool.Pool
	sweep func()
}

func newEvidenceWorld(ctx context.Context, b *testing.B) *evidenceWorld {
	b.Helper()
	pool := openPool(ctx, b, dbtest.Durable(ctx, b).URL, 10)
	registry, err := freshness.New(freshness.Config{})
	require.NoError(b, err)
	require.NoError(b, pgtx.Do(ctx, pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	sweeper := outbox.NewSweeper(pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{Interval: time.Minute})
	world := &evidenceWorld{pool: pool, sweep: func() { require.NoError(b, sweeper.Sweep(ctx)) }}
	world.exec(ctx, b, `
		INSERT INTO loop_progress (loop, worker_id, last_success_at)
		SELECT loop, 'worker-' || n, clock_timestamp() FROM loop_contract, generate_series(1, 6) AS n`)
	return world
}

func (world *evidenceWorld) exec(ctx context.Context, b *testing.B, sql string, args ...any) {
	b.Helper()
	_, err := world.pool.Exec(ctx, sql, args...)
	require.NoError(b, err)
}

// open begins a transaction that stays open until the benchmark ends.
func (world *evidenceWorld) open(ctx context.Context, b *testing.B, options pgx.TxOptions) pgx.Tx {
	b.Helper()
	tx, err := world.pool.BeginTx(ctx, options)
	require.NoError(b, err)
	b.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(ctx)) })
	return tx
}

const insertCompleted = `
	INSERT INTO river_job (args, attempt, attempted_at, finalized_at, kind, max_attempts, queue, state)
	SELECT '{}', 1, at, at, contract.job_kind, 20, contract.queue, 'completed'
	FROM generate_series(1, $1::integer / 8) AS n
	CROSS JOIN LATERAL (SELECT clock_timestamp() - n * interval '1 ms' AS at) AS moment
	CROSS JOIN (SELECT job_kind, queue FROM loop_contract ORDER BY sort_order LIMIT 8) AS contract`

func (world *evidenceWorld) completeJobs(ctx context.Context, b *testing.B, num int) {
	b.Helper()
	world.exec(ctx, b, insertCompleted, num)
	world.exec(ctx, b, `VACUUM ANALYZE river_job`)
}

func (world *evidenceWorld) completeUncommitted(ctx context.Context, b *testing.B, num int) {
	b.Helper()
	_, err := world.open(ctx, b, pgx.TxOptions{}).Exec(ctx, insertCompleted, num)
	require.NoError(b, err)
}

func (world *evidenceWorld) holdSnapshot(ctx context.Context, b *testing.B) {
	b.Helper()
	tx := world.open(ctx, b, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead})
	_, err := tx.Exec(ctx, `SELECT count(*) FROM loop_contract`)
	require.NoError(b, err)
}

const insertEvents = `
	INSERT INTO outbox_delivery (id, place, stream, shard, key, created_at)
	SELECT $1::bigint + n, $1::bigint + n, (ARRAY['wallet', 'rolling', 'agent'])[1 + n % 3], n % 4, 'key-' || n % 1000, clock_timestamp()
	FROM generate_series(1, $2::integer) AS n`

// deliver appends and publishes events while the sweep goes on, as workers do.
func (world *evidenceWorld) deliver(ctx context.Context, b *testing.B, num int) {
	b.Helper()
	const batch = 10_000
	for first := 0; first < num; first += batch {
		world.exec(ctx, b, insertEvents, first, batch)
		world.exec(ctx, b, `
			UPDATE outbox_delivery SET attempts = 1, broker_ref = 'X/1', published_at = clock_timestamp()
			WHERE id > $1::bigint AND id <= $1::bigint + $2::integer`, first, batch)
		world.exec(ctx, b, `UPDATE outbox_shard SET num_published = num_published + $1::integer / 12, last_published_at = clock_timestamp()`, batch)
		if first/batch%10 == 9 {
			world.sweep()
		}
	}
}

// beat records passes: each writes the rows of its shard and its progress again.
func (world *evidenceWorld) beat(ctx context.Context, b *testing.B, num int) {
	b.Helper()
	world.exec(ctx, b, fmt.Sprintf(`
		DO $$
		BEGIN
			FOR n IN 1 .. %d LOOP
				UPDATE outbox_shard SET lease_epoch = lease_epoch + 1 WHERE stream = 'wallet' AND shard = n %% 4;
				UPDATE outbox_shard SET last_published_at = clock_timestamp() WHERE stream = 'wallet' AND shard = n %% 4;
				UPDATE loop_progress SET last_success_at = clock_timestamp(), last_items_at = clock_timestamp()
				WHERE loop = 'outbox_wallet' AND worker_id = 'worker-' || (1 + n %% 6);
				COMMIT;
			END LOOP;
		END;
		$$`, num))
}

func (world *evidenceWorld) appendUncommitted(ctx context.Context, b *testing.B, num int) {
	b.Helper()
	_, err := world.open(ctx, b, pgx.TxOptions{}).Exec(ctx, insertEvents, 1_000_000_000, num)
	require.NoError(b, err)
}

// measure reads the loops again and again over one connection.
func (world *evidenceWorld) measure(ctx context.Context, b *testing.B, name string) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		world.exec(ctx, b, `UPDATE loop_progress SET last_success_at = clock_timestamp()`)
		world.sweep()
		conn, err := world.pool.Acquire(ctx)
		require.NoError(b, err)
		defer conn.Release()
		readings := make([]time.Duration, 300)
		for i := range readings {
			started := time.Now()
			loops, err := freshness.ReadLoops(ctx, conn.Conn())
			readings[i] = time.Since(started)
			require.NoError(b, err)
			require.NotEmpty(b, loops)
		}
		first := readings[0]
		slices.Sort(readings)
		b.ReportMetric(float64(first.Microseconds())/1000, "first-ms")
		b.ReportMetric(float64(readings[150].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(readings[297].Microseconds())/1000, "p99-ms")
		b.ReportMetric(0, "ns/op")
	})
}
