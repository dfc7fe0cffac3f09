package devstack_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/devstack"
)

func TestStartPostgres_AfterAKill(t *testing.T) {
	t.Parallel()

	for name, useWatchdog := range map[string]bool{"DeathSignal": false, "Watchdog": true} {
		t.Run("EndsTheServerBy"+name+"AndTheNextStartNeedsNoHand", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			dir := makeDir(t)
			parent, report := startChild(t, childOrder{DataDir: dir, Watchdog: useWatchdog})
			execute(ctx, t, report.URL, "CREATE TABLE kept AS SELECT 42 AS answer")
			kill(t, parent)
			require.Eventually(t, func() bool { return !devstack.IsRunning(report.PID) }, deadline, interval)

			server, told := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
			require.Equal(t, 42, query[int](ctx, t, server.URL(devstack.MainDatabase), "SELECT answer FROM kept"))
			require.Empty(t, told.String())
		})
	}

	t.Run("NeedsNoHandEvenAtOnce", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		for range 3 {
			parent, _ := startChild(t, childOrder{DataDir: dir})
			kill(t, parent)
		}
		start(ctx, t, devstack.PostgresConfig{DataDir: dir})
	})

	t.Run("StopsAServerThatOutlivedItsParent", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		parent, report := startChild(t, childOrder{DataDir: dir})
		// It waits for a connection that does not end. The server itself can't be
		// suspended: the kernel wakes a group that is left without a parent.
		conn, err := pgx.Connect(ctx, report.URL)
		require.NoError(t, err)
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		backend := int(conn.PgConn().PID())
		suspend(t, backend)
		kill(t, parent)
		require.True(t, devstack.IsRunning(report.PID))

		told := &notices{}
		server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dir, Notice: func(line string) {
			told.add(line)
			_ = syscall.Kill(backend, syscall.SIGCONT)
		}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(ctx)) })
		require.Contains(t, told.String(), fmt.Sprintf("(process %d) that an earlier run left behind", report.PID))
		require.False(t, devstack.IsRunning(report.PID))
	})
}

func TestStartPostgres_WithAPIDFile(t *testing.T) {
	t.Parallel()

	// setup makes a cluster without a server and returns its pid file.
	setup := func(t *testing.T) (dir, pidFile string) {
		t.Helper()
		dir = makeDir(t)
		server, _ := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.NoError(t, server.Stop(t.Context()))
		return dir, filepath.Join(server.DataDir(), "postmaster.pid")
	}

	t.Run("IsNotStoppedByThePidOfAnotherProgram", func(t *testing.T) {
		t.Parallel()

		dir, pidFile := setup(t)
		// Of the same user, else Postgres itself sees that it can't be a server.
		other := childproc.Command(context.Background(), "/bin/sh", "-c", "read line")
		other.SysProcAttr = ownerAttributes(t, filepath.Dir(pidFile))
		_, err := other.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, other.Start())
		t.Cleanup(func() {
			_ = other.Process.Kill()
			_ = other.Wait()
		})
		require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(other.Process.Pid)+"\n"+filepath.Dir(pidFile)+"\n"), 0o600))

		_, told := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.Empty(t, told.String())
		require.True(t, devstack.IsRunning(other.Process.Pid))
	})

	t.Run("IsNotStoppedByAZombie", func(t *testing.T) {
		t.Parallel()

		dir, pidFile := setup(t)
		zombie := childproc.Command(context.Background(), "/bin/sh", "-c", "exit 0")
		zombie.SysProcAttr = ownerAttributes(t, filepath.Dir(pidFile))
		require.NoError(t, zombie.Start())
		require.Eventually(t, func() bool { return !devstack.IsRunning(zombie.Process.Pid) }, deadline, interval)
		t.Cleanup(func() { _ = zombie.Wait() })
		require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(zombie.Process.Pid)+"\n"), 0o600))

		start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
	})

	t.Run("IsNotStoppedByAnEmptyOne", func(t *testing.T) {
		t.Parallel()

		dir, pidFile := setup(t)
		require.NoError(t, os.WriteFile(pidFile, nil, 0o600))
		start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
	})

	t.Run("LeavesAServerAloneThatSomebodyStartedByHand", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir, pidFile := setup(t)
		dataDir := filepath.Dir(pidFile)
		port, err := devstack.FreePort()
		require.NoError(t, err)
		byHand := childproc.Command(context.Background(), filepath.Join(devstack.InstalledDirs(ctx)[0], "postgres"), "-D", dataDir,
			"-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprintf("port=%d", port), "-c", "unix_socket_directories=")
		byHand.Dir = "/"
		byHand.SysProcAttr = ownerAttributes(t, dataDir)
		require.NoError(t, byHand.Start())
		t.Cleanup(func() {
			_ = byHand.Process.Signal(syscall.SIGINT)
			_ = byHand.Wait()
		})
		require.Eventually(t, func() bool {
			_, err := os.Stat(pidFile)
			return err == nil
		}, deadline, interval)

		_, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dir})
		require.ErrorContains(t, err, fmt.Sprintf("in use by process %d, which truegreen did not start", byHand.Process.Pid))
		require.True(t, devstack.IsRunning(byHand.Process.Pid))
	})
}

func TestStartPostgres_AfterAnInterruptedFirstStart(t *testing.T) {
	t.Parallel()

	t.Run("MakesTheClusterAnew", func(t *testing.T) {
		t.Parallel()

		dir, err := devstack.PrepareDataDir(makeDir(t))
		require.NoError(t, err)
		server, _ := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.NoError(t, server.Stop(t.Context()))
		// As if the rename had not happened, with half of the files.
		unfinished := server.DataDir() + ".new"
		require.NoError(t, os.Rename(server.DataDir(), unfinished))
		require.NoError(t, os.RemoveAll(filepath.Join(unfinished, "base")))

		start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.NoDirExists(t, unfinished)
	})

	t.Run("SetsANewPasswordWhenTheOldOneIsLost", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := makeDir(t)
		first, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		require.NoError(t, first.Stop(ctx))
		require.NoError(t, os.Remove(filepath.Join(dir, "pg", "password")))

		second, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir, Port: first.Port()})
		require.NotEqual(t, first.URL(""), second.URL(""))
		require.Equal(t, 1, query[int](ctx, t, second.URL(devstack.MainDatabase), "SELECT 1"))
	})
}
