package anomaly_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/dbtest/anomaly"
)

type testBundle struct {
	conn  *pgx.Conn // through the proxy
	db    *dbtest.DB
	proxy *anomaly.Proxy
}

func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	db := dbtest.Empty(ctx, t)
	_, err := db.Pool.Exec(ctx, "CREATE TABLE thing (id integer PRIMARY KEY)")
	require.NoError(t, err)
	bundle := &testBundle{db: db, proxy: anomaly.Start(t, db.URL)}
	bundle.conn, err = pgx.Connect(ctx, bundle.proxy.URL())
	require.NoError(t, err)
	t.Cleanup(func() { _ = bundle.conn.Close(context.WithoutCancel(ctx)) })
	return bundle
}

func (bundle *testBundle) count(ctx context.Context, t *testing.T) int {
	t.Helper()
	var num int
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, "SELECT count(*) FROM thing").Scan(&num))
	return num
}

func (bundle *testBundle) add(ctx context.Context, id int) error {
	_, err := bundle.conn.Exec(ctx, "INSERT INTO thing VALUES ($1)", id)
	return err
}

func requireInjected(t *testing.T, err error, code string) {
	t.Helper()
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, code, pgErr.Code)
	require.Equal(t, anomaly.Message, pgErr.Message)
}

func TestProxy_Fail(t *testing.T) {
	t.Parallel()

	t.Run("APreparedStatementAbortsItsTransaction", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 3})
		tx, err := bundle.conn.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, bundle.add(ctx, 1))
		requireInjected(t, bundle.add(ctx, 2), anomaly.DiskFull)
		require.ErrorContains(t, bundle.add(ctx, 3), "current transaction is aborted")
		require.ErrorIs(t, tx.Commit(ctx), pgx.ErrTxCommitRollback)
		require.Zero(t, bundle.count(ctx, t))
		require.Equal(t, "insert into thing values ($1)", bundle.proxy.Hit())
		require.NoError(t, bundle.add(ctx, 4), "the connection can be used")
		require.Equal(t, 1, bundle.count(ctx, t))
	})

	t.Run("OneOfABatch", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 2, SQLState: "40001"})
		batch := &pgx.Batch{}
		for id := range 3 {
			batch.Queue("INSERT INTO thing VALUES ($1)", id)
		}
		results := bundle.conn.SendBatch(ctx, batch)
		_, err := results.Exec()
		require.NoError(t, err)
		_, err = results.Exec()
		requireInjected(t, err, "40001")
		require.Error(t, results.Close())
		require.Zero(t, bundle.count(ctx, t))
	})

	t.Run("ACopyAndItsEnd", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		rows := func() pgx.CopyFromSource {
			return pgx.CopyFromSlice(2, func(i int) ([]any, error) { return []any{int32(i)}, nil })
		}
		for nth := 1; nth <= 2; nth++ { // of the copy itself, and of its end
			bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: nth})
			_, err := bundle.conn.CopyFrom(ctx, pgx.Identifier{"thing"}, []string{"id"}, rows())
			requireInjected(t, err, anomaly.DiskFull)
			require.Zero(t, bundle.count(ctx, t))
		}
		bundle.proxy.Arm(anomaly.Fault{})
		_, err := bundle.conn.CopyFrom(ctx, pgx.Identifier{"thing"}, []string{"id"}, rows())
		require.NoError(t, err)
		require.Equal(t, 2, bundle.count(ctx, t))
	})

	t.Run("ACommitRollsBack", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 1, Only: "commit"})
		requireInjected(t, pgx.BeginFunc(ctx, bundle.conn, func(pgx.Tx) error { return bundle.add(ctx, 1) }), anomaly.DiskFull)
		require.Zero(t, bundle.count(ctx, t))
	})

	t.Run("AConnection", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 1, Only: anomaly.Connect})
		_, err := pgx.Connect(ctx, bundle.proxy.URL())
		requireInjected(t, err, anomaly.DiskFull)
	})

	t.Run("ForAsLongAsItStays", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 2, Stays: true})
		require.NoError(t, bundle.add(ctx, 1))
		require.Error(t, bundle.add(ctx, 2))
		require.Error(t, bundle.add(ctx, 2))
		_, err := bundle.conn.Exec(ctx, "SELECT 1")
		require.NoError(t, err, "of another label")
		bundle.proxy.Arm(anomaly.Fault{})
		require.NoError(t, bundle.add(ctx, 2))
	})
}

func TestProxy_Connections(t *testing.T) {
	t.Parallel()

	t.Run("LoseLetsACommitHappen", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Lose, Nth: 1, Only: "commit"})
		require.Error(t, pgx.BeginFunc(ctx, bundle.conn, func(pgx.Tx) error { return bundle.add(ctx, 1) }))
		require.True(t, bundle.conn.IsClosed())
		require.Equal(t, 1, bundle.count(ctx, t))
	})

	t.Run("CutComesBeforeTheStatement", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{Kind: anomaly.Cut, Nth: 1, Only: "commit"})
		require.Error(t, pgx.BeginFunc(ctx, bundle.conn, func(pgx.Tx) error { return bundle.add(ctx, 1) }))
		require.Zero(t, bundle.count(ctx, t), "rolled back by now")
	})

	t.Run("CancelCallsBack", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		reason := errors.New("the reason")
		cancelled, cancel := context.WithCancelCause(ctx)
		bundle.proxy.Arm(anomaly.Fault{Cancel: func() { cancel(reason) }, Kind: anomaly.Cancel, Nth: 1})
		_ = bundle.add(ctx, 1)
		require.ErrorIs(t, context.Cause(cancelled), reason)
	})

	t.Run("SaysWhatPassed", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.proxy.Arm(anomaly.Fault{})
		require.NoError(t, bundle.add(ctx, 1))
		require.NoError(t, pgx.BeginFunc(ctx, bundle.conn, func(pgx.Tx) error {
			_, err := bundle.conn.Exec(ctx, "-- name: ThingRaise :exec\nUPDATE thing SET id = id + $1", 1)
			return err
		}))
		require.Equal(t, []anomaly.Statement{
			{Commits: true, Label: "insert into thing values ($1)"},
			{Label: "begin"}, {Label: "ThingRaise"}, {Commits: true, Label: "commit"},
		}, bundle.proxy.Statements())
	})
}
