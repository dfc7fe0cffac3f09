package migrations_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// unpinned are functions without a search_path of their own, and why.
var unpinned = map[string]string{
	"outbox_refusal":             "called for each event by functions that have one, and by nobody else",
	"river_job_state_in_bitmask": "River's own, inlined into an index: operators and types of pg_catalog and River's alone",
}

// plainLiteral is a literal whose backslashes depend on standard_conforming_strings.
var plainLiteral = regexp.MustCompile(`(?:^|[^A-Za-z0-9_$])'([^']*)'`)

// function is one of the schema, as pg_proc has it.
type function struct {
	Bound    bool // its body was bound when it was made
	Name     string
	Settings []string
	Source   string
}

// TestFunctions_Settings walks every function of the schema: none may mean something
// else in another session.
func TestFunctions_Settings(t *testing.T) {
	t.Parallel()

	functions := readFunctions(t.Context(), t)
	require.Greater(t, len(functions), 20)
	for _, function := range functions {
		if !function.Bound && unpinned[function.Name] == "" {
			require.Contains(t, function.Settings, "search_path=public, pg_temp",
				"%s takes tables and operators from its caller's search_path: SET search_path = the schema, pg_temp", function.Name)
		}
		for _, literal := range plainLiteral.FindAllStringSubmatch(withoutEscapes(function.Source), -1) {
			require.NotContains(t, literal[1], `\`,
				"%s has a literal that depends on its caller's standard_conforming_strings: write E'' or another pattern", function.Name)
		}
		if function.Name != "outbox_refusal" && strings.Contains(function.Source, "outbox_refusal(") {
			require.NotContains(t, unpinned, function.Name)
			require.False(t, function.Bound, "%s gives outbox_refusal no search_path", function.Name)
		}
	}
}

// withoutEscapes leaves literals out that mean the same under all settings, and
// comments.
func withoutEscapes(source string) string {
	source = regexp.MustCompile(`--[^\n]*`).ReplaceAllString(source, "")
	return regexp.MustCompile(`\bE'[^']*'`).ReplaceAllString(source, "")
}

func readFunctions(ctx context.Context, t *testing.T) []function {
	t.Helper()
	rows, err := dbtest.Tx(ctx, t).Query(ctx, `
		SELECT proc.prosqlbody IS NOT NULL AS bound, proc.proname::text AS name, coalesce(proc.proconfig, '{}') AS settings, proc.prosrc AS source
		FROM pg_proc AS proc
		WHERE proc.pronamespace = 'public'::regnamespace
			AND NOT EXISTS (SELECT FROM pg_depend AS depend WHERE depend.objid = proc.oid AND depend.deptype = 'e')
		ORDER BY proc.proname`)
	require.NoError(t, err)
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByName[function])
	require.NoError(t, err)
	return functions
}

// hostile is a session of an application that likes nothing as Postgres has it. Its
// own tables have our names and come first, and so do its functions.
const hostile = `
	SET search_path = decoy, pg_catalog, public;
	SET DateStyle = 'German, DMY';
	SET IntervalStyle = 'iso_8601';
	SET TimeZone = 'Asia/Kolkata';
	SET array_nulls = off;
	SET bytea_output = 'escape';
	SET escape_string_warning = off;
	SET extra_float_digits = -15;
	SET lc_numeric = 'C';
	SET plpgsql.extra_errors = 'all';
	SET quote_all_identifiers = on;
	SET transform_null_equals = on;
	SET xmloption = 'document';
	SET standard_conforming_strings = off;
`

func TestFunctions_HostileCaller(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Database(ctx, t)
	_, err := db.Pool.Exec(ctx, `
		CREATE SCHEMA decoy;
		DO $$ DECLARE ours text; BEGIN
			FOR ours IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
				EXECUTE format('CREATE TABLE decoy.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING INDEXES)', ours, ours);
				EXECUTE format('INSERT INTO decoy.%I SELECT * FROM public.%I', ours, ours);
			END LOOP;
		END $$;
		CREATE FUNCTION decoy.starts_with(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false;
		CREATE FUNCTION decoy.length(text) RETURNS integer LANGUAGE sql IMMUTABLE RETURN 1;
	`)
	require.NoError(t, err)
	conn, err := db.Pool.Acquire(ctx)
	require.NoError(t, err)
	defer conn.Release()
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "DISCARD ALL") }()
	_, err = conn.Exec(ctx, hostile)
	require.NoError(t, err)

	_, err = conn.Exec(ctx, `SELECT public.outbox_append('rolling', 'k', 'rolling.accrued.v1', '{"a":1}', '{"x":"y"}')`)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `SELECT public.outbox_append_many('rolling', '{k,l}', '{a.b,a.b}', '{"1","2"}')`)
	require.NoError(t, err)
	var kept, decoys int
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM public.outbox_events WHERE stream = 'rolling'`).Scan(&kept))
	require.NoError(t, conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM decoy.outbox_event) + (SELECT count(*) FROM decoy.outbox_delivery)
		+ (SELECT count(*) FROM decoy.outbox_key) + (SELECT count(*) FROM decoy.river_job)`).Scan(&decoys))
	require.Equal(t, 3, kept)
	require.Zero(t, decoys)

	for _, refused := range []string{"a b", "a.", "truegreen.x", strings.Repeat("a", 129)} {
		_, err = conn.Exec(ctx, `SELECT public.outbox_append('rolling', 'k', $1, '{}')`, refused)
		require.ErrorContains(t, err, "append to outbox stream rolling: type ", refused)
	}

	_, err = conn.Exec(ctx, `SELECT public.outbox_history_make('2026-03-04', '2026-03-04')`)
	require.NoError(t, err)
	var bounds string
	require.NoError(t, db.Pool.QueryRow(ctx, `
		SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'public.outbox_history_20260304'::regclass`).Scan(&bounds))
	require.Equal(t, "FOR VALUES FROM ('2026-03-04 00:00:00+00') TO ('2026-03-05 00:00:00+00')", bounds)

	var eventID string
	require.NoError(t, db.Pool.QueryRow(ctx, `
		UPDATE public.outbox_delivery SET parked_at = now(), park_reason = 'test' WHERE key = 'l'
		RETURNING (SELECT event_id::text FROM public.outbox_event AS event WHERE event.id = outbox_delivery.id)`).Scan(&eventID))
	_, err = conn.Exec(ctx, `SELECT public.outbox_discard(ARRAY[$1::uuid], 'ana', 'why')`, eventID)
	require.NoError(t, err)
	var markers int
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM public.outbox_event WHERE type = 'truegreen.gap.v1'`).Scan(&markers))
	require.Equal(t, 1, markers)
}
