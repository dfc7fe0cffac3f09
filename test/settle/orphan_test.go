package settle_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
)

// TestProcesses_OfACutOffTest kills this test binary, in another process, while it has
// a stopped child.
func TestProcesses_OfACutOffTest(t *testing.T) {
	t.Parallel()

	t.Run("EndAllOfThemStoppedOnesToo", func(t *testing.T) {
		t.Parallel()

		self, err := os.Executable()
		require.NoError(t, err)
		parent := childproc.Command(t.Context(), self, "-test.run=^TestSettlement_ThoughtDead$/^WithARunThatIsTakenWritesNothing$")
		var output bytes.Buffer
		parent.Stderr, parent.Stdout = &output, &output
		require.NoError(t, parent.Start())
		ended := make(chan error, 1)
		go func() { ended <- parent.Wait() }()

		var children map[int]string
		require.Eventually(t, func() bool {
			children = childrenOf(t, parent.Process.Pid)
			for _, state := range children {
				if state == "T" {
					return true
				}
			}
			return len(ended) > 0
		}, patience, poll)
		require.Empty(t, ended, "the test ended before it had a stopped child: %s", &output)
		require.NoError(t, parent.Process.Kill())

		// It ends once nobody holds its output.
		var exit *exec.ExitError
		require.ErrorAs(t, <-ended, &exit)
		for pid := range children {
			require.Eventually(t, func() bool {
				_, state, ok := readStat(t, pid)
				return !ok || strings.ContainsAny(state, "XZ")
			}, patience, poll, "process %d", pid)
		}
	})
}

// childrenOf are the children of a process, each with its state.
func childrenOf(t *testing.T, parent int) map[int]string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	children := make(map[int]string)
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		require.NoError(t, err)
		if of, state, ok := readStat(t, pid); ok && of == parent {
			children[pid] = state
		}
	}
	return children
}

// readStat is false for a process that has ended.
func readStat(t *testing.T, pid int) (parent int, state string, ok bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", false
	}
	// The name, in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	_, err = fmt.Sscanf(rest, "%s %d", &state, &parent)
	require.NoError(t, err)
	return parent, state, true
}
