package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/devstack"
)

// Beginnings of the names that tests leave their traces under.
const (
	folderPrefix = "truegreen-test-"
	namePrefix   = "truegreen_test_"
)

// makeDataDir makes an empty data folder. The pid in its name is that of the
// process that may use it.
func makeDataDir() (string, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", folderPrefix, os.Getpid()))
	if err != nil {
		return "", fmt.Errorf("make data folder for tests: %w", err)
	}
	// Run by root, Postgres has to pass through it as another user.
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", fmt.Errorf("open data folder for tests: %w", err)
	}
	return dir, nil
}

// removeLeftovers removes data folders of test binaries that are gone. It is
// housekeeping: what can't be removed now is left to the next run.
func removeLeftovers() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		rest := strings.TrimPrefix(filepath.Base(dir), folderPrefix)
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		if err != nil || isRunning(pid) {
			continue
		}
		_ = removeDataDir(dir)
	}
}

func isRunning(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// removeDataDir removes a data folder and all that was put in it. Fails while a
// server uses it.
func removeDataDir(dir string) error {
	// A folder that no server ever used is nobody's, and empty.
	if err := os.Remove(dir); err == nil {
		return nil
	}
	if err := devstack.RemoveData(dir); err != nil {
		return fmt.Errorf("remove data folder of tests: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove data folder of tests: %w", err)
	}
	return nil
}

// takeTurn marks this run as alive on a server that outlives it, by an advisory
// lock that the server frees with the connection, and drops the databases of
// runs that are not alive any more.
func (s *server) takeTurn(ctx context.Context) error {
	conn, err := s.admin.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to test database server: %w", err)
	}
	// Kept for as long as the binary runs.
	alive := conn.Hijack()
	if _, err := alive.Exec(ctx, "SELECT pg_advisory_lock($1)", lockKey(s.run)); err != nil {
		return fmt.Errorf("lock name of the test run: %w", err)
	}

	rows, err := alive.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", namePrefix)
	if err != nil {
		return fmt.Errorf("list test databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list test databases: %w", err)
	}
	for _, name := range names {
		run, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "_")
		isAlive, err := isRunAlive(ctx, alive, run)
		if err != nil {
			return err
		}
		if isAlive {
			continue
		}
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// isRunAlive looks for the lock of a run among those of the whole server, since
// the other run may be connected to another of its databases.
func isRunAlive(ctx context.Context, conn *pgx.Conn, run string) (bool, error) {
	key := uint64(lockKey(run))
	var alive bool
	err := conn.QueryRow(ctx, `
		SELECT EXISTS (
			SELECT
			FROM pg_locks
			WHERE locktype = 'advisory'
				AND classid = $1::bigint
				AND objid = $2::bigint
				AND objsubid = 1
		)`, int64(key>>32), int64(key&0xffffffff)).Scan(&alive)
	if err != nil {
		return false, fmt.Errorf("look for test run %s: %w", run, err)
	}
	return alive, nil
}

// lockKey is the run's name as the number that advisory locks are known by: 0
// for a name that is no run's, and nobody's then.
func lockKey(run string) int64 {
	key, err := strconv.ParseUint(run, 16, 64)
	if err != nil {
		return 0
	}
	return int64(key)
}
