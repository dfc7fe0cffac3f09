package devstack_test

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
)

// deadline is how long a test waits for what must happen soon.
const (
	deadline = 30 * time.Second
	interval = 10 * time.Millisecond
)

func TestStartPostgres(t *testing.T) {
	t.Parallel()

	t.Run("KeepsDataPasswordAndPortBetweenStarts", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		first, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		mainURL := first.URL(devstack.MainDatabase)
		execute(ctx, t, mainURL, "CREATE TABLE kept AS SELECT 42 AS answer")
		require.NoError(t, first.Stop(ctx))

		second, told := start(ctx, t, devstack.PostgresConfig{DataDir: dir, Port: first.Port()})
		require.Equal(t, mainURL, second.URL(devstack.MainDatabase))
		require.Equal(t, 42, query[int](ctx, t, mainURL, "SELECT answer FROM kept"))
		require.Empty(t, told.String())
	})

	t.Run("ListensOnLoopbackAloneAndWantsThePassword", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		server, _ := start(ctx, t, devstack.PostgresConfig{DataDir: makeDir(t)})
		mainURL := server.URL(devstack.MainDatabase)
		require.Equal(t, "127.0.0.1", query[string](ctx, t, mainURL, "SHOW listen_addresses"))
		require.Empty(t, query[string](ctx, t, mainURL, "SHOW unix_socket_directories"))

		address, err := url.Parse(mainURL)
		require.NoError(t, err)
		address.User = url.UserPassword(address.User.Username(), "guess")
		_, err = pgx.Connect(ctx, address.String())
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "28P01", refused.Code)
	})

	t.Run("KeepsThePasswordToItsUser", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		server, _ := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		address, err := url.Parse(server.URL(""))
		require.NoError(t, err)
		password, _ := address.User.Password()

		numFound := 0
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.Contains(path, "/data/") {
				return err
			}
			text, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(text), password) {
				numFound++
				info, err := entry.Info()
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), path)
			}
			return err
		}))
		require.Equal(t, 1, numFound)
	})

	t.Run("TakesAnotherPortAndSaysSoWhenThePreferredOneIsTaken", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { _ = listener.Close() }()
		taken := listener.Addr().(*net.TCPAddr).Port

		server, told := start(ctx, t, devstack.PostgresConfig{DataDir: makeDir(t), Port: taken})
		require.NotEqual(t, taken, server.Port())
		require.Equal(t, 1, query[int](ctx, t, server.URL(devstack.MainDatabase), "SELECT 1"))
		require.Contains(t, told.String(), "is taken: Postgres listens on")
	})

	t.Run("TriesAnotherPortWhenSomebodyIsFaster", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { _ = listener.Close() }()
		taken := listener.Addr().(*net.TCPAddr).Port

		server, told := start(ctx, t, devstack.WithPortTakenMeanwhile(devstack.PostgresConfig{
			DataDir: makeDir(t), Port: taken,
		}))
		require.NotEqual(t, taken, server.Port())
		require.Equal(t, 1, query[int](ctx, t, server.URL(devstack.MainDatabase), "SELECT 1"))
		require.Contains(t, told.String(), "was taken meanwhile")
	})

	t.Run("PassesSettingsOnAndWritesToTheGivenLog", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		log := &notices{}
		dir := makeDir(t)
		server, _ := start(ctx, t, devstack.PostgresConfig{
			DataDir:  dir,
			Log:      logTo(log),
			Settings: map[string]string{"fsync": "off", "max_connections": "17"},
		})
		require.Equal(t, "17", query[string](ctx, t, server.URL(devstack.MainDatabase), "SHOW max_connections"))
		require.Contains(t, log.String(), "ready to accept connections")
		require.NoFileExists(t, filepath.Join(dir, "postgres.log"))
	})

	t.Run("SaysWhatTheServerSaidWhenASettingIsWrong", func(t *testing.T) {
		t.Parallel()

		_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{
			DataDir:  makeDir(t),
			Settings: map[string]string{"max_connections": "many"},
		})
		require.ErrorContains(t, err, `invalid value for parameter "max_connections": "many"`)
	})

	t.Run("LetsOneOfSeveralStartsHaveAFolder", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		var wins, losses int
		var mu sync.Mutex
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dir})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					losses++
					assert.ErrorContains(t, err, "is in use by another truegreen")
					return
				}
				wins++
				t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(ctx)) })
			})
		}
		group.Wait()
		require.Equal(t, 1, wins)
		require.Equal(t, 3, losses)
	})

	t.Run("LeavesNothingRunningWhenItsContextEnds", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dir})
		require.ErrorIs(t, err, context.Canceled)

		start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
	})
}

func TestPostgres_Stop(t *testing.T) {
	t.Parallel()

	t.Run("MayBeCalledTwiceAndIsNoFailure", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		server, _ := start(ctx, t, devstack.PostgresConfig{DataDir: makeDir(t)})
		require.NoError(t, server.Err())
		require.NoError(t, server.Stop(ctx))
		require.NoError(t, server.Stop(ctx))
		<-server.Done()
		require.NoError(t, server.Err())
		require.False(t, devstack.IsRunning(server.PID()))
	})

	t.Run("UsesForceWhenItsContextEnds", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		server, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		execute(ctx, t, server.URL(devstack.MainDatabase), "CREATE TABLE kept AS SELECT 42 AS answer")

		// Suspended, it does not hear that it should end.
		require.NoError(t, syscall.Kill(server.PID(), syscall.SIGSTOP))
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorContains(t, server.Stop(ended), "by force")

		again, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		require.Equal(t, 42, query[int](ctx, t, again.URL(devstack.MainDatabase), "SELECT answer FROM kept"))
	})
}

func TestPostgres_Done(t *testing.T) {
	t.Parallel()

	t.Run("ReportsAServerThatEndedByItselfAndTheNextStartRecovers", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		server, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		mainURL := server.URL(devstack.MainDatabase)
		execute(ctx, t, mainURL, "CREATE TABLE kept AS SELECT 42 AS answer")
		busy, err := pgx.Connect(ctx, mainURL)
		require.NoError(t, err)

		require.NoError(t, syscall.Kill(server.PID(), syscall.SIGKILL))
		select {
		case <-server.Done():
		case <-time.After(deadline):
			t.Fatal("the end of the server was not noticed")
		}
		require.ErrorContains(t, server.Err(), "ended by itself (signal: killed)")
		require.NoError(t, server.Stop(ctx))
		require.Error(t, server.Err())

		again, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		require.Equal(t, 42, query[int](ctx, t, again.URL(devstack.MainDatabase), "SELECT answer FROM kept"))
		_ = busy.Close(ctx)
	})
}

type logWriter struct{ to *notices }

func (w logWriter) Write(p []byte) (int, error) {
	w.to.add(string(p))
	return len(p), nil
}

func logTo(to *notices) logWriter { return logWriter{to} }
