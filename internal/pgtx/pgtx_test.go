package pgtx_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/pgtx"
)

func exec(ctx context.Context, t *testing.T, db interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}, sql string) {
	t.Helper()
	_, err := db.Exec(ctx, sql)
	require.NoError(t, err)
}

func count(ctx context.Context, t *testing.T, tx pgx.Tx) int {
	t.Helper()
	var n int
	require.NoError(t, tx.QueryRow(ctx, "SELECT count(*) FROM thing").Scan(&n))
	return n
}

func setup(ctx context.Context, t *testing.T) pgx.Tx {
	t.Helper()
	tx := dbtest.Tx(ctx, t)
	exec(ctx, t, tx, "CREATE TEMPORARY TABLE thing (id integer PRIMARY KEY) ON COMMIT DROP")
	return tx
}

func TestDo(t *testing.T) {
	t.Parallel()

	t.Run("CommitsWhatSucceeds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		outer := setup(ctx, t)
		require.NoError(t, pgtx.Do(ctx, outer, func(tx pgx.Tx) error {
			exec(ctx, t, tx, "INSERT INTO thing VALUES (1)")
			return nil
		}))
		require.Equal(t, 1, count(ctx, t, outer))
	})

	t.Run("RollsBackWhatFails", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		outer := setup(ctx, t)
		cause := errors.New("no")
		err := pgtx.Do(ctx, outer, func(tx pgx.Tx) error {
			exec(ctx, t, tx, "INSERT INTO thing VALUES (1)")
			return cause
		})
		require.Equal(t, cause, err)
		require.Zero(t, count(ctx, t, outer))
	})

	t.Run("RollsBackWhatPanicsOrIsCancelled", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		outer := setup(ctx, t)
		require.Panics(t, func() {
			_ = pgtx.Do(ctx, outer, func(tx pgx.Tx) error {
				exec(ctx, t, tx, "INSERT INTO thing VALUES (1)")
				panic("oh")
			})
		})
		cancelled, cancel := context.WithCancel(ctx)
		err := pgtx.Do(cancelled, outer, func(tx pgx.Tx) error {
			exec(ctx, t, tx, "INSERT INTO thing VALUES (2)")
			cancel()
			return cancelled.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, count(ctx, t, outer))
	})
}

func TestCollides(t *testing.T) {
	t.Parallel()

	for code, want := range map[string]bool{"40001": true, "40P01": true, "23505": true, "23514": false} {
		require.Equal(t, want, pgtx.Collides(&pgconn.PgError{Code: code}), code)
	}
	require.False(t, pgtx.Collides(errors.New("broken")))
}

func TestPipeline_Send(t *testing.T) {
	t.Parallel()

	t.Run("RunsTheStepsInOrder", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := setup(ctx, t)
		var pipeline pgtx.Pipeline
		exec(ctx, t, pipeline.Step("add", 1), "INSERT INTO thing VALUES (1)")
		exec(ctx, t, pipeline.Step("raise", pgtx.AnyRows), "UPDATE thing SET id = id + 1")
		require.Zero(t, count(ctx, t, tx))
		require.NoError(t, pipeline.Send(ctx, tx))
		require.Equal(t, 1, count(ctx, t, tx))
	})

	t.Run("NamesTheStepThatFails", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := setup(ctx, t)
		var pipeline pgtx.Pipeline
		exec(ctx, t, pipeline.Step("add", 1), "INSERT INTO thing VALUES (1)")
		exec(ctx, t, pipeline.Step("add again", 1), "INSERT INTO thing VALUES (1)")
		err := pipeline.Send(ctx, tx)
		require.ErrorContains(t, err, "add again: ")
		require.True(t, pgtx.Collides(err))
	})

	t.Run("NamesTheStepWithAnotherNumberOfRows", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := setup(ctx, t)
		var pipeline pgtx.Pipeline
		exec(ctx, t, pipeline.Step("raise", 1), "UPDATE thing SET id = id + 1")
		require.EqualError(t, pipeline.Send(ctx, tx), "raise: 0 rows affected, want 1: the rows are not as they should be")
	})

	t.Run("AnswersWhatWasAskedInOrder", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := setup(ctx, t)
		var pipeline pgtx.Pipeline
		before, after := -1, -1
		ask := func(n *int) func(db pgtx.DB) error {
			return func(db pgtx.DB) error {
				rows, err := db.Query(ctx, "SELECT count(*) FROM thing WHERE id > $1", 0)
				if err != nil {
					return fmt.Errorf("ask: %w", err)
				}
				*n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
				return err
			}
		}
		require.NoError(t, pipeline.Ask("count", ask(&before)))
		exec(ctx, t, pipeline.Step("add", 1), "INSERT INTO thing VALUES (1)")
		require.NoError(t, pipeline.Ask("count again", ask(&after)))
		require.Equal(t, []int{-1, -1}, []int{before, after})
		require.NoError(t, pipeline.Send(ctx, tx))
		require.Equal(t, []int{0, 1}, []int{before, after})
	})

	t.Run("NamesTheQuestionThatFails", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := setup(ctx, t)
		var pipeline pgtx.Pipeline
		require.NoError(t, pipeline.Ask("divide", func(db pgtx.DB) error {
			rows, err := db.Query(ctx, "SELECT 1 / $1::integer", 0)
			if err != nil {
				return err
			}
			_, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			return err
		}))
		require.ErrorContains(t, pipeline.Send(ctx, tx), "divide: ERROR: division by zero")
	})

	t.Run("RefusesStatementsWithResultsAsSteps", func(t *testing.T) {
		t.Parallel()
		var pipeline pgtx.Pipeline
		step := pipeline.Step("ask", 0)
		_, err := step.Query(t.Context(), "SELECT 1") //nolint:sqlclosecheck // there are no rows to close
		require.ErrorContains(t, err, "ask: ")
		require.ErrorContains(t, step.QueryRow(t.Context(), "SELECT 1").Scan(), "ask: ")
	})

	t.Run("RefusesAQuestionThatAsksNothing", func(t *testing.T) {
		t.Parallel()
		var pipeline pgtx.Pipeline
		cause := errors.New("no")
		require.ErrorIs(t, pipeline.Ask("ask", func(pgtx.DB) error { return cause }), cause)
	})
}
