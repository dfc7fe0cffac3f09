package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/dbtest"
)

const (
	examplesDir = "../../examples"
	guide       = "../../docs/guides/append-from-your-application.md"
)

// example is a program of examples/ and how it is started.
type example struct {
	args     []string // after the command, with {url} for the database's
	command  string
	dir      string // within examples/
	needs    string // a path in dir without which it cannot run; may be empty
	rollback []string
}

func examples() map[string]example {
	return map[string]example{
		"Go":   {command: "go", args: []string{"run", "."}, dir: "go/append", rollback: []string{"-rollback"}},
		"Node": {command: "node", args: []string{"append.js"}, dir: "node", needs: "node_modules/pg", rollback: []string{"--rollback"}},
		"Psql": {command: "psql", args: []string{"{url}", "-X", "-f", "append.sql"}, dir: "psql", rollback: []string{"-v", "rollback=1"}},
	}
}

// skipUnlessRunnable skips the test where a machine lacks what only an example needs.
func (e example) skipUnlessRunnable(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath(e.command); err != nil {
		t.Skipf("%s is not installed; examples/README.md says how to run it by hand", e.command)
	}
	if _, err := os.Stat(filepath.Join(examplesDir, e.dir, e.needs)); err != nil {
		t.Skipf("examples/%s/%s is not there: npm ci in that folder makes it", e.dir, e.needs)
	}
}

// run executes the example against a database and returns all that it said.
func (e example) run(ctx context.Context, t *testing.T, url string, more ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := append([]string(nil), e.args...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{url}", url)
	}
	command := childproc.Command(ctx, e.command, append(args, more...)...)
	command.Dir = filepath.Join(examplesDir, e.dir)
	command.Env = append(os.Environ(), "DATABASE_URL="+url)
	out, err := command.CombinedOutput()
	return string(out), err
}

// told is an event as an example prints it.
type told struct {
	eventID, key, keySeq, stream, typ string
}

var toldLine = regexp.MustCompile(`(?m)^event (\S+)  key_seq (\d+)  stream (\S+)  key (\S+)  type (\S+)$`)

// append runs the example to a good end and returns the events that it told of.
func (e example) append(ctx context.Context, t *testing.T, s *stack, more ...string) []told {
	t.Helper()
	out, err := e.run(ctx, t, s.database.URL, more...)
	require.NoError(t, err, out)
	var events []told
	for _, fields := range toldLine.FindAllStringSubmatch(out, -1) {
		events = append(events, told{eventID: fields[1], keySeq: fields[2], stream: fields[3], key: fields[4], typ: fields[5]})
	}
	if len(more) > 0 {
		require.Len(t, events, 2, out)
		require.Contains(t, out, "rolled back: 0 of 2 events are stored")
	} else {
		require.Len(t, events, 4, out)
		require.Equal(t, 2, strings.Count(out, "committed: 2 of 2 events are stored"), out)
	}
	return events
}

func TestExamples(t *testing.T) {
	t.Parallel()

	for name, one := range examples() {
		t.Run(name+"PublishesWhatItCommitsAndNothingElse", func(t *testing.T) {
			t.Parallel()
			one.skipUnlessRunnable(t)
			ctx := t.Context()
			s := setup(ctx, t)

			// While nobody publishes: a rollback leaves nothing, not even a job.
			one.append(ctx, t, s, one.rollback...)
			require.Zero(t, s.count(ctx, t, `
				SELECT (SELECT count(*) FROM shop_order) + (SELECT count(*) FROM outbox_events)
					+ (SELECT count(*) FROM outbox_key) + (SELECT count(*) FROM river_job)`))
			committed := one.append(ctx, t, s)
			require.Equal(t, 2, s.count(ctx, t, `SELECT count(DISTINCT queue) FROM river_job WHERE state = 'available'`), "a job for each stream")

			s.startWorker(t)
			committed = append(committed, one.append(ctx, t, s)...)
			one.append(ctx, t, s, one.rollback...)
			committed = append(committed, one.append(ctx, t, s)...)
			s.waitPublished(ctx, t)
			s.checkTold(ctx, t, committed)
			require.Equal(t, 3, s.count(ctx, t, `SELECT count(*) FROM shop_order WHERE status = 'paid' AND version = 2`))
			require.Equal(t, 3, s.count(ctx, t, `SELECT count(*) FROM shop_order`))
		})

		t.Run(name+"SaysWhatIsWrong", func(t *testing.T) {
			t.Parallel()
			one.skipUnlessRunnable(t)
			ctx := t.Context()
			foreign := dbtest.Empty(ctx, t)
			out, err := one.run(ctx, t, foreign.URL)
			require.Error(t, err)
			require.Contains(t, out, "has no outbox_append: `source .truegreen/env`")
			var hasTable bool
			require.NoError(t, foreign.Pool.QueryRow(ctx, `SELECT to_regclass('shop_order') IS NOT NULL`).Scan(&hasTable))
			require.False(t, hasTable, "nothing is made in a database that is not Truegreen's")

			if one.command != "psql" { // given no URL, it takes a server of its own choice
				out, err = one.run(ctx, t, "")
				require.Error(t, err)
				require.Contains(t, out, "DATABASE_URL is not set: start `make run`, then `source .truegreen/env`")
			}
		})
	}
}

