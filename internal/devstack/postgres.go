package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/pgconnect"
)

// MainDatabase is the database that every private server has.
const MainDatabase = "truegreen"

// PostgresConfig says where a private Postgres server keeps its data and how it
// is run. Only DataDir is required.
type PostgresConfig struct {
	// BinDir is the folder of initdb and postgres. Empty looks for an installed
	// PostgreSQL 15 or newer, of an existing cluster's version if there is one,
	// and fetches one when there is none.
	BinDir string

	// DataDir is the data folder; the cluster lives in its folder pg. It is made
	// when missing, and must be empty or made by this package.
	DataDir string

	// Log gets what the server writes. Nil means postgres.log in DataDir.
	Log io.Writer

	// Notice is called with what a user should be told, one plain sentence at a
	// time, during the start only: another port, another place for the cluster,
	// a server left behind that was stopped, programs being fetched.
	Notice func(string)

	// Port is the preferred port on 127.0.0.1. When it is taken, or 0, a free
	// one is used.
	Port int

	// Settings are further settings of the server, by their Postgres names. With
	// fsync off, making the cluster skips its syncs too.
	Settings map[string]string

	fetch    fetchFunc
	find     func(ctx context.Context) []string
	isFree   func(port int) bool
	watchdog bool
}

// BulkSettings are settings of a server that takes hundreds of thousands of rows
// in one go, and syncs every commit all the same: Postgres's own defaults are for
// the smallest machines.
func BulkSettings() map[string]string {
	return map[string]string{
		"checkpoint_timeout": "15min",
		"max_wal_size":       "4GB",
		"shared_buffers":     "512MB",
		"wal_compression":    "on",
	}
}

// Postgres is a running private server.
type Postgres struct {
	child    *child
	dataDir  string
	lock     *folderLock
	logFile  io.Closer
	password string
	port     int
	stopping chan struct{}
	stopOnce sync.Once
}

// StartPostgres starts the private server of a data folder, making the cluster
// at the first start, and returns once it takes connections and has the
// database [MainDatabase].
//
// Root runs the server as the user postgres, or nobody; where that user cannot
// reach the data folder, the cluster is kept under the temporary folder. One
// process at a time can use a data folder, and a second one is told so. ctx
// bounds the start only: the server runs until Stop, or until this process ends.
//
// Every failure is one error that says what to do: a folder that is foreign,
// unwritable or in use, a cluster of an unsupported version, no programs to run.
func StartPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start private Postgres: %w", err)
	}
	server, err := startPostgres(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("start private Postgres: %w", err)
	}
	if err := server.EnsureDatabase(ctx, MainDatabase); err != nil {
		return nil, errors.Join(fmt.Errorf("start private Postgres: %w", err), server.Stop(context.WithoutCancel(ctx)))
	}
	return server, nil
}

// DataDir returns the folder of the cluster's files, which is pg/data in the
// data folder unless a notice said that it is kept elsewhere.
func (p *Postgres) DataDir() string { return p.dataDir }

// Port returns the port on 127.0.0.1.
func (p *Postgres) Port() int { return p.port }

// PID returns the process id of the server, for tests that harm it.
func (p *Postgres) PID() int { return p.child.process.Pid }

// URL returns the URL of a database of the server for its owner, the password
// in it: treat it as a secret. The database need not exist.
func (p *Postgres) URL(database string) string {
	address := url.URL{
		Host:     net.JoinHostPort(loopback, strconv.Itoa(p.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, p.password),
	}
	return address.String()
}

// EnsureDatabase makes a database unless the server has it.
func (p *Postgres) EnsureDatabase(ctx context.Context, name string) error {
	database, err := pgconnect.Parse(p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to private Postgres: %w", err)
	}
	conn, err := database.Connect(ctx, pgconnect.Options{Name: "truegreen"})
	if err != nil {
		return fmt.Errorf("connect to private Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Done is closed when the server has ended, through Stop or by itself; Err says
// which.
func (p *Postgres) Done() <-chan struct{} { return p.child.done }

// Err returns nil while the server runs and after Stop, and what is known about
// its end when it ended by itself.
func (p *Postgres) Err() error {
	select {
	case <-p.child.done:
	default:
		return nil
	}
	select {
	case <-p.stopping:
		return nil
	default:
		return fmt.Errorf("the private Postgres server ended by itself (%w); %s",
			p.child.exit(), lastWords(p.child.output.String()))
	}
}

// Stop ends all connections and then the server, and lets go of the data folder.
// When ctx is done first, the server is ended by force, which is an error though
// it loses nothing that was committed. Stopping twice is harmless.
func (p *Postgres) Stop(ctx context.Context) error {
	var forced bool
	p.stopOnce.Do(func() {
		select {
		case <-p.child.done:
			// It had ended before: Err goes on saying so.
		default:
			close(p.stopping)
		}
		forced = p.child.stop(ctx)
		_ = p.logFile.Close()
		p.lock.release()
	})
	if forced {
		return fmt.Errorf("stop private Postgres: it was ended by force: %w", ctx.Err())
	}
	return nil
}
