package anomaly_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

// exempt are what has no case, and why not.
var exempt = map[string]string{
	"command dev":            "its parts are the commands and jobs that have cases",
	"command healthcheck":    "asks a process by HTTP, which TestMonitor stands for",
	"command migrate down":   "each migration is one transaction of goose, which stops at the first that fails; only tests undo",
	"command migrate status": "reads goose's table alone",
	"command migrate up":     "each migration is one transaction of goose, which stops at the first that fails",
	"command sample":         "asks no database",
	"command version":        "asks no database",
	"command worker":         "its loops, sweeps and probes have cases; what it asks at its start are those of commands and TestStart",
}

// TestEnrolled fails for a kind of job, a command or a probe that was added and
// has no case: give it one, or write here why it needs none.
func TestEnrolled(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{"probe monitor": true, "probe prover": true} // TestMonitor, TestAnswers
	operations := slices.Concat(outboxOperations(), settlementOperations(), commandOperations(nil), []*operation{watching()})
	for _, op := range operations {
		for _, what := range op.covers {
			covered[what] = true
		}
	}
	for _, args := range []string{"broker provision", "outbox reconcile"} { // TestAnswers
		covered["command "+args] = true
	}

	wanted := slices.Concat(jobKinds(t), commandPaths(), probes(t))
	require.Greater(t, len(wanted), 40, "%v", wanted)
	for _, what := range wanted {
		reason, isExempt := exempt[what]
		require.NotEqual(t, covered[what], isExempt, "%s must have a case in test/anomaly, or else a reason in exempt (has case: %t; reason: %q)", what, covered[what], reason)
	}
	for what := range maps.Keys(exempt) {
		require.Contains(t, wanted, what, "it is exempt and does not exist")
	}
}

// jobKinds are the kinds that package jobs declares.
func jobKinds(t *testing.T) []string {
	t.Helper()
	return find(t, "../../jobs/*.go", `Args\) Kind\(\) string \{ return "([a-z_]+)" \}`, "job ")
}

// probes are what a worker runs beside its jobs.
func probes(t *testing.T) []string {
	t.Helper()
	return find(t, "../../internal/app/*.go", `background\.Go\(func\(\) \{ worker\.(?:broker\.)?([a-z]+)\.Run\(`, "probe ")
}

// find returns what the pattern's group matches in files, with a prefix.
func find(t *testing.T, files, pattern, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob(files)
	require.NoError(t, err)
	var found []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, prefix+match[1])
		}
	}
	require.NotEmpty(t, found, "nothing of %s looks like %s any more", files, pattern)
	return found
}

// commandPaths are the commands that do something.
func commandPaths() []string {
	root := cli.New(cli.Options{Bind: func(*pflag.FlagSet, ...string) {}})
	var found []string
	var walk func(command *cobra.Command, path string)
	walk = func(command *cobra.Command, path string) {
		if len(command.Commands()) == 0 {
			found = append(found, "command "+strings.TrimSpace(path))
		}
		for _, below := range command.Commands() {
			walk(below, path+" "+below.Name())
		}
	}
	walk(root, "")
	return found
}