// TestExamples_Read has CloudEvents' own SDK read what the worker published.
func TestExamples_Read(t *testing.T) {
	t.Parallel()
	reader := example{command: "node", args: []string{"read.js"}, dir: "node", needs: "node_modules/cloudevents"}
	reader.skipUnlessRunnable(t)
	ctx := t.Context()
	s := setup(ctx, t)
	var id string
	require.NoError(t, s.database.Pool.QueryRow(ctx, `
		SELECT outbox_append('rolling', '한글/1', 'shop.greeted.v1', '{"hour": 9}', '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}')`).Scan(&id))
	s.startWorker(t)
	s.waitPublished(ctx, t)
	messages := s.messages(ctx, t, "TRUEGREEN_ROLLING")
	require.Len(t, messages, 1)
	headers := make(map[string]string)
	for name, values := range messages[0].Headers() {
		headers[name] = strings.Join(values, ", ")
	}
	input, err := json.Marshal(map[string]any{"headers": headers, "body": string(messages[0].Data())})
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := childproc.Command(ctx, reader.command, reader.args...)
	command.Dir = filepath.Join(examplesDir, reader.dir)
	command.Stdin = bytes.NewReader(input)
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	var event map[string]any
	require.NoError(t, json.Unmarshal(out, &event))
	require.NotEmpty(t, event["time"])
	delete(event, "time")
	require.Equal(t, map[string]any{
		"data":            map[string]any{"hour": 9.0},
		"datacontenttype": "application/json",
		"id":              id,
		"keysequence":     "1",
		"partitionkey":    "한글/1",
		"source":          "/truegreen/rolling",
		"specversion":     "1.0",
		"subject":         "한글/1",
		"traceparent":     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"type":            "shop.greeted.v1",
	}, event)
}

// checkTold compares the rows and the broker's messages with the events that an
// example said it had committed: those alone, in the order of their keys.
func (s *stack) checkTold(ctx context.Context, t *testing.T, committed []told) {
	t.Helper()
	rows, err := s.database.Pool.Query(ctx, `
		SELECT event_id::text, key, key_seq::text, stream, type, broker_ref FROM outbox_events WHERE state = 'published' ORDER BY id`)
	require.NoError(t, err)
	refs := make(map[string]string)
	stored, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (told, error) {
		var event told
		var ref string
		err := row.Scan(&event.eventID, &event.key, &event.keySeq, &event.stream, &event.typ, &ref)
		refs[event.eventID] = ref
		return event, err
	})
	require.NoError(t, err)
	require.Equal(t, committed, stored)

	var published []told
	lastSeq := make(map[string]int)
	for _, stream := range []string{"rolling", "wallet"} {
		name := "TRUEGREEN_" + strings.ToUpper(stream)
		for i, message := range s.messages(ctx, t, name) {
			headers := message.Headers()
			event := told{eventID: headers.Get("ce-id"), key: headers.Get("ce-subject"), keySeq: headers.Get("ce-keysequence"), stream: stream, typ: headers.Get("ce-type")}
			require.Equal(t, name+"/"+strconv.Itoa(i+1), refs[event.eventID])
			require.NotEmpty(t, headers.Get("traceparent"))
			lastSeq[event.key]++
			require.Equal(t, strconv.Itoa(lastSeq[event.key]), event.keySeq, "gapless and in order per key")
			published = append(published, event)
		}
	}
	require.ElementsMatch(t, committed, published)
}

func TestGuide(t *testing.T) {
	t.Parallel()

	t.Run("GrantsAllThatAnApplicationNeedsAndNoMore", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		database := dbtest.Database(ctx, t)
		grants := grantsOfGuide(t)
		require.NoError(t, appendWith(ctx, t, database, grants))
		for i, grant := range grants {
			without := append(append([]string(nil), grants[:i]...), grants[i+1:]...)
			var refused *pgconn.PgError
			require.ErrorAs(t, appendWith(ctx, t, database, without), &refused, "not needed: %s", grant)
			// Without its schema, a function is not even found.
			require.Contains(t, []string{"42501", "42883"}, refused.Code, "%s: %v", grant, refused)
		}
	})
}

// grantsOfGuide returns the statements of the guide that an application's role
// cannot do without.
func grantsOfGuide(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(guide)
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```sql\n(GRANT USAGE ON SCHEMA .*?)```").FindSubmatch(text)
	require.NotNil(t, block, "the guide has a block of grants")
	var grants []string
	for statement := range strings.SplitSeq(string(block[1]), ";") {
		if statement = strings.TrimSpace(statement); statement != "" {
			grants = append(grants, statement)
		}
	}
	require.Greater(t, len(grants), 1)
	return grants
}

// appendWith appends as a role that has the grants and nothing else, and takes
// all of it back, the role included. No worker is awake, so each append also
// inserts its job.
func appendWith(ctx context.Context, t *testing.T, database *dbtest.DB, grants []string) error {
	t.Helper()
	tx, err := database.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	for _, statement := range append([]string{
		`REVOKE ALL ON SCHEMA public FROM PUBLIC`,
		`REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC`,
		`CREATE ROLE shop_app`,
	}, grants...) {
		_, err := tx.Exec(ctx, statement)
		require.NoError(t, err, statement)
	}
	for _, statement := range []string{
		`SET LOCAL ROLE shop_app`,
		`SELECT outbox_append('rolling', 'one', 'shop.ordered.v1', '{}')`,
		`SELECT outbox_append('wallet', 'one', 'shop.ordered.v1', '{}', key_seq => 1)`,
		`SELECT outbox_append_many('agent', '{one,two,one}', '{a.v1,a.v1,a.v1}', '{1,2,3}')`,
		`SELECT outbox_append_many('rolling', '{one,two,one}', '{a.v1,a.v1,a.v1}', '{1,2,3}')`,
		`SELECT outbox_append_many('wallet', '{one}', '{a.v1}', '{1}', key_seqs => '{2}')`,
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
