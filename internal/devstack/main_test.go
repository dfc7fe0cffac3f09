package devstack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/devstack"
)

// childVariable turns this test binary into a program that starts a server and
// waits: the parent that the tests kill.
const childVariable = "TRUEGREEN_DEVSTACK_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := runChild(os.Getenv(childVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childOrder says what the child program does.
type childOrder struct {
	DataDir  string
	Watchdog bool
}

// childReport is what it answers.
type childReport struct {
	PID int
	URL string
}

func runChild(order string) error {
	var parsed childOrder
	if err := json.Unmarshal([]byte(order), &parsed); err != nil {
		return err
	}
	config := devstack.PostgresConfig{DataDir: parsed.DataDir}
	if parsed.Watchdog {
		config = devstack.WithWatchdog(config)
	}
	server, err := devstack.StartPostgres(context.Background(), config)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(childReport{server.PID(), server.URL(devstack.MainDatabase)}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startChild runs the child program until it has a server.
func startChild(t *testing.T, order childOrder) (*childproc.Cmd, childReport) {
	t.Helper()
	text, err := json.Marshal(order)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)

	command := childproc.Command(context.Background(), self)
	command.Env = append(os.Environ(), childVariable+"="+string(text))
	command.Stderr = os.Stderr
	_, err = command.StdinPipe()
	require.NoError(t, err)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill() })

	var report childReport
	require.NoError(t, json.NewDecoder(output).Decode(&report))
	require.NotZero(t, report.PID)
	return command, report
}

// kill ends the child program as a crash would.
func kill(t *testing.T, command *childproc.Cmd) {
	t.Helper()
	require.NoError(t, command.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(t, command.Wait(), &exit)
}

// suspend keeps a process from doing anything.
func suspend(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}

// makeDir makes a folder that Postgres can reach, also as another user.
func makeDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	// The parent, one for the whole test, is open to this user alone.
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	require.NoError(t, os.Chmod(dir, 0o711))
	return dir
}

// notices collects what a user would be told.
type notices struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notices) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text.WriteString(line + "\n")
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// start starts a server that is stopped when the test ends, and returns what
// its user was told.
func start(ctx context.Context, t *testing.T, config devstack.PostgresConfig) (*devstack.Postgres, *notices) {
	t.Helper()
	told := &notices{}
	config.Notice = told.add
	if config.Settings == nil {
		// Most tests harm processes, not machines.
		config.Settings = map[string]string{"fsync": "off"}
	}
	server, err := devstack.StartPostgres(ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(ctx)) })
	return server, told
}

// query runs one statement that returns one value.
func query[T any](ctx context.Context, t *testing.T, databaseURL, statement string) T {
	t.Helper()
	conn, err := pgx.Connect(ctx, databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	var value T
	require.NoError(t, conn.QueryRow(ctx, statement).Scan(&value))
	return value
}

// execute runs one statement.
func execute(ctx context.Context, t *testing.T, databaseURL, statement string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, statement)
	require.NoError(t, err)
}

// ownerAttributes makes a program run as the user whose file it is.
func ownerAttributes(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	owner, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: owner.Gid, Uid: owner.Uid}}
}

var errOffline = errors.New("no network in this test")

func offline(context.Context, int) (string, error) { return "", errOffline }
