package pgconnect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// Database is how to connect to one database. Safe for concurrent use.
type Database struct {
	given    map[string]string // settings of the URL
	maxConns int32             // pool_max_conns of the URL, 0 for none
	name     string            // application_name of the URL
	pool     *pgxpool.Config

	mu         sync.Mutex
	searchPath string // of the first connection, or of the URL
}

// Options are what one user of connections wants.
type Options struct {
	// Defaults are session settings that the URL may change.
	Defaults map[string]string

	// Fixed are session settings that the URL may not change.
	Fixed map[string]string

	// MaxConns is the size of a pool, and pool_max_conns of the URL may make it
	// smaller. 0 leaves it to the URL, and to the driver's default.
	MaxConns int32

	// Name is the application_name, unless the URL has one.
	Name string
}

// Connect opens one connection, which belongs to the caller. Fails with
// [EncodingError] or [SettingError] where the database, or a setting of it, is of
// no use to the product.
func (database *Database) Connect(ctx context.Context, options Options) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, database.connConfig(options))
	if err != nil {
		return nil, plainError(err)
	}
	return conn, nil
}

// DB returns a pool for what wants database/sql. It has no connection yet.
func (database *Database) DB(options Options) *sql.DB {
	return stdlib.OpenDB(*database.connConfig(options))
}

// Pool returns a pool, which outlives ctx. It has no connection yet.
func (database *Database) Pool(ctx context.Context, options Options) (*pgxpool.Pool, error) {
	config := database.pool.Copy()
	config.ConnConfig = database.connConfig(options)
	if options.MaxConns > 0 {
		config.MaxConns = options.MaxConns
		if database.maxConns > 0 {
			config.MaxConns = min(options.MaxConns, database.maxConns)
		}
	}
	config.MinConns = min(config.MinConns, config.MaxConns)
	config.MinIdleConns = min(config.MinIdleConns, config.MaxConns)
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		return nil, fmt.Errorf("make connection pool: %w", err)
	}
	return pool, nil
}

// plainError is the cause alone where it says all that there is to say.
func plainError(err error) error {
	if encoding, ok := errors.AsType[*EncodingError](err); ok {
		return encoding
	}
	if setting, ok := errors.AsType[*SettingError](err); ok {
		return setting
	}
	return err
}
