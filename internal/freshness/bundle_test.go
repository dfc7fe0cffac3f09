package freshness_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// execer is a pool, a connection or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// rows writes the rows that a verdict is made from, at ages of the test's choice.
type rows struct {
	db  execer
	ctx context.Context
	t   testing.TB
}

func (rows rows) exec(sql string, args ...any) {
	rows.t.Helper()
	_, err := rows.db.Exec(rows.ctx, sql, args...)
	require.NoError(rows.t, err)
}

// baseline lets the age of loop count from so long ago.
func (rows rows) baseline(loop string, age time.Duration) {
	rows.exec(`UPDATE loop_contract SET baseline_at = clock_timestamp() - $2::interval WHERE loop = $1`, loop, age)
}

// succeeded is a worker's last success on loop.
func (rows rows) succeeded(loop, worker string, age time.Duration) {
	rows.exec(`
		INSERT INTO loop_progress (loop, worker_id, last_success_at)
		VALUES ($1, $2, clock_timestamp() - $3::interval)
		ON CONFLICT (loop, worker_id) DO UPDATE SET last_success_at = excluded.last_success_at
	`, loop, worker, age)
}

// failed are a worker's failures since the last success on loop.
func (rows rows) failed(loop, worker string, numFailures int, age time.Duration) {
	rows.exec(`
		INSERT INTO loop_progress (loop, worker_id, consecutive_failures, fleet_failures, last_error, last_failure_at)
		VALUES ($1, $2, $3, $3, 'no broker', clock_timestamp() - $4::interval)
		ON CONFLICT (loop, worker_id) DO UPDATE
		SET consecutive_failures = $3, fleet_failures = $3, last_error = 'no broker', last_failure_at = excluded.last_failure_at
	`, loop, worker, numFailures, age)
}

// job is a job of the loop in a state, attempted so long ago. finalizedAhead is
// by how much the clock of its worker was ahead.
func (rows rows) job(loop, state string, age, finalizedAhead time.Duration, metadata string) {
	rows.exec(`
		INSERT INTO river_job (args, attempt, attempted_at, finalized_at, kind, max_attempts, metadata, queue, state)
		VALUES (
			'{"shard": 0}', 1, clock_timestamp() - $3::interval,
			CASE WHEN $2 = 'completed' THEN clock_timestamp() + $4::interval END,
			$1, 20, $5::jsonb, $1, $2::river_job_state
		)
	`, loop, state, age, finalizedAhead, metadata)
}

// event is an undelivered event.
type event struct {
	age       time.Duration // since created_at
	delay     time.Duration // until not_before, of an event that failed; negative: over
	failedAgo time.Duration // since last_attempt_at, of an event that failed
	key       string
	parkedAgo time.Duration // since parked_at
	shard     int
	stream    string
}

func (rows rows) event(event event) {
	rows.exec(`
		WITH clock AS (SELECT clock_timestamp() AS now)
		INSERT INTO outbox_delivery (
			id, place, stream, shard, key, created_at, failures, last_attempt_at, not_before, parked_at, park_reason
		)
		SELECT
			next.id, next.id, $1, $2::integer, $3,
			now - $4::interval,
			CASE WHEN $5 <> interval '0' OR $7 <> interval '0' THEN 1 ELSE 0 END,
			CASE WHEN $6 <> interval '0' THEN now - $6 END,
			CASE WHEN $5 <> interval '0' THEN now + $5 END,
			CASE WHEN $7 <> interval '0' THEN now - $7 END,
			CASE WHEN $7 <> interval '0' THEN 'row' END
		FROM clock, (SELECT 1 + coalesce(max(id), 0) AS id FROM outbox_delivery) AS next
	`, event.stream, event.shard, event.key, event.age, event.delay, event.failedAgo, event.parkedAgo)
}

// published is the last acknowledgement of a shard.
func (rows rows) published(stream string, shard int, age time.Duration) {
	rows.exec(`
		UPDATE outbox_shard SET last_published_at = clock_timestamp() - $3::interval WHERE stream = $1 AND shard = $2
	`, stream, shard, age)
}

// registered returns the default loops, registered.
func registered(ctx context.Context, t testing.TB, db pgtx.Beginner) *freshness.Registry {
	t.Helper()
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, db, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	return registry
}

// txBundle is a transaction with the default loops, all of them an hour old.
func txBundle(ctx context.Context, t testing.TB) (pgx.Tx, rows) {
	t.Helper()
	tx := dbtest.Tx(ctx, t)
	registry := registered(ctx, t, tx)
	rows := rows{ctx: ctx, db: tx, t: t}
	for _, loop := range registry.Loops() {
		rows.baseline(loop.Name, time.Hour)
	}
	return tx, rows
}

// statusOf returns the row of worker_freshness of one loop.
func statusOf(ctx context.Context, t testing.TB, db pgx.Tx, name string) freshness.LoopStatus {
	t.Helper()
	loops, err := freshness.ReadLoops(ctx, db)
	require.NoError(t, err)
	for _, loop := range loops {
		if loop.Loop == name {
			// ReadLoops asks for it only where it matters.
			require.NoError(t, db.QueryRow(ctx, `SELECT last_completed_job_at FROM worker_freshness WHERE loop = $1`, name).Scan(&loop.LastCompletedJobAt))
			return loop
		}
	}
	require.Failf(t, "no such loop", "worker_freshness has no row for %s", name)
	return freshness.LoopStatus{}
}
