package dbtest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crypto/rand"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/devstack"
	"truegreen/migrations"
)

// serverVariable names a server to test on instead of a private one.
const serverVariable = "TRUEGREEN_TEST_DATABASE_URL"

// Limits of a server that the tests share.
const (
	startTimeout = 5 * time.Minute
	txPoolSize   = 64
)

// server is where the databases of this test binary are.
type server struct {
	// admin is used for CREATE DATABASE alone: two at a time from one template
	// gain nothing, and Postgres refuses a template that somebody looks at.
	admin *pgxpool.Pool
	mu    sync.Mutex

	numNames atomic.Int64
	run      string // in all names, so that two test binaries stay apart
	template func() error
	tx       func() (*pgxpool.Pool, error)
	url      string
}

// lazyServer is started by the first test that asks and then shared.
type lazyServer struct {
	err    error
	once   sync.Once
	server *server
}

// The servers of this test binary. They are globals because nothing but the
// binary is shared by its tests, and because starting one for each test would
// take longer than the tests do.
var (
	durableServer lazyServer
	sharedServer  lazyServer
)

func shared(ctx context.Context, t testing.TB) *server {
	t.Helper()
	return sharedServer.get(ctx, t, map[string]string{
		"fsync":              "off",
		"full_page_writes":   "off",
		"max_connections":    "200",
		"synchronous_commit": "off",
	})
}

func durable(ctx context.Context, t testing.TB) *server {
	t.Helper()
	if os.Getenv(serverVariable) != "" {
		return shared(ctx, t)
	}
	settings := devstack.BulkSettings()
	settings["max_connections"] = "200"
	return durableServer.get(ctx, t, settings)
}

func (l *lazyServer) get(ctx context.Context, t testing.TB, settings map[string]string) *server {
	t.Helper()
	l.once.Do(func() {
		// The first test's context must not decide for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		defer cancel()
		l.server, l.err = startServer(ctx, settings)
	})
	if l.err != nil {
		t.Fatalf("start test database server: %v", l.err)
	}
	return l.server
}

func startServer(ctx context.Context, settings map[string]string) (*server, error) {
	address := os.Getenv(serverVariable)
	if address == "" {
		var err error
		if address, err = startPrivate(ctx, settings); err != nil {
			return nil, err
		}
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make name of the test run: %w", err)
	}
	admin, err := newPool(ctx, address, 4)
	if err != nil {
		return nil, fmt.Errorf("%w (set by %s?)", err, serverVariable)
	}
	s := &server{admin: admin, run: hex.EncodeToString(id[:]), url: address}
	s.template = sync.OnceValue(s.makeTemplate)
	s.tx = sync.OnceValues(s.makeTxPool)

	if os.Getenv(serverVariable) != "" {
		if err := s.takeTurn(ctx); err != nil {
			return nil, fmt.Errorf("%w (server of %s)", err, serverVariable)
		}
	}
	return s, nil
}

// startPrivate starts a server that ends with this binary: there is no place to
// stop it, since nobody tells a package that its last test has ended.
func startPrivate(ctx context.Context, settings map[string]string) (string, error) {
	removeLeftovers()
	dataDir, err := makeDataDir()
	if err != nil {
		return "", err
	}
	private, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dataDir, Settings: settings})
	if err != nil {
		return "", err
	}
	return private.URL("postgres"), nil
}

func (s *server) nextName() string {
	return fmt.Sprintf("%s%s_%d", namePrefix, s.run, s.numNames.Add(1))
}

func (s *server) urlOf(database string) (string, error) {
	address, err := url.Parse(s.url)
	if err != nil || address.Scheme == "" {
		return "", fmt.Errorf("%s must be a URL, postgres://user:password@host:port/database", serverVariable)
	}
	address.Path = "/" + database
	return address.String(), nil
}

func (s *server) createEmpty(ctx context.Context, name string) error {
	return s.create(ctx, name, "template1")
}

func (s *server) createMigrated(ctx context.Context, name string) error {
	if err := s.template(); err != nil {
		return err
	}
	return s.create(ctx, name, s.templateName())
}

func (s *server) templateName() string { return namePrefix + s.run + "_template" }

func (s *server) create(ctx context.Context, name, template string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.admin.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s",
		pgx.Identifier{name}.Sanitize(), pgx.Identifier{template}.Sanitize()))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func (s *server) drop(ctx context.Context, name string) error {
	_, err := s.admin.Exec(ctx, fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)",
		pgx.Identifier{name}.Sanitize()))
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// makeTemplate builds the database that the migrated ones are copies of.
func (s *server) makeTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	name := s.templateName()
	if err := s.createEmpty(ctx, name); err != nil {
		return err
	}
	address, err := s.urlOf(name)
	if err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, address); err != nil {
		return fmt.Errorf("migrate template of the test databases: %w", err)
	}
	// Nobody may look at a template while it is copied.
	_, err = s.admin.Exec(ctx, fmt.Sprintf("ALTER DATABASE %s WITH ALLOW_CONNECTIONS false",
		pgx.Identifier{name}.Sanitize()))
	if err != nil {
		return fmt.Errorf("close template of the test databases: %w", err)
	}
	return nil
}

func (s *server) txPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := s.tx()
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// makeTxPool makes the database that the tests' transactions share.
func (s *server) makeTxPool() (*pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	name := namePrefix + s.run + "_tx"
	if err := s.createMigrated(ctx, name); err != nil {
		return nil, err
	}
	address, err := s.urlOf(name)
	if err != nil {
		return nil, err
	}
	return newPool(ctx, address, txPoolSize)
}
