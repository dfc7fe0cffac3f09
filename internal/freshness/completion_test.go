package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// completionBundle is a database of its own with a table for effects, one row
// per time that a job's effect was committed.
type completionBundle struct {
	db       *dbtest.DB
	recorder *freshness.Recorder
}

func setupCompletion(ctx context.Context, t *testing.T) *completionBundle {
	t.Helper()
	db := dbtest.Database(ctx, t)
	registered(ctx, t, db.Pool)
	_, err := db.Pool.Exec(ctx, `CREATE TABLE effect (job_id bigint NOT NULL)`)
	require.NoError(t, err)
	return &completionBundle{db: db, recorder: newRecorder(t, "w1")}
}

// pass commits an effect with its proof and its end.
func (bundle *completionBundle) pass(ctx context.Context, job *river.Job[passArgs], kind freshness.Kind) error {
	return pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO effect (job_id) VALUES ($1)`, job.ID); err != nil {
			return fmt.Errorf("store effect: %w", err)
		}
		complete := freshness.Completes(bundle.recorder, job)
		return complete(ctx, tx, freshness.Progress{Kind: kind, Loop: loop, NumItems: 1})
	})
}

// rescue does what River's rescuer does with a job whose worker it takes for
// dead.
func (bundle *completionBundle) rescue(ctx context.Context, jobID int64, state rivertype.JobState) error {
	_, err := bundle.db.Pool.Exec(ctx, `
		UPDATE river_job SET state = $2::river_job_state, scheduled_at = now() WHERE id = $1
	`, jobID, state)
	return err
}

// waitFor waits, inside a worker, until the query finds a row.
func (bundle *completionBundle) waitFor(ctx context.Context, sql string) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		var num int
		if err := bundle.db.Pool.QueryRow(ctx, sql).Scan(&num); err != nil || num > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (bundle *completionBundle) count(ctx context.Context, t *testing.T, sql string) (num int) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, sql).Scan(&num))
	return num
}

func (bundle *completionBundle) completed(ctx context.Context, t *testing.T) func() bool {
	return func() bool {
		return bundle.count(ctx, t, `SELECT count(*) FROM river_job WHERE state = 'completed'`) == 1
	}
}

func (bundle *completionBundle) status(ctx context.Context, t *testing.T) (status freshness.LoopStatus) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		status = statusOf(ctx, t, tx, loop)
		return nil
	}))
	return status
}

func TestCompletes(t *testing.T) {
	t.Parallel()

	t.Run("JoinsEffectProofAndEnd", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			return bundle.pass(ctx, job, freshness.Success)
		})
		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		eventually(t, bundle.completed(ctx, t), "the job completes")
		require.Equal(t, 1, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
		status := bundle.status(ctx, t)
		require.Equal(t, freshness.VerdictOK, status.Verdict)
		require.NotNil(t, status.LastCompletedJobAt)
		require.True(t, status.LastSuccessAt.After(*status.LastCompletedJobAt))
	})

	t.Run("KeepsNeutralCompletionsFromLookingLikeWork", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		kind := freshness.Neutral
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			return bundle.pass(ctx, job, kind)
		})
		inserted, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		eventually(t, bundle.completed(ctx, t), "the job completes")
		status := bundle.status(ctx, t)
		require.Nil(t, status.LastCompletedJobAt)
		require.Nil(t, status.LastSuccessAt)

		// Run again, as River UI does, it succeeds: no longer neutral.
		kind = freshness.Success
		_, err = client.JobRetry(ctx, inserted.Job.ID)
		require.NoError(t, err)
		eventually(t, func() bool { return bundle.status(ctx, t).LastCompletedJobAt != nil }, "the completion counts")
	})

	t.Run("RefusesAFailedPass", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			return bundle.pass(ctx, job, freshness.Failure)
		})
		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		eventually(t, func() bool {
			return bundle.count(ctx, t, `SELECT count(*) FROM river_job WHERE cardinality(errors) > 0`) == 1
		}, "the attempt errors")
		require.Zero(t, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
	})

	t.Run("ACompletionWithoutProofTurnsIntoASilentNoop", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		client := startRiver(ctx, t, bundle.db, nil, func(context.Context, *river.Job[passArgs]) error { return nil })
		rows := rows{ctx: ctx, db: bundle.db.Pool, t: t}
		rows.succeeded(loop, "w1", 50*time.Second)
		rows.baseline(loop, time.Hour)
		require.Equal(t, freshness.VerdictLate, bundle.status(ctx, t).Verdict)

		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		eventually(t, bundle.completed(ctx, t), "the job completes")
		require.Equal(t, freshness.VerdictSilentNoop, bundle.status(ctx, t).Verdict)
	})
}

// TestComplete_Zombie plays a worker that River took for dead: its job was given
// to another while it went on.
func TestComplete_Zombie(t *testing.T) {
	t.Parallel()

	t.Run("EndsAfterItsSuccessorCompleted", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		var attempts atomic.Int32
		zombie := make(chan error, 1)
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			if attempts.Add(1) > 1 {
				return bundle.pass(ctx, job, freshness.Success)
			}
			if err := bundle.rescue(ctx, job.ID, rivertype.JobStateAvailable); err != nil {
				return err
			}
			err := bundle.waitFor(ctx, `SELECT count(*) FROM river_job WHERE state = 'completed'`)
			if err == nil {
				err = bundle.pass(ctx, job, freshness.Success)
			}
			zombie <- err
			return err
		})
		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		require.ErrorIs(t, <-zombie, freshness.ErrFenceLost)
		require.Equal(t, 1, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
		require.Equal(t, 1, bundle.count(ctx, t, `SELECT count(*) FROM river_job WHERE state = 'completed'`))
	})

	t.Run("EndsWhileItsSuccessorRuns", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		var attempts atomic.Int32
		successorRuns, zombie := make(chan struct{}), make(chan error, 1)
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			switch attempts.Add(1) {
			case 1:
				if err := bundle.rescue(ctx, job.ID, rivertype.JobStateAvailable); err != nil {
					return err
				}
				<-successorRuns
				err := bundle.pass(ctx, job, freshness.Success)
				zombie <- err
				return err
			case 2:
				close(successorRuns)
				// The zombie's error makes River give this attempt up too.
				if err := bundle.waitFor(ctx, `SELECT count(*) FROM river_job WHERE cardinality(errors) > 0`); err != nil {
					return err
				}
			}
			return bundle.pass(ctx, job, freshness.Success)
		})
		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		require.ErrorIs(t, <-zombie, freshness.ErrFenceLost)
		eventually(t, bundle.completed(ctx, t), "a later attempt completes")
		require.Equal(t, 1, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
	})

	t.Run("EndsWhileNobodyRunsIt", func(t *testing.T) {
		t.Parallel()

		for _, state := range []rivertype.JobState{rivertype.JobStateRetryable, rivertype.JobStateAvailable} {
			ctx := t.Context()
			bundle := setupCompletion(ctx, t)
			zombie := make(chan error, 1)
			client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
				_, err := bundle.db.Pool.Exec(ctx, `
					UPDATE river_job SET state = $2::river_job_state, scheduled_at = now() + interval '1 hour' WHERE id = $1
				`, job.ID, state)
				if err == nil {
					err = bundle.pass(ctx, job, freshness.Success)
				}
				zombie <- err
				return err
			})
			_, err := client.Insert(ctx, passArgs{}, nil)
			require.NoError(t, err)
			require.ErrorIs(t, <-zombie, freshness.ErrFenceLost)
			require.Zero(t, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
			require.Nil(t, bundle.status(ctx, t).LastSuccessAt)
		}
	})

	t.Run("EndsAfterItsJobWasDeleted", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupCompletion(ctx, t)
		zombie := make(chan error, 1)
		client := startRiver(ctx, t, bundle.db, nil, func(ctx context.Context, job *river.Job[passArgs]) error {
			_, err := bundle.db.Pool.Exec(ctx, `DELETE FROM river_job`)
			zombie <- errors.Join(err, bundle.pass(ctx, job, freshness.Success))
			return nil
		})
		_, err := client.Insert(ctx, passArgs{}, nil)
		require.NoError(t, err)
		require.ErrorIs(t, <-zombie, freshness.ErrFenceLost)
		require.Zero(t, bundle.count(ctx, t, `SELECT count(*) FROM effect`))
	})
}
