package cli_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
	"truegreen/migrations"
)

func TestExecute_Commands(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		args   []string
		call   string
		groups []string
		out    string
	}{
		"BrokerProvision": {
			args:   []string{"broker", "provision"},
			call:   "provision",
			groups: []string{"broker", "database"},
			out: `STREAM            CHANGE   SUBJECTS            DURABILITY          NOTE
TRUEGREEN_WALLET  created  truegreen.wallet.>  1 replica, no sync  survives no power cut
TRUEGREEN_AGENT   updated  truegreen.agent.>   -                   -
`,
		},
		"Dev": {
			args:   []string{"dev"},
			call:   "dev {BrokerPort:14222 DataDir:.truegreen Fresh:false NoSample:false PostgresPort:15432}",
			groups: []string{"dev", "http", "log"},
		},
		"DevWithFlags": {
			args:   []string{"dev", "--fresh", "--no-sample", "--data-dir=/x", "--postgres-port=1", "--broker-port=0", "--of-dev=x"},
			call:   "dev {BrokerPort:0 DataDir:/x Fresh:true NoSample:true PostgresPort:1}",
			groups: []string{"dev", "http", "log"},
		},
		"Healthcheck": {
			args:   []string{"healthcheck"},
			call:   "healthcheck ready",
			groups: []string{"api"},
			out:    "ready\n",
		},
		"HealthcheckLive": {
			args:   []string{"healthcheck", "--check=live"},
			call:   "healthcheck live",
			groups: []string{"api"},
			out:    "ready\n",
		},
		"LoopsPause": {
			args:   []string{"loops", "pause", "outbox_wallet", "--reason", " broker is moved "},
			call:   "pause {As:cli:ana Loop:outbox_wallet Reason:broker is moved}",
			groups: []string{"database"},
			out:    "paused outbox_wallet\n",
		},
		"LoopsResume": {
			args:   []string{"loops", "resume", "outbox_wallet", "--reason=done", "--as=bo"},
			call:   "resume {As:bo Loop:outbox_wallet Reason:done}",
			groups: []string{"database"},
			out:    "resumed outbox_wallet\n",
		},
		"MigrateDown": {
			args:   []string{"migrate", "down"},
			call:   "down",
			groups: []string{"database"},
			out:    "undid 00001_a.sql\n",
		},
		"MigrateStatus": {
			args:   []string{"migrate", "status"},
			call:   "migrate status",
			groups: []string{"database"},
			out:    "MIGRATION    STATE\n00001_a.sql  applied\n00002_b.sql  missing\n",
		},
		"MigrateUp": {
			args:   []string{"migrate", "up"},
			call:   "up",
			groups: []string{"database"},
			out:    "applied 00001_a.sql\n",
		},
		"Sample": {
			args: []string{"sample", "--seed=18446744073709551615", "--players=3", "--days=2"},
			call: "sample {Days:2 Players:3 Seed:18446744073709551615}",
			out:  "{}\n",
		},
		"Worker": {
			args:   []string{"worker", "--of-worker=x"},
			call:   "worker",
			groups: []string{"broker", "database", "http", "log", "worker"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			bundle.actions.health = cli.Health{Healthy: true, Text: "ready\n"}
			bundle.actions.names = []string{"00001_a.sql"}
			bundle.actions.statuses = []migrations.Status{{Applied: true, Name: "00001_a.sql", Version: 1}, {Name: "00002_b.sql", Version: 2}}
			bundle.actions.streams = []cli.BrokerStream{
				{Change: "created", Durability: "1 replica, no sync", Name: "TRUEGREEN_WALLET", Note: "survives no power cut", Subjects: "truegreen.wallet.>"},
				{Change: "updated", Name: "TRUEGREEN_AGENT", Subjects: "truegreen.agent.>"},
			}
			require.Equal(t, cli.ExitGood, bundle.run(t, tc.args...), bundle.errOut.String())
			require.Equal(t, []string{tc.call}, bundle.actions.calls)
			require.Equal(t, tc.groups, bundle.groups)
			require.Equal(t, tc.out, bundle.out.String())
			require.Empty(t, bundle.errOut.String())
		})
	}
}

