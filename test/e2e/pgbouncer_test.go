package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/dbtest"
)

// TestPgBouncer runs the product behind a real PgBouncer, where there is one: tests
// install nothing. internal/pgconnect has a pooler of its own for the same rules.
func TestPgBouncer(t *testing.T) {
	t.Parallel()

	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)")
		}
	}

	t.Run("SessionPoolingWorksWithItsDefaults", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := setup(ctx, t)
		// A pool of PgBouncer has 20 connections by default.
		s.dbURL = s.startPgBouncer(ctx, t, program, "") + "&pool_max_conns=4"
		s.worksThroughout(ctx, t)
	})

	for _, mode := range []string{"transaction", "statement"} {
		t.Run("Refuses_"+mode+"_pooling", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			s := &stack{brokerURL: "nats://127.0.0.1:1", database: dbtest.Database(ctx, t)}
			s.dbURL = s.startPgBouncer(ctx, t, program, "pool_mode = "+mode)
			for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"worker"}, {"import", "-"}, {"status"}, {"audit"}} {
				out, err := s.run(ctx, t, "", command...)
				require.NotZero(t, exitCode(err), out)
				require.Contains(t, out, "set pool_mode to session, or connect to Postgres itself", strings.Join(command, " "))
			}
		})
	}
}

// startPgBouncer returns the URL of the stack's database through a PgBouncer.
func (s *stack) startPgBouncer(ctx context.Context, t *testing.T, program, settings string) string {
	t.Helper()
	server, err := pgconn.ParseConfig(s.database.URL)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	path := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `[databases]
* = host=%s port=%d user=%s password=%s
[pgbouncer]
auth_type = any
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
%s
`, server.Host, server.Port, server.User, server.Password, port, settings), 0o644))
	args := []string{path}
	if os.Getuid() == 0 { // which it refuses to run as
		args = append([]string{"-u", "nobody"}, args...)
	}
	logs := &logBuffer{}
	command := childproc.Command(context.WithoutCancel(ctx), program, args...)
	command.Stdout, command.Stderr = logs, logs
	require.NoError(t, command.Start())
	exited := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("output of pgbouncer:\n%s", logs.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}, patience, poll, "pgbouncer answers")
	return (&url.URL{
		Host: address, Path: "/" + server.Database, RawQuery: "sslmode=disable", Scheme: "postgres", User: url.User("anybody"),
	}).String()
}
