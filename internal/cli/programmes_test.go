package cli_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_ProgrammesApply(t *testing.T) {
	t.Parallel()

	t.Run("SaysWhatBecameOfEachAndWhatIsNext", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.versions = sampleVersions()
		file := writeFile(t, "programmes.yaml", "programmes: []\n")
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "apply", file), bundle.errOut.String())
		require.Equal(t, []string{"apply " + file + " as cli:ana: programmes: []\n"}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Equal(t, `first-deposit: created version 2, waits for approval
  next, by somebody else: truegreen programmes approve first-deposit 2
weekly-cashback: unchanged (version 1), in force
`, bundle.out.String())
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("ReadsStandardInput", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.in.Reset("programmes: [x]")
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "apply", "-", "--as= bo "))
		require.Equal(t, []string{"apply standard input as bo: programmes: [x]"}, bundle.actions.calls)
		require.Equal(t, "no programmes\n", bundle.out.String())
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "apply", "-", "--json"))
		require.JSONEq(t, `{"programmes": []}`, bundle.out.String())

		bundle = setup(t)
		bundle.actions.versions = sampleVersions()
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "apply", "-", "--json"))
		require.JSONEq(t, sampleVersionsJSON, bundle.out.String())
	})

	t.Run("NamesAFileThatCannotBeRead", func(t *testing.T) {
		t.Parallel()

		missing := filepath.Join(t.TempDir(), "missing")
		bundle := setup(t)
		require.Equal(t, cli.ExitFailed, bundle.run(t, "programmes", "apply", missing))
		require.Contains(t, bundle.errOut.String(), missing)

		folder := t.TempDir()
		bundle = setup(t)
		require.Equal(t, cli.ExitFailed, bundle.run(t, "programmes", "apply", folder))
		require.Equal(t, "truegreen: "+folder+" is a folder, not a file\n", bundle.errOut.String())
		require.Empty(t, bundle.actions.calls)
	})
}

// sampleVersionsJSON is what --json makes of sampleVersions.
const sampleVersionsJSON = `{"programmes": [
	{
		"approved_at": null, "approved_by": "", "code": "first-deposit", "created_at": "2026-09-30T08:00:00Z", "created_by": "cli:ana",
		"currency": "KRW", "effective_from": "2026-11-01", "hash": "ab12", "kind": "lossback", "period": "daily",
		"status": "waits for approval", "time_zone": "Asia/Seoul", "unchanged": false, "version": 2
	},
	{
		"approved_at": "2026-09-30T09:00:00Z", "approved_by": "bo", "code": "weekly-cashback", "created_at": "2026-09-30T08:00:00Z",
		"created_by": "cli:ana", "currency": "KRW", "effective_from": "2026-10-01", "hash": "cd34", "kind": "cashback", "period": "weekly",
		"status": "in force", "time_zone": "Asia/Seoul", "unchanged": true, "version": 1
	}
]}`

func TestExecute_ProgrammesList(t *testing.T) {
	t.Parallel()

	t.Run("PrintsATable", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.versions = sampleVersions()
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "list"))
		require.Equal(t, []string{"list programmes"}, bundle.actions.calls)
		require.Equal(t, `PROGRAMME        VERSION  STATUS              KIND      CURRENCY  PERIOD  TIME ZONE   EFFECTIVE FROM  CREATED BY  APPROVED BY
first-deposit    2        waits for approval  lossback  KRW       daily   Asia/Seoul  2026-11-01      cli:ana     -
weekly-cashback  1        in force            cashback  KRW       weekly  Asia/Seoul  2026-10-01      cli:ana     bo
`, bundle.out.String())
	})

	t.Run("SaysThatThereAreNone", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "list"))
		require.Equal(t, "no programmes\n", bundle.out.String())

		bundle = setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "list", "--json"))
		require.JSONEq(t, `{"programmes": []}`, bundle.out.String())
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.versions = sampleVersions()
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "list", "--json"))
		require.JSONEq(t, sampleVersionsJSON, bundle.out.String())
	})
}

func TestExecute_ProgrammesApprove(t *testing.T) {
	t.Parallel()

	t.Run("ApprovesAndSaysFromWhen", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.versions = sampleVersions()[1:]
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "approve", "weekly-cashback", "1", "--as=bo"))
		require.Equal(t, []string{"approve {As:bo Code:weekly-cashback Version:1}"}, bundle.actions.calls)
		require.Equal(t, "approved weekly-cashback version 1: in force, effective from 2026-10-01 (Asia/Seoul)\n", bundle.out.String())
	})

	t.Run("IsTheUserWithoutAs", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "programmes", "approve", "x", "2147483647", "--json"))
		require.Equal(t, []string{"approve {As:cli:ana Code:x Version:2147483647}"}, bundle.actions.calls)
		require.Contains(t, bundle.out.String(), `"approved_by": `)
	})
}

func TestExecute_ProgrammesWrongUsage(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		args   []string
		errOut string
	}{
		"ApplyNothing":        {[]string{"apply"}, "apply takes one FILE, or - for standard input, got 0\nsee 'truegreen programmes apply --help'\n"},
		"ApplyTwo":            {[]string{"apply", "a", "b"}, "apply takes one FILE, or - for standard input, got 2\nsee 'truegreen programmes apply --help'\n"},
		"ApplyAsNobody":       {[]string{"apply", "-", "--as="}, "--as must be given, with 1 to 200 characters, got 0\nsee 'truegreen programmes apply --help'\n"},
		"ApproveAsTooLong":    {[]string{"approve", "x", "1", "--as=" + strings.Repeat("é", 201)}, "--as must be given, with 1 to 200 characters, got 201\nsee 'truegreen programmes approve --help'\n"},
		"ApproveCodeBlank":    {[]string{"approve", " ", "1"}, "CODE must not be empty\nsee 'truegreen programmes approve --help'\n"},
		"ApproveNoVersion":    {[]string{"approve", "x"}, "approve takes CODE and VERSION, got 1\nsee 'truegreen programmes approve --help'\n"},
		"ApproveVersionZero":  {[]string{"approve", "x", "0"}, "VERSION must be a whole number from 1 to 2147483647, got \"0\"\nsee 'truegreen programmes approve --help'\n"},
		"ApproveVersionWord":  {[]string{"approve", "x", "v2"}, "VERSION must be a whole number from 1 to 2147483647, got \"v2\"\nsee 'truegreen programmes approve --help'\n"},
		"ApproveVersionLarge": {[]string{"approve", "x", "2147483648"}, "VERSION must be a whole number from 1 to 2147483647, got \"2147483648\"\nsee 'truegreen programmes approve --help'\n"},
		"GroupAlone":          {nil, "programmes needs a command\nsee 'truegreen programmes --help'\n"},
		"ListOfOne":           {[]string{"list", "x"}, "list takes no argument, got \"x\"\nsee 'truegreen programmes list --help'\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			require.Equal(t, cli.ExitWrongUsage, bundle.run(t, append([]string{"programmes"}, tc.args...)...))
			require.Equal(t, "truegreen: "+tc.errOut, bundle.errOut.String())
			require.Empty(t, bundle.out.String())
			require.Empty(t, bundle.actions.calls)
		})
	}
}