func TestExecute_JSON(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		args []string
		out  string
	}{
		"BrokerProvision": {
			args: []string{"broker", "provision", "--json"},
			out:  `{"streams": [{"name": "TRUEGREEN_WALLET", "change": "created", "durability": "", "subjects": "truegreen.wallet.>"}]}`,
		},
		"Healthcheck": {
			args: []string{"healthcheck", "--json"},
			out:  `{"check": "ready", "healthy": true, "text": "ready"}`,
		},
		"MigrateDown":   {args: []string{"migrate", "down", "--json"}, out: `{"undone": []}`},
		"MigrateStatus": {args: []string{"migrate", "status", "--json"}, out: `{"migrations": [{"applied": true, "name": "00001_a.sql", "version": 1}]}`},
		"MigrateUp":     {args: []string{"migrate", "up", "--json"}, out: `{"applied": []}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			bundle.actions.health = cli.Health{Healthy: true, Text: "ready"}
			bundle.actions.statuses = []migrations.Status{{Applied: true, Name: "00001_a.sql", Version: 1}}
			bundle.actions.streams = []cli.BrokerStream{{Change: "created", Name: "TRUEGREEN_WALLET", Subjects: "truegreen.wallet.>"}}
			require.Equal(t, cli.ExitGood, bundle.run(t, tc.args...))
			require.JSONEq(t, tc.out, bundle.out.String())
		})
	}
}

func TestExecute_NothingToDo(t *testing.T) {
	t.Parallel()

	for verb, out := range map[string]string{"up": "nothing to apply\n", "down": "nothing to undo\n"} {
		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "migrate", verb))
		require.Equal(t, out, bundle.out.String())
	}
}

func TestExecute_WrongUsage(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		args   []string
		errOut string
	}{
		"Check":            {[]string{"healthcheck", "--check=alive"}, "--check must be one of ready, live, startup, got \"alive\"\nsee 'truegreen healthcheck --help'\n"},
		"DataDir":          {[]string{"dev", "--data-dir="}, "--data-dir must not be empty\nsee 'truegreen dev --help'\n"},
		"Flag":             {[]string{"worker", "--fast"}, "unknown flag: --fast\nsee 'truegreen worker --help'\n"},
		"FlagButNear":      {[]string{"outbox", "parked", "--steram=wallet"}, "unknown flag: --steram; did you mean --stream?\nsee 'truegreen outbox parked --help'\n"},
		"FlagOfAnother":    {[]string{"sample", "--of-broker=x"}, "unknown flag: --of-broker\nsee 'truegreen sample --help'\n"},
		"FlagWithoutValue": {[]string{"worker", "--of-worker"}, "flag needs an argument: --of-worker\nsee 'truegreen worker --help'\n"},
		"GroupAlone":       {[]string{"migrate"}, "migrate needs a command\nsee 'truegreen migrate --help'\n"},
		"HelpOfUnknown":    {[]string{"help", "frobnicate"}, "unknown command \"frobnicate\"; truegreen has audit, broker, dev, healthcheck, import, loops, migrate, outbox, programmes, sample, settlement, status, version, worker\nsee 'truegreen help --help'\n"},
		"HelpOfUnknownSub": {[]string{"help", "migrate", "bogus"}, "unknown command \"bogus\"; truegreen migrate has down, status, up\nsee 'truegreen help --help'\n"},
		"HelpFlagUnknown":  {[]string{"frobnicate", "--help"}, "unknown command \"frobnicate\"; truegreen has audit, broker, dev, healthcheck, import, loops, migrate, outbox, programmes, sample, settlement, status, version, worker\nsee 'truegreen --help'\n"},
		"HelpFlagBelow":    {[]string{"migrate", "upp", "--help"}, "unknown command \"upp\"; did you mean up?\nsee 'truegreen migrate --help'\n"},
		"ImportNothing":    {[]string{"import"}, "import needs a FILE, or - for standard input\nsee 'truegreen import --help'\n"},
		"ImportStdinTwice": {[]string{"import", "-", "-"}, "- may be given once\nsee 'truegreen import --help'\n"},
		"LoopMissing":      {[]string{"loops", "pause", "--reason=x"}, "pause takes one LOOP, got 0\nsee 'truegreen loops pause --help'\n"},
		"Port":             {[]string{"dev", "--broker-port=70000"}, "--broker-port and --postgres-port must be from 0 to 65535\nsee 'truegreen dev --help'\n"},
		"ReasonBlank":      {[]string{"loops", "resume", "x", "--reason= "}, "--reason must be given, with 1 to 500 characters, got 0\nsee 'truegreen loops resume --help'\n"},
		"ReasonMissing":    {[]string{"loops", "pause", "x"}, "--reason must be given, with 1 to 500 characters, got 0\nsee 'truegreen loops pause --help'\n"},
		"SampleOfNobody":   {[]string{"sample", "--players=0"}, "--days and --players must be above 0\nsee 'truegreen sample --help'\n"},
		"SampleSeed":       {[]string{"sample", "--seed=-1"}, "invalid argument \"-1\" for \"--seed\" flag: strconv.ParseUint: parsing \"-1\": invalid syntax\nsee 'truegreen sample --help'\n"},
		"StrayArgument":    {[]string{"worker", "now"}, "worker takes no argument, got \"now\"\nsee 'truegreen worker --help'\n"},
		"Unknown":          {[]string{"frobnicate"}, "unknown command \"frobnicate\"; truegreen has audit, broker, dev, healthcheck, import, loops, migrate, outbox, programmes, sample, settlement, status, version, worker\nsee 'truegreen --help'\n"},
		"UnknownBelow":     {[]string{"migrate", "upp"}, "unknown command \"upp\"; did you mean up?\nsee 'truegreen migrate --help'\n"},
		"UnknownButNear":   {[]string{"wroker"}, "unknown command \"wroker\"; did you mean worker?\nsee 'truegreen --help'\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			require.Equal(t, cli.ExitWrongUsage, bundle.run(t, tc.args...))
			require.Equal(t, "truegreen: "+tc.errOut, bundle.errOut.String())
			require.Empty(t, bundle.out.String())
			require.Empty(t, bundle.actions.calls)
		})
	}

	t.Run("WrongSettings", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.readErr = errors.New("read settings:\nDATABASE_URL is required")
		require.Equal(t, cli.ExitWrongUsage, bundle.run(t, "worker"))
		require.Equal(t, "truegreen: read settings:\nDATABASE_URL is required\nsee 'truegreen worker --help'\n", bundle.errOut.String())
		require.Empty(t, bundle.actions.calls)
	})

	t.Run("ToldByTheAction", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.err = cli.WrongUsage(errors.New("there is no such seed"))
		require.Equal(t, cli.ExitWrongUsage, bundle.run(t, "sample"))
	})

	t.Run("NoCommandAtAll", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitWrongUsage, bundle.run(t))
		require.Contains(t, bundle.out.String(), "Available Commands:")
		require.Empty(t, bundle.errOut.String())
	})
}

func TestExecute_Failures(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{
		{"programmes", "apply", "-"}, {"programmes", "approve", "x", "1"}, {"programmes", "list"},
		{"settlement", "acknowledge", "1", "--reason=y"}, {"settlement", "approve", "1"}, {"settlement", "cancel", "1", "--reason=y"},
		{"settlement", "list"}, {"settlement", "preview", "x", "y"}, {"settlement", "reject", "1", "--reason=y"},
		{"settlement", "run", "x", "y"}, {"settlement", "run", "x", "y", "--wait"}, {"settlement", "show", "1"},
		{"broker", "provision"}, {"dev"}, {"healthcheck"}, {"import", "-"}, {"loops", "pause", "x", "--reason=y"},
		{"loops", "resume", "x", "--reason=y"}, {"migrate", "down"}, {"migrate", "status"}, {"migrate", "up"}, {"sample"}, {"worker"},
	} {
		t.Run(strings.Join(args, "_"), func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			bundle.actions.err = errors.New("reach database: connection refused")
			require.Equal(t, cli.ExitFailed, bundle.run(t, args...))
			require.Contains(t, bundle.errOut.String(), "reach database: connection refused\n")
			require.Equal(t, 1, strings.Count(bundle.errOut.String(), "connection refused"), "an error is printed once")
			require.True(t, strings.HasPrefix(bundle.errOut.String(), "truegreen: "))
			require.NotContains(t, bundle.errOut.String(), "--help")
		})
	}

	t.Run("UnhealthyIsSaidAndFails", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.health = cli.Health{Text: "not ready\noutbox_wallet: stalled"}
		require.Equal(t, cli.ExitFailed, bundle.run(t, "healthcheck", "--check=ready"))
		require.Equal(t, "not ready\noutbox_wallet: stalled\n", bundle.out.String())
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("WhoIsUnknownIsRecordedSo", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.user = ""
		require.Equal(t, cli.ExitGood, bundle.run(t, "loops", "pause", "x", "--reason=y"))
		require.Equal(t, []string{"pause {As:cli:unknown Loop:x Reason:y}"}, bundle.actions.calls)
	})
}

func TestExecute_Help(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "worker", "--help"))
	require.Contains(t, bundle.out.String(), "--of-worker")
	require.Empty(t, bundle.actions.calls)

	bundle = setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "--help"))
	require.NotContains(t, bundle.out.String(), "completion")
}

func TestExecute_Version(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "version"))
	require.Regexp(t, `^truegreen v1\.2\.3 \(schema \d+, go\S+, \w+/\w+\)\n$`, bundle.out.String())

	bundle = setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "version", "--json"))
	require.Contains(t, bundle.out.String(), `"version": "v1.2.3"`)
	require.Contains(t, bundle.out.String(), `"newest_migration": `)
}

func TestNew(t *testing.T) {
	t.Parallel()

	var check func(command *cobra.Command)
	check = func(command *cobra.Command) {
		require.NotEmpty(t, command.Short, command.CommandPath())
		for _, below := range command.Commands() {
			check(below)
		}
	}
	check(cli.New(setup(t).options()))
}
