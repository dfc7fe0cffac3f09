package childproc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
)

const (
	// parentVariable turns this test binary into a parent that the tests kill.
	parentVariable = "TRUEGREEN_CHILDPROC_PARENT"

	patience = 60 * time.Second
	poll     = 10 * time.Millisecond
)

// childScript says what a child is, whether it inherited descriptor 3, and stops.
const childScript = `if [ -e /dev/fd/3 ]; then echo "$$ inherited"; else echo "$$ clean"; fi; kill -STOP $$; read line`

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		if err := runParent(os.Getenv(parentVariable) == "watchdog"); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// runParent starts a child that stops itself, passes on what it said, and waits to
// be killed.
func runParent(useWatchdog bool) error {
	child := childproc.Command(context.Background(), "/bin/sh", "-c", childScript)
	child.UseWatchdog = useWatchdog
	if _, err := child.StdinPipe(); err != nil {
		return err
	}
	output, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	said, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		return err
	}
	_, _ = fmt.Fprint(os.Stdout, said)
	return child.Wait()
}

// stateOf is the state letter of a process, and Z if there is none.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return "Z"
	}
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func TestCmd_Start(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system does not show the states of processes in /proc")
	}

	for _, means := range []string{"signal", "watchdog"} {
		t.Run("EndsAStoppedChildWhenTheParentIsKilledBy_"+means, func(t *testing.T) {
			t.Parallel()

			self, err := os.Executable()
			require.NoError(t, err)
			reader, writer, err := os.Pipe()
			require.NoError(t, err)
			defer func() { _ = reader.Close() }()
			parent := childproc.Command(t.Context(), self)
			parent.Env = append(os.Environ(), parentVariable+"="+means)
			parent.ExtraFiles = []*os.File{writer} // descriptor 3 of the parent
			output, err := parent.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, parent.Start())
			require.NoError(t, writer.Close())

			said, err := bufio.NewReader(output).ReadString('\n')
			require.NoError(t, err)
			digits, inheritance, _ := strings.Cut(strings.TrimSpace(said), " ")
			require.Equal(t, "clean", inheritance, "the child has a descriptor that nobody gave it")
			pid, err := strconv.Atoi(digits)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return stateOf(t, pid) == "T" }, patience, poll)

			require.NoError(t, parent.Process.Kill())
			var exit *exec.ExitError
			require.ErrorAs(t, parent.Wait(), &exit)
			require.Eventually(t, func() bool { return strings.ContainsAny(stateOf(t, pid), "ZX") }, patience, poll)
		})
	}
}

func TestCmd_Output(t *testing.T) {
	t.Parallel()

	t.Run("ReturnsWhatWasSaidAndTheErrorOfTheEnd", func(t *testing.T) {
		t.Parallel()

		output, err := childproc.Command(t.Context(), "/bin/sh", "-c", "echo out; echo err >&2; exit 3").Output()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 3, exit.ExitCode())
		require.Equal(t, "err\n", string(exit.Stderr))
		require.Equal(t, "out\n", string(output))

		output, err = childproc.Command(t.Context(), "/bin/sh", "-c", "echo out; echo err >&2").CombinedOutput()
		require.NoError(t, err)
		require.Equal(t, "out\nerr\n", string(output))
	})
}
