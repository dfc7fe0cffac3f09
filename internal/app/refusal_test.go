package app_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"truegreen/internal/app"
	"truegreen/internal/appconfig"
	"truegreen/internal/cli"
	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// promotion is a programme.
const promotion = `programmes:
  - code: daily
    kind: cashback
    currency: KRW
    period: daily
    time_zone: Asia/Seoul
    effective_from: 2026-11-20
    basis: game
    categories: {slots: 1000000}
    tiers: [{from: 0, rate_ppm: 30000}]
    auto_approve_below: 1000000
`

// commandsOnTheSchema are calls of every command that works on our tables.
func commandsOnTheSchema(t *testing.T) [][]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte(promotion), 0o600))
	const event = "0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70"
	return [][]string{
		{"audit"},
		{"broker", "provision"},
		{"import", file},
		{"loops", "pause", "maintenance", "--reason=x"},
		{"loops", "resume", "maintenance", "--reason=x"},
		{"outbox", "discard", event, "--reason=x"},
		{"outbox", "parked"},
		{"outbox", "reconcile"},
		{"outbox", "redrive", event, "--reason=x"},
		{"outbox", "status"},
		{"programmes", "apply", file},
		{"programmes", "approve", "x", "1"},
		{"programmes", "list"},
		{"settlement", "accept", "--player=p", "--until=1h", "--reason=x"},
		{"settlement", "accepted"},
		{"settlement", "unaccept", "1", "--reason=x"},
		{"settlement", "acknowledge", "1", "--reason=x"},
		{"settlement", "adjust", "x", "2026-W45"},
		{"settlement", "approve", "1"},
		{"settlement", "cancel", "1", "--reason=x"},
		{"settlement", "explain", "x", "2026-W45", "p"},
		{"settlement", "export", "1"},
		{"settlement", "list"},
		{"settlement", "preview", "x", "2026-W45"},
		{"settlement", "reject", "1", "--reason=x"},
		{"settlement", "retry", "1"},
		{"settlement", "run", "x", "2026-W45"},
		{"settlement", "show", "1"},
		{"status"},
		{"worker"},
	}
}

// leaves are all commands that do something, as they are typed.
func leaves(command *cobra.Command) []string {
	if !command.HasSubCommands() {
		return []string{strings.TrimPrefix(command.CommandPath(), "truegreen ")}
	}
	var all []string
	for _, below := range command.Commands() {
		all = append(all, leaves(below)...)
	}
	return all
}

func run(ctx context.Context, databaseURL string, args ...string) (code int, out, errOut string) {
	var output, failure bytes.Buffer
	code = app.Run(ctx, app.Host{
		Environ: []string{"DATABASE_URL=" + databaseURL, "TRUEGREEN_BROKER=nats://127.0.0.1:1", "TRUEGREEN_LISTEN=127.0.0.1:0"},
		Streams: cli.Streams{Err: &failure, In: strings.NewReader(""), Out: &output},
		User:    "ana",
	}, args)
	return code, output.String(), failure.String()
}

func TestRun_WithoutMigrations(t *testing.T) {
	t.Parallel()

	calls := commandsOnTheSchema(t)

	t.Run("KnowsEveryCommandOnTheSchema", func(t *testing.T) {
		t.Parallel()

		known := []string{"dev", "healthcheck", "help", "migrate down", "migrate status", "migrate up", "sample", "version"}
		for _, call := range calls {
			known = append(known, call[0], strings.Join(call[:min(2, len(call))], " "))
		}
		for _, leaf := range leaves(cli.New(cli.Options{Bind: appconfig.BindFlags})) {
			require.Contains(t, known, leaf, "add it to commandsOnTheSchema")
		}
	})

	t.Run("EveryCommandSaysWhatToRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		for _, call := range calls {
			code, out, errOut := run(ctx, db.URL, call...)
			require.NotZero(t, code, call)
			require.Contains(t, errOut, "run 'truegreen migrate up'", call)
			require.NotContains(t, errOut, "SQLSTATE", call)
			require.Empty(t, out, call)
		}
	})
}

