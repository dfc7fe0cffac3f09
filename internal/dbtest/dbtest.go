package dbtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/devstack"
	"truegreen/internal/pgconnect"
)

// Limits of what one test gets, and of cleaning up after it.
const (
	cleanupTimeout = 30 * time.Second
	maxConns       = 16
	releaseTimeout = 5 * time.Second
)

// DB is a database that belongs to one test.
type DB struct {
	// Pool has up to 16 connections to the database as its owner. It is closed
	// when the test ends; by then the test must have given its connections back.
	Pool *pgxpool.Pool

	// URL leads to the database, as its owner, password included.
	URL string
}

// Database returns a new database with the schema, which is dropped when the
// test ends, whoever is still connected.
func Database(ctx context.Context, t testing.TB) *DB {
	t.Helper()
	return newDatabase(ctx, t, shared(ctx, t), true)
}

// Empty returns a new database without the schema, which is dropped when the
// test ends, whoever is still connected.
func Empty(ctx context.Context, t testing.TB) *DB {
	t.Helper()
	return newDatabase(ctx, t, shared(ctx, t), false)
}

// Durable is [Database] on a private server of its own kind that syncs every
// commit as a production server does, for benchmarks. Other servers of this
// package promise nothing after a crash, and are faster for it.
func Durable(ctx context.Context, t testing.TB) *DB {
	t.Helper()
	return newDatabase(ctx, t, durable(ctx, t), true)
}

// Server returns the URL of the maintenance database of the server that Tx,
// Database and Empty use, for a test that needs more than a database. What such
// a test makes there, it must remove.
func Server(ctx context.Context, t testing.TB) string {
	t.Helper()
	return shared(ctx, t).url
}

// Tx returns a transaction on a database with the schema that all tests of this
// binary share, and rolls it back when the test ends. It sees no rows of other
// tests, but waits for them where both lock the same key: use keys of your own.
func Tx(ctx context.Context, t testing.TB) pgx.Tx {
	t.Helper()
	pool := shared(ctx, t).txPool(t)

	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatalf("begin test transaction: %v", err)
	}
	t.Cleanup(func() {
		// By now the test's own context is done.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		// The test may have ended the transaction itself.
		_ = tx.Rollback(ctx)
	})
	return tx
}

// Cluster starts a private server for this test alone, with further settings by
// their Postgres names, and stops it and removes its data when the test ends.
// The test may stop it before, and start another one on the same dataDir.
func Cluster(ctx context.Context, t testing.TB, settings map[string]string) (server *devstack.Postgres, dataDir string) {
	t.Helper()
	dataDir = DataDir(t)
	server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dataDir, Settings: settings})
	if err != nil {
		t.Fatalf("start server of the test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = server.Stop(ctx)
	})
	return server, dataDir
}

// DataDir returns a new empty folder, fit to be the DataDir of a
// [devstack.PostgresConfig]: unlike t.TempDir, Postgres can reach it when the
// test runs as root. It is removed when the test ends, by when no server may
// use it any more.
func DataDir(t testing.TB) string {
	t.Helper()
	dir, err := makeDataDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeDataDir(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newDatabase(ctx context.Context, t testing.TB, server *server, migrated bool) *DB {
	t.Helper()
	name := server.nextName()
	create := server.createEmpty
	if migrated {
		create = server.createMigrated
	}
	if err := create(ctx, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if err := server.drop(ctx, name); err != nil {
			t.Error(err)
		}
	})

	databaseURL, err := server.urlOf(name)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := newPool(ctx, databaseURL, maxConns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePool(t, pool) })
	return &DB{Pool: pool, URL: databaseURL}
}

func newPool(ctx context.Context, databaseURL string, size int32) (*pgxpool.Pool, error) {
	database, err := pgconnect.Parse(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	pool, err := database.Pool(ctx, pgconnect.Options{MaxConns: size, Name: "truegreen test"})
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return pool, nil
}

// closePool closes a pool that the test has finished with. Closing waits for
// each connection to be given back, so one that never is must not hang the run.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(releaseTimeout):
		t.Errorf("%d connections of dbtest.DB.Pool were not given back before the test ended: "+
			"release them, close the rows, or end the transaction", pool.Stat().AcquiredConns())
	}
}
