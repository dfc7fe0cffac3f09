package cli_test

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_Import(t *testing.T) {
	t.Parallel()

	t.Run("AppliesFilesInTheirOrder", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.in.Reset("s\n")
		one, other := writeFile(t, "one.jsonl", "a\nb\n"), writeFile(t, "other.jsonl", "")
		require.Equal(t, cli.ExitGood, bundle.run(t, "import", one, "-", other), bundle.errOut.String())
		require.Equal(t, []string{"a\nb\n", "s\n", ""}, bundle.actions.imported)
		require.Equal(t, []string{"import " + one, "import standard input", "import " + other}, bundle.actions.calls)
		require.Equal(t, one+": 2 lines: 2 applied, 0 unchanged, 0 refused\n"+
			"standard input: 1 lines: 1 applied, 0 unchanged, 0 refused\n"+
			other+": 0 lines: 0 applied, 0 unchanged, 0 refused\n", bundle.out.String())
	})

	t.Run("LeavesPackedFilesToTheAction", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "import", writeFile(t, "x.jsonl.gz", "\x1f\x8bpacked\n")))
		require.Equal(t, []string{"\x1f\x8bpacked\n"}, bundle.actions.imported)
	})

	t.Run("ShowsNothingOfWhatIsReadLate", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.in.Reset(strings.Repeat("x", 30<<20))
		bundle.actions.readsLate = true
		require.Equal(t, cli.ExitGood, bundle.run(t, "import", "-"))
		numRead, err := io.Copy(io.Discard, bundle.actions.late)
		require.NoError(t, err)
		require.Equal(t, int64(30<<20), numRead, "more than the first line of progress takes")
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("LooksAtAllFilesBeforeItAppliesOne", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		missing, folder := filepath.Join(t.TempDir(), "missing"), t.TempDir()
		require.Equal(t, cli.ExitFailed, bundle.run(t, "import", writeFile(t, "one.jsonl", "a\n"), missing, folder))
		require.Empty(t, bundle.actions.imported)
		require.Contains(t, bundle.errOut.String(), missing)
		require.Contains(t, bundle.errOut.String(), folder+" is a folder, not a file")
	})

	t.Run("StopsAtABadLineAndNamesFileAndLine", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		good, bad := writeFile(t, "good", "a\n"), writeFile(t, "bad", "a\nbad\n")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "import", good, bad, good))
		require.Len(t, bundle.actions.imported, 2)
		require.Equal(t, good+": 1 lines: 1 applied, 0 unchanged, 0 refused\n", bundle.out.String())
		require.Equal(t, "truegreen: "+bad+", line 2: no such type\n", bundle.errOut.String())
	})

	t.Run("PrintsJSONOfWhatWasDone", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		good, bad := writeFile(t, "good", "a\n"), writeFile(t, "bad", "bad\n")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "import", "--json", good, bad))
		require.JSONEq(t, `{"files": [{"file": `+strconv.Quote(good)+`, "num_applied": 1, "num_lines": 1, "num_refused": 0, "num_unchanged": 0, "refused": []}]}`, bundle.out.String())
		require.Contains(t, bundle.errOut.String(), "line 2")
	})

	t.Run("NamesWhatWasRefusedWhyAndWhereItIs", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.refused = cli.ImportResult{NumLines: 20, NumRefused: 12, Refused: []cli.ImportRefused{
			{Amount: 500, Balance: 100, ID: "b-1", Line: 4, Player: "p-1", Type: "bet"},
			{Amount: 101, Balance: 100, ID: "w\x1b-1", Line: 5, Player: "p-1", Type: "withdrawal"},
		}}
		name := writeFile(t, "x", "")
		require.Equal(t, cli.ExitGood, bundle.run(t, "import", name))
		require.Equal(t, name+`: 20 lines: 0 applied, 0 unchanged, 12 refused
  line 4: bet b-1 of player p-1 is refused: it needs 500, and the balance is 100 (minor units)
  line 5: withdrawal w -1 of player p-1 is refused: it needs 101, and the balance is 100 (minor units)
  and 10 more
  refused lines are stored, move no money, and stay refused: SELECT * FROM bet WHERE refusal IS NOT NULL; SELECT * FROM payment WHERE refusal IS NOT NULL
`, bundle.out.String())
	})

	t.Run("TellsALogHowFarItIs", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		name := writeFile(t, "large", "")
		require.NoError(t, os.Truncate(name, 60<<20))
		require.Equal(t, cli.ExitGood, bundle.run(t, "import", name))
		require.Equal(t, name+": read 25 of 60 MiB\n"+name+": read 50 of 60 MiB\n", bundle.errOut.String())
	})
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}
