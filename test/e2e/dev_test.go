package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// devEnvironment is what a newcomer's shell has, and nothing of ours.
func devEnvironment() []string {
	return []string{"HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH"), "TRUEGREEN_LOG=json", "DATABASE_URL=postgres://never@127.0.0.1:1/used"}
}

func startDev(t *testing.T, dir string, more ...string) *process {
	t.Helper()
	args := append([]string{"dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--postgres-port", "0", "--broker-port", "0"}, more...)
	return (&stack{}).start(t, devEnvironment(), args...)
}

// postmaster is the process id of the private server of a data folder.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	var pid int
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "postmaster.pid" {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(text), "\n")
			pid, err = strconv.Atoi(first)
			require.NoError(t, err)
		}
		return nil
	})
	require.NoError(t, err)
	require.NotZero(t, pid)
	return pid
}

func isRunning(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestDev(t *testing.T) {
	t.Parallel()

	t.Run("StartsEverythingAndStopsItWell", func(t *testing.T) {
		t.Parallel()
		dir := dbtest.DataDir(t)
		dev := startDev(t, dir, "--no-sample")
		dev.waitReady(t)
		require.Equal(t, http.StatusOK, dev.probe(t, "/livez").Code)

		env, err := os.ReadFile(filepath.Join(dir, "env"))
		require.NoError(t, err)
		for _, name := range []string{"DATABASE_URL", "NATS_URL", "TRUEGREEN_TOKEN", "TRUEGREEN_URL"} {
			require.Regexp(t, `(?m)^export `+name+`='[^']+'$`, string(env))
		}
		pid := postmaster(t, dir)
		dev.stop(t, syscall.SIGINT)
		require.Equal(t, 0, dev.command.ProcessState.ExitCode())
		require.Eventually(t, func() bool { return !isRunning(pid) }, patience, poll)

		said := dev.logs.String()
		require.Regexp(t, `^starting a development stack; its data are kept in `, said)
		require.Regexp(t, `\nstopped; data kept in `+regexp.QuoteMeta(dir)+`: [^\n]+\n$`, said)
		require.NotContains(t, said, "power cut", "a newcomer is not warned of what is so by design")
	})

	t.Run("LeavesNothingBehindWhenItIsKilledAndStartsAgain", func(t *testing.T) {
		t.Parallel()
		dir := dbtest.DataDir(t)
		first := startDev(t, dir, "--no-sample")
		first.waitReady(t)
		pid := postmaster(t, dir)
		first.stop(t, syscall.SIGKILL)
		require.Eventually(t, func() bool { return !isRunning(pid) }, patience, poll, "the database must not outlive its parent")

		second := startDev(t, dir, "--no-sample")
		second.waitReady(t)
	})

	t.Run("RefusesASecondOneOnTheSameData", func(t *testing.T) {
		t.Parallel()
		dir := dbtest.DataDir(t)
		first := startDev(t, dir, "--no-sample")
		first.waitReady(t)
		s := &stack{}
		out, err := s.run(t.Context(), t, "", "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--no-sample")
		require.Error(t, err)
		require.Contains(t, out, "in use")
	})

	t.Run("RefusesAFolderThatIsNotItsOwn", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		foreign := filepath.Join(dir, "thesis.txt")
		require.NoError(t, os.WriteFile(foreign, []byte("dear"), 0o600))
		s := &stack{}
		for _, more := range [][]string{nil, {"--fresh"}} {
			out, err := s.run(t.Context(), t, "", append([]string{"dev", "--data-dir", dir}, more...)...)
			require.Error(t, err)
			require.Contains(t, out, dir)
		}
		require.FileExists(t, foreign)
	})
}