func TestRun_UnderRowSecurity(t *testing.T) {
	t.Parallel()

	t.Run("NamesTheTablesAndTheRole", func(t *testing.T) {
		t.Parallel()

		for _, table := range []string{"goose_db_version", "outbox_delivery"} {
			ctx := t.Context()
			db := dbtest.Database(ctx, t)
			role := strings.ReplaceAll(fmt.Sprintf("%s_reader", db.Pool.Config().ConnConfig.Database), "-", "_")
			for _, statement := range []string{
				"CREATE ROLE " + role + " LOGIN PASSWORD 'x'",
				"GRANT ALL ON ALL TABLES IN SCHEMA public TO " + role,
				"GRANT ALL ON SCHEMA public TO " + role,
				"ALTER TABLE " + table + " ENABLE ROW LEVEL SECURITY",
			} {
				_, err := db.Pool.Exec(ctx, statement)
				require.NoError(t, err)
			}
			t.Cleanup(func() {
				clean := context.WithoutCancel(ctx)
				_, err := db.Pool.Exec(clean, "DROP OWNED BY "+role)
				require.NoError(t, err)
				_, err = db.Pool.Exec(clean, "DROP ROLE "+role)
				require.NoError(t, err)
			})
			address, err := url.Parse(db.URL)
			require.NoError(t, err)
			address.User = url.UserPassword(role, "x")

			for _, call := range [][]string{{"worker"}, {"status"}, {"settlement", "list"}} {
				code, _, errOut := run(ctx, address.String(), call...)
				require.NotZero(t, code)
				require.Contains(t, errOut, "row-level security is on for "+table+" and may hide rows from role "+role, call)
				require.NotContains(t, errOut, "migrate up")
			}
		}
	})
}

func TestRun_UnknownNames(t *testing.T) {
	t.Parallel()

	t.Run("AreAnsweredByThoseThatExist", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Database(ctx, t)
		refuse := func(text string, call ...string) {
			t.Helper()
			code, _, errOut := run(ctx, db.URL, call...)
			require.Equal(t, cli.ExitFailed, code)
			require.Contains(t, errOut, text)
		}
		refuse("no loop is registered yet: the first worker that starts registers them", "loops", "pause", "nosuch", "--reason=x")
		refuse("there is no programme nosuch, and no other: truegreen programmes apply FILE stores the first", "settlement", "run", "nosuch", "2026-W45")
		refuse("there is no run 9, and no other yet", "settlement", "show", "9")
		refuse(`there is no stream "nosuch"; there are agent, rolling, wallet`, "outbox", "parked", "--stream=nosuch")

		registry, err := freshness.New(freshness.Config{})
		require.NoError(t, err)
		require.NoError(t, pgtx.Do(ctx, db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, []byte(promotion), 0o600))
		code, _, errOut := run(ctx, db.URL, "programmes", "apply", file)
		require.Zero(t, code, errOut)
		refuse("there is no such loop; there are outbox_wallet, outbox_rolling, outbox_agent, settlement_tick, ", "loops", "resume", "nosuch", "--reason=x")
		for _, call := range [][]string{
			{"programmes", "approve", "nosuch", "1"}, {"settlement", "adjust", "nosuch", "2026-W45"},
			{"settlement", "preview", "nosuch", "2026-W45"}, {"settlement", "run", "nosuch", "2026-W45"},
			{"settlement", "explain", "nosuch", "2026-W45", "p"}, {"settlement", "list", "--programme=nosuch"},
		} {
			refuse("there is no programme nosuch; there are daily", call...)
		}
		refuse("there is no player nosuch", "settlement", "accept", "--player=nosuch", "--until=1h", "--reason=x")
		refuse("there is no acceptance 1 that is not revoked: see truegreen settlement accepted", "settlement", "unaccept", "1", "--reason=x")
		refuse(`failure "bad" cannot be accepted; there are wallet_closed, wallet_frozen, wallet_missing`,
			"settlement", "accept", "--programme=daily", "--at-most=3", "--failure=bad", "--until=1h", "--reason=x")
		refuse("it must expire within a year from now", "settlement", "accept", "--programme=daily", "--at-most=3", "--until=99999h", "--reason=x")
		refuse("there is no version 2; the newest is 1", "programmes", "approve", "daily", "2")
	})
}
