package freshness_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// TestComplete_Swallowed: the database may keep the update that completes a job from its
// row, and report no error.
func TestComplete_Swallowed(t *testing.T) {
	t.Parallel()

	for _, way := range dbtest.Ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			bundle := setupCompletion(ctx, t)
			failed := make(chan error, 1)
			client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
				dbtest.Swallow(ctx, t, bundle.db.Pool, way, "river_job", "UPDATE")
				err := bundle.pass(ctx, job, freshness.Success)
				failed <- err
				return err
			})
			_, err := client.Insert(ctx, passArgs{}, nil)
			require.NoError(t, err)
			require.Error(t, <-failed)
			require.Zero(t, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
			require.Nil(t, bundle.status(ctx, t).LastSuccessAt)
		})
	}
}

// TestRecorder_Record_Swallowed: so are progress, and what is expected of loops.
func TestRecorder_Record_Swallowed(t *testing.T) {
	t.Parallel()

	for _, way := range dbtest.Ways {
		for _, kind := range []freshness.Kind{freshness.Success, freshness.Failure, freshness.Neutral} {
			t.Run(way+" "+kind.String(), func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				db := dbtest.Database(ctx, t)
				registered(ctx, t, db.Pool)
				record := func() error {
					return pgtx.Do(ctx, db.Pool, func(tx pgx.Tx) error {
						return newRecorder(t, "w1").Record(ctx, tx, freshness.Progress{Kind: kind, Loop: loop})
					})
				}
				require.NoError(t, record())
				dbtest.Swallow(ctx, t, db.Pool, way, "loop_progress", "INSERT", "UPDATE")
				require.Error(t, record())
			})
		}
	}

	t.Run("Contracts", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Database(ctx, t)
		registry := registered(ctx, t, db.Pool)
		dbtest.Swallow(ctx, t, db.Pool, "trigger", "loop_contract", "INSERT", "UPDATE")
		err := pgtx.Do(ctx, db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) })
		require.ErrorIs(t, err, pgtx.ErrRowCount)

		client, err := river.NewClient(riverpgxv5.New(db.Pool), &river.Config{})
		require.NoError(t, err)
		for _, decide := range []func(pgx.Tx) error{
			func(tx pgx.Tx) error {
				return freshness.Pause(ctx, tx, client, freshness.Decision{By: "ana", Loop: loop, Reason: "why"})
			},
			func(tx pgx.Tx) error {
				return freshness.Resume(ctx, tx, client, freshness.Decision{By: "ana", Loop: loop})
			},
		} {
			require.ErrorIs(t, pgtx.Do(ctx, db.Pool, decide), pgtx.ErrRowCount)
		}
	})
}

// TestMonitor_Swallowed: others read of a process's health in its heartbeat.
func TestMonitor_Swallowed(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setupMonitor(ctx, t, nil)
	fetching(ctx, bundle)
	bundle.ready(t)
	dbtest.Swallow(ctx, t, bundle.db.Pool, "trigger", "worker_heartbeat", "INSERT", "UPDATE")
	bundle.unready(t, freshness.CodeSnapshotStale)

	_, err := bundle.db.Pool.Exec(ctx, `DROP FUNCTION swallow CASCADE`)
	require.NoError(t, err)
	bundle.ready(t)
}
