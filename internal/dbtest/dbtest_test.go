package dbtest_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
)

const serverVariable = "TRUEGREEN_TEST_DATABASE_URL"

func TestDatabase(t *testing.T) {
	t.Parallel()

	t.Run("HasTheSchemaAndNoRows", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Database(ctx, t)
		require.Equal(t, 0, query[int](ctx, t, db.Pool, "SELECT count(*) FROM river_job"))
	})

	t.Run("BelongsToOneTest", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		one, other := dbtest.Database(ctx, t), dbtest.Database(ctx, t)
		_, err := one.Pool.Exec(ctx, "CREATE TABLE mine ()")
		require.NoError(t, err)
		require.False(t, hasTable(ctx, t, other.Pool, "mine"))
		require.NotEqual(t, one.URL, other.URL)
	})

	t.Run("IsTheOneThatItsURLLeadsTo", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Database(ctx, t)
		conn, err := pgx.Connect(ctx, db.URL)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		require.Equal(t,
			query[string](ctx, t, db.Pool, "SELECT current_database()"),
			query[string](ctx, t, conn, "SELECT current_database()"))
	})

	t.Run("IsDroppedWhenItsTestEndsWhoeverIsConnected", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		ending := &recorder{TB: t}
		db := dbtest.Database(ctx, ending)
		name := query[string](ctx, t, db.Pool, "SELECT current_database()")
		stays, err := pgx.Connect(ctx, db.URL)
		require.NoError(t, err)
		defer func() { _ = stays.Close(ctx) }()

		ending.end()
		require.Empty(t, ending.errors)
		server, err := pgx.Connect(ctx, dbtest.Server(ctx, t))
		require.NoError(t, err)
		defer func() { require.NoError(t, server.Close(ctx)) }()
		require.Equal(t, 0, query[int](ctx, t, server, "SELECT count(*) FROM pg_database WHERE datname = $1", name))
	})

	t.Run("CanBeHadByManyTestsAtOnce", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		var group sync.WaitGroup
		dbs := make([]*dbtest.DB, 8)
		for at := range dbs {
			group.Go(func() { dbs[at] = dbtest.Database(ctx, t) })
		}
		group.Wait()
		names := map[string]bool{}
		for _, db := range dbs {
			names[query[string](ctx, t, db.Pool, "SELECT current_database()")] = true
		}
		require.Len(t, names, len(dbs))
	})

	t.Run("ReportsAConnectionThatWasNotGivenBack", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		ending := &recorder{TB: t}
		db := dbtest.Database(ctx, ending)
		_, err := db.Pool.Acquire(ctx)
		require.NoError(t, err)

		ending.end()
		require.Len(t, ending.errors, 1)
		require.Contains(t, ending.errors[0], "1 connections of dbtest.DB.Pool were not given back")
	})
}

func TestEmpty(t *testing.T) {
	t.Parallel()

	t.Run("HasNoSchema", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		require.False(t, hasTable(ctx, t, db.Pool, "river_job"))
	})
}

func TestTx(t *testing.T) {
	t.Parallel()

	t.Run("HasTheSchemaAndIsRolledBack", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		ending := &recorder{TB: t}
		tx := dbtest.Tx(ctx, ending)
		require.True(t, hasTable(ctx, t, tx, "river_job"))
		_, err := tx.Exec(ctx, "CREATE TABLE only_in_a_transaction ()")
		require.NoError(t, err)
		require.True(t, hasTable(ctx, t, tx, "only_in_a_transaction"))

		ending.end()
		require.Empty(t, ending.errors)
		require.False(t, hasTable(ctx, t, dbtest.Tx(ctx, t), "only_in_a_transaction"))
	})

	t.Run("MayBeEndedByTheTest", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		require.NoError(t, dbtest.Tx(ctx, t).Rollback(ctx))
	})
}

func TestDurable(t *testing.T) {
	t.Parallel()

	t.Run("SyncsWhileTheSharedServerDoesNot", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		durable, shared := dbtest.Durable(ctx, t), dbtest.Database(ctx, t)
		require.True(t, hasTable(ctx, t, durable.Pool, "river_job"))
		fsync := query[string](ctx, t, shared.Pool, "SHOW fsync")
		if os.Getenv(serverVariable) != "" {
			require.Equal(t, fsync, query[string](ctx, t, durable.Pool, "SHOW fsync"))
			return
		}
		require.Equal(t, "off", fsync)
		for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
			require.Equal(t, "on", query[string](ctx, t, durable.Pool, "SHOW "+setting), setting)
		}
	})
}

func TestCluster(t *testing.T) {
	t.Parallel()

	t.Run("CanBeStoppedAndStartedAgain", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		settings := map[string]string{"fsync": "off", "max_connections": "23"}
		server, dataDir := dbtest.Cluster(ctx, t, settings)
		require.NoError(t, server.Stop(ctx))

		again, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
			DataDir: dataDir, Port: server.Port(), Settings: settings,
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = again.Stop(context.WithoutCancel(ctx)) })
		conn, err := pgx.Connect(ctx, server.URL(devstack.MainDatabase))
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		require.Equal(t, "23", query[string](ctx, t, conn, "SHOW max_connections"))
	})

	t.Run("IsGoneAfterItsTest", func(t *testing.T) {
		t.Parallel()

		ending := &recorder{TB: t}
		server, dataDir := dbtest.Cluster(t.Context(), ending, map[string]string{"fsync": "off"})
		ending.end()
		require.Empty(t, ending.errors)
		select {
		case <-server.Done():
		case <-time.After(time.Minute):
			t.Fatal("the server runs on")
		}
		require.NoDirExists(t, dataDir)
	})
}

func TestDataDir(t *testing.T) {
	t.Parallel()

	t.Run("IsRemovedWithWhatIsInItOrNot", func(t *testing.T) {
		t.Parallel()

		ending := &recorder{TB: t}
		unused := dbtest.DataDir(ending)
		prepared, err := devstack.PrepareDataDir(dbtest.DataDir(ending))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(prepared+"/more", nil, 0o600))

		ending.end()
		require.Empty(t, ending.errors)
		require.NoDirExists(t, unused)
		require.NoDirExists(t, prepared)
	})
}

// recorder is a test that another test ends, and whose complaints it looks at.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Cleanup(cleanup func()) { r.cleanups = append(r.cleanups, cleanup) }

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }

func (r *recorder) end() {
	for at := len(r.cleanups) - 1; at >= 0; at-- {
		r.cleanups[at]()
	}
}

// querier is what a pool, a connection and a transaction have in common.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

var _ querier = (*pgxpool.Pool)(nil)

func query[T any](ctx context.Context, t *testing.T, db querier, sql string, args ...any) T {
	t.Helper()
	var value T
	require.NoError(t, db.QueryRow(ctx, sql, args...).Scan(&value))
	return value
}

func hasTable(ctx context.Context, t *testing.T, db querier, name string) bool {
	t.Helper()
	return query[bool](ctx, t, db, "SELECT to_regclass($1) IS NOT NULL", name)
}
