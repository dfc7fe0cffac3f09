package outbox_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// jobs returns "kind shard" of the jobs that wait, after one sweep.
func (bundle *testBundle) sweep(ctx context.Context, t *testing.T) []string {
	t.Helper()
	sweeper := outbox.NewSweeper(bundle.db.Pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{})
	require.NoError(t, sweeper.Sweep(ctx))
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT kind || ' ' || (args ->> 'shard') FROM river_job
		WHERE state = 'available' AND scheduled_at <= clock_timestamp() ORDER BY 1`)
	require.NoError(t, err)
	jobs, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return jobs
}

// prove lets no stream be in want of proof.
func (bundle *testBundle) prove(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.exec(ctx, t, `
		INSERT INTO loop_contract (loop, budget, gates_readiness, job_kind, late_after, pass_interval, queue, red_after, sort_order)
		SELECT job_kind, '10 s', true, job_kind, '45 s', '5 s', queue, '60 s', 1 FROM outbox_stream`)
	bundle.exec(ctx, t, `INSERT INTO loop_progress (loop, worker_id, last_success_at) SELECT job_kind, 'test', now() FROM outbox_stream`)
}

func TestSweeper_Sweep(t *testing.T) {
	t.Parallel()

	// lost sets up one due event whose wake-up got lost.
	lost := func(ctx context.Context, t *testing.T) (*testBundle, string) {
		t.Helper()
		bundle := setup(ctx, t)
		bundle.prove(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		bundle.exec(ctx, t, `DELETE FROM river_job`)
		return bundle, key
	}

	t.Run("InsertsAJobForAWakeUpThatGotLost", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle, _ := lost(ctx, t)
		require.Equal(t, []string{"outbox_rolling 0"}, bundle.sweep(ctx, t))
		require.Equal(t, []string{"outbox_rolling 0"}, bundle.sweep(ctx, t), "and no second one")
	})

	t.Run("InsertsNothingWhereNothingIsDue", func(t *testing.T) {
		t.Parallel()
		for name, change := range map[string]string{
			"published":            `UPDATE outbox_delivery SET published_at = now(), broker_ref = 'STUB/1'`,
			"parked":               `UPDATE outbox_delivery SET parked_at = now(), park_reason = 'test'`,
			"delayed":              `UPDATE outbox_delivery SET not_before = now() + interval '1 hour'`,
			"shard rests":          `UPDATE outbox_shard SET backoff_until = now() + interval '1 hour'`,
			"retry comes soon":     `INSERT INTO river_job (args, kind, max_attempts, queue, state, scheduled_at) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'retryable', now() + interval '500 ms')`,
			"leaseholder is alive": `WITH j AS (INSERT INTO river_job (args, kind, max_attempts, queue, state) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'running')) UPDATE outbox_shard SET lease_owner = 'x', lease_expires_at = now() + interval '5 s' WHERE stream = 'rolling' AND shard = 0`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle, _ := lost(ctx, t)
				bundle.exec(ctx, t, change)
				require.Empty(t, bundle.sweep(ctx, t))
			})
		}
	})

	t.Run("DoesNotCountAJobThatCannotHelp", func(t *testing.T) {
		t.Parallel()
		for name, change := range map[string]string{
			"retry far away":        `INSERT INTO river_job (args, kind, max_attempts, queue, state, scheduled_at) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'retryable', now() + interval '10 min')`,
			"another shard's":       `INSERT INTO river_job (args, kind, max_attempts, queue, state, scheduled_at) VALUES ('{"shard": 1}', 'outbox_rolling', 20, 'outbox_rolling', 'retryable', now())`,
			"leaseholder is dead":   `WITH j AS (INSERT INTO river_job (args, kind, max_attempts, queue, state) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'running')) UPDATE outbox_shard SET lease_owner = 'x', lease_expires_at = now() - interval '1 s' WHERE stream = 'rolling' AND shard = 0`,
			"died before it leased": `INSERT INTO river_job (args, kind, max_attempts, queue, state) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'running')`,
			"was discarded":         `INSERT INTO river_job (args, kind, max_attempts, queue, state, finalized_at) VALUES ('{"shard": 0}', 'outbox_rolling', 20, 'outbox_rolling', 'discarded', now())`,
			"own backoff was over":  `UPDATE outbox_delivery SET not_before = now() - interval '1 s'`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle, _ := lost(ctx, t)
				bundle.exec(ctx, t, change)
				require.Equal(t, []string{"outbox_rolling 0"}, bundle.sweep(ctx, t))
			})
		}
	})

	t.Run("InsertsAJobThoughTheCursorCannotBeNoted", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle, _ := lost(ctx, t)
		bundle.exec(ctx, t, `ALTER TABLE outbox_cursor ADD CHECK (stream = '') NOT VALID`)
		sweeper := outbox.NewSweeper(bundle.db.Pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{Interval: time.Minute})
		require.ErrorContains(t, sweeper.Sweep(ctx), "note where searches for undelivered events begin")
		var numJobs int
		bundle.scan(ctx, t, &numJobs, `SELECT count(*) FROM river_job WHERE kind = 'outbox_rolling'`)
		require.Equal(t, 1, numJobs)
	})

	t.Run("AsksAnIdleStreamForProof", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.prove(ctx, t)
		bundle.exec(ctx, t, `UPDATE loop_progress SET last_success_at = now() - interval '1 min' WHERE loop = 'outbox_agent'`)
		require.Equal(t, []string{"outbox_agent 0"}, bundle.sweep(ctx, t))
	})

	t.Run("AsksNoProofOfAStreamThatHasWork", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle, _ := lost(ctx, t)
		bundle.exec(ctx, t, `UPDATE loop_progress SET last_success_at = now() - interval '1 min' WHERE loop = 'outbox_rolling'`)
		bundle.exec(ctx, t, `
			ALTER TABLE outbox_delivery DISABLE TRIGGER outbox_delivery_of_one_event;
			UPDATE outbox_delivery SET shard = 2;
			ALTER TABLE outbox_delivery ENABLE TRIGGER outbox_delivery_of_one_event`)
		require.Equal(t, []string{"outbox_rolling 2"}, bundle.sweep(ctx, t))
	})
}
