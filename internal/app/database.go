package app

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/pgconnect"
)

// connectTimeout bounds how long a command waits for a pool's first connection.
const connectTimeout = 10 * time.Second

// poolDefaults are settings of our pools that the URL may change.
var poolDefaults = map[string]string{
	// A process that freezes within a transaction must not keep others from its rows
	// for longer than it would keep a lease. Ours never wait within one.
	"idle_in_transaction_session_timeout": "5s",
	// Compiling a plan that runs for milliseconds takes longer than it saves.
	"jit": "off",
	// A plan that is kept from when a table was empty joins a thousand rows by a
	// thousand scans once it is full. Our statements do much work each, so that
	// planning each again costs next to nothing.
	"plan_cache_mode": "force_custom_plan",
}

// drainDefaults are poolDefaults for the outbox's pool. Of millions of rows it
// touches a few, by their ids: for that no plan is good that reads a whole table or
// all of an index, however small the table looks when the plan is made, and the same
// plan is good each time.
var drainDefaults = map[string]string{
	"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_seqscan": "off", "plan_cache_mode": "force_generic_plan",
}

// openDatabase refuses a database that cannot be reached or worked on.
func openDatabase(ctx context.Context, databaseURL string) (*pgconnect.Database, error) {
	database, err := pgconnect.Parse(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("read DATABASE_URL: %w", err)
	}
	if err := database.Check(ctx); err != nil {
		return nil, fmt.Errorf("reach the database of DATABASE_URL: %w", err)
	}
	return database, nil
}

// openPool connects to a database. maxConns is the pool's size, 0 for the URL's own.
func openPool(ctx context.Context, database *pgconnect.Database, maxConns int32, name string, defaults map[string]string) (*pgxpool.Pool, error) {
	settings := maps.Clone(poolDefaults)
	maps.Copy(settings, defaults)
	pool, err := database.Pool(ctx, pgconnect.Options{Defaults: settings, MaxConns: maxConns, Name: name})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach the database of DATABASE_URL: %w", err)
	}
	return pool, nil
}
