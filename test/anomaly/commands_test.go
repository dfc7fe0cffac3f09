package anomaly_test

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/app"
	"truegreen/internal/cli"
	"truegreen/internal/dbtest"
	"truegreen/internal/dbtest/anomaly"
	"truegreen/internal/outbox"
	"truegreen/internal/programme"
)

// passing is what differs from run to run in what commands print: times and ages.
var passing = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ][0-9:.]+(Z|[+-]\d\d:?\d\d)?|\b\d+(\.\d+)?(ns|µs|us|ms|h|m|s)([0-9hms.]*)?\b|"[a-z_]*(age|at|since|ms|seconds)": ?"?[0-9.]+"?`)

// command is a case of a command, from its arguments to its exit code.
type command struct {
	args      string // without blanks in any of them
	broker    string // its address; empty for one that nobody asks
	desk      *world
	exit      int // when nothing is wrong
	input     string
	onlyReads bool
}

func (c command) operation() *operation {
	op := &operation{
		covers: []string{"command " + c.covers()},
		desk:   c.desk,
		name:   strings.ReplaceAll(c.args, " ", "_"),
		run:    c.run,
	}
	if !c.onlyReads {
		op.state = deskState
	}
	op.check = func(_ context.Context, t *testing.T, trial *trial, got outcome) {
		if strings.Contains(got.err, anomaly.Message) {
			require.NotContains(t, got.output, "exit 0", "%s failed, and the exit code says that all is good", trial.proxy.Hit())
		}
	}
	return op
}

// covers is the command's path, such as "outbox status".
func (c command) covers() string {
	words := strings.Fields(c.args)
	if len(words) > 1 && groups[words[0]] {
		return words[0] + " " + words[1]
	}
	return words[0]
}

// groups are the commands that have others below them.
var groups = map[string]bool{"broker": true, "loops": true, "migrate": true, "outbox": true, "programmes": true, "settlement": true}

func (c command) run(ctx context.Context, t *testing.T, trial *trial) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	broker := c.broker
	if broker == "" {
		broker = "nats://127.0.0.1:1"
	}
	code := app.Run(ctx, app.Host{
		Environ: []string{"DATABASE_URL=" + trial.proxy.URL(), "TRUEGREEN_BROKER=" + broker},
		Streams: cli.Streams{Err: &errOut, In: strings.NewReader(c.input), Out: &out},
		User:    "ana",
	}, strings.Fields(c.args))
	if trial.fault.Kind == "" {
		require.Equal(t, c.exit, code, errOut.String()+out.String())
	}
	got := outcome{err: withoutLog(errOut.String()), output: fmt.Sprintf("exit %d\n%s", code, passing.ReplaceAllString(out.String(), "…"))}
	if got.err == "" && (strings.Contains(got.output, anomaly.Message) || strings.Contains(got.output, " not read: ")) {
		got.err = got.output // it is among what was found
	}
	return got
}

// withoutLog is what a command says to people. What a log line says of a fault is for
// them too.
func withoutLog(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, anomaly.Message) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

// newDesk is a database with something for every command to do: run 1 has left
// player b unpaid, run 2 waits for approval, programme third has a version that
// nobody has approved, and an event of each of two streams is parked.
func newDesk(ctx context.Context, t *testing.T, db *dbtest.DB) {
	b := openBooks(ctx, t, db)
	partial(ctx, t, b)
	b.status(ctx, t, activity.StatusActive, "b")
	b.late(ctx, t, "a", 500)
	b.programme(ctx, t, terms("code: weekly", "code: second", "    auto_approve_below: 1000000000\n", ""))
	_, err := b.service.Plan(ctx, "second", week, "person")
	require.NoError(t, err)
	b.settle(ctx, t)
	parsed, err := programme.Parse("test", strings.NewReader(terms("code: weekly", "code: third")))
	require.NoError(t, err)
	_, err = b.service.Apply(ctx, parsed, "maker")
	require.NoError(t, err)
	for _, stream := range []string{outbox.StreamAgent, outbox.StreamRolling} {
		appendTo(ctx, t, db, stream, "a", "bad", "bad")
	}
	exec(ctx, t, db, `
		UPDATE outbox_delivery SET attempts = 1, failures = 1, parked_at = now(), park_reason = 'row', last_error = 'no', last_error_class = 'row'
		WHERE id IN (SELECT min(id) FROM outbox_event WHERE key LIKE 'bad%' GROUP BY stream)`)
	exec(ctx, t, db, "DELETE FROM river_job")
	for _, args := range []string{
		"loops pause settlement_rebate --reason holiday --as ana",
		"settlement accept --player c --until 720h --reason known --as ana",
	} {
		require.Empty(t, command{args: args}.run(ctx, t, newTrial(ctx, t, db, anomalyNone)).err)
	}
}

// deskState is all that commands change.
func deskState(ctx context.Context, t *testing.T, trial *trial) string {
	return moneyState(ctx, t, trial) + scalar[string](ctx, t, trial.db, `
		SELECT concat_ws(E'\n', '',
			(SELECT string_agg(concat_ws(' ', stream, key, key_seq, state), E'\n' ORDER BY id) FROM outbox_events),
			(SELECT string_agg(concat_ws(' ', act, by_whom, key, key_seq, reason), E'\n' ORDER BY id) FROM outbox_intervention),
			(SELECT string_agg(detail, E'\n' ORDER BY loop) FROM loop_pauses),
			(SELECT string_agg(concat_ws(' ', player_id, accepted_by, reason, revoked_by, revoke_reason), E'\n' ORDER BY id) FROM settlement_acceptance),
			(SELECT string_agg(stream || ' ' || max_event_bytes, ' ' ORDER BY stream) FROM outbox_stream),
			(SELECT string_agg(kind, ' ' ORDER BY kind) FROM river_job WHERE state = 'available'),
			(SELECT string_agg(kind || ' ' || actor || ' ' || coalesce(reason, ''), ', ' ORDER BY id) FROM settlement_event WHERE actor NOT LIKE 'job:%'))`)
}

func commandOperations(desk *world) []*operation {
	var operations []*operation
	for _, c := range []command{
		{args: "audit", onlyReads: true},
		{args: "import -", input: activityLines()},
		{args: "loops pause maintenance --reason later --as ana"},
		{args: "loops resume settlement_rebate --reason done --as ana"},
		{args: "outbox discard --stream rolling --reason lost --as ana"},
		{args: "outbox parked --json", onlyReads: true, exit: cli.ExitGood},
		{args: "outbox redrive --stream agent --reason again --as ana"},
		{args: "outbox redrive --dry-run --stream agent --reason again --as ana", onlyReads: true},
		{args: "outbox status", onlyReads: true, exit: cli.ExitFindings},
		{args: "programmes apply - --as ana", input: terms("code: weekly", "code: fourth")},
		{args: "programmes approve third 1 --as ana"},
		{args: "programmes list", onlyReads: true},
		{args: "settlement accept --player b --until 720h --reason frozen --as ana"},
		{args: "settlement accepted", onlyReads: true},
		{args: "settlement acknowledge 1 --reason known --as ana"},
		{args: "settlement acknowledge --all --count 1 --programme weekly --reason known --as ana"},
		{args: "settlement adjust weekly 2026-W45 --as ana"},
		{args: "settlement approve 2 --as ana"},
		{args: "settlement cancel 2 --reason wrong --as ana"},
		{args: "settlement explain weekly 2026-W45 b", onlyReads: true},
		{args: "settlement export 1", onlyReads: true},
		{args: "settlement list", onlyReads: true},
		{args: "settlement preview weekly 2026-W45", onlyReads: true},
		{args: "settlement preview weekly 2026-W46", onlyReads: true},
		{args: "settlement reject 2 --reason wrong --as ana"},
		{args: "settlement retry 1 --reason thawed --as ana"},
		{args: "settlement run weekly 2026-W46 --as ana"},
		{args: "settlement show 1", onlyReads: true},
		{args: "settlement unaccept 1 --reason thawed --as ana"},
		{args: "status", onlyReads: true, exit: cli.ExitBad},
	} {
		c.desk = desk
		operations = append(operations, c.operation())
	}
	return operations
}

func TestCommands(t *testing.T) {
	t.Parallel()
	desk := newWorld(t.Context(), t, newDesk)
	loopAll(t, commandOperations(desk))
}
