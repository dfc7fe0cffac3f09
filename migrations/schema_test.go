package migrations_test

import (
	"context"
	"io/fs"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/dbtest"
	"truegreen/migrations"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// withoutComment lists the tables, views and functions that nothing is said of.
// Those of an extension are the extension's own business.
const withoutComment = `
SELECT 'relation ' || relation.relname
FROM pg_class AS relation
WHERE relation.relnamespace = current_schema()::regnamespace
    AND relation.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND relation.relname <> 'goose_db_version'
    AND obj_description(relation.oid, 'pg_class') IS NULL
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = relation.oid AND d.deptype = 'e')
UNION ALL
SELECT 'function ' || function.oid::regprocedure::text
FROM pg_proc AS function
WHERE function.pronamespace = current_schema()::regnamespace
    AND obj_description(function.oid, 'pg_proc') IS NULL
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = function.oid AND d.deptype = 'e')
ORDER BY 1`

// snapshot describes everything in the schema but goose's own table, in lines
// that are equal where two schemas are.
const snapshot = `
WITH relation AS (
    SELECT * FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relname NOT LIKE 'goose_db_version%'
)
SELECT format('%s %s kind=%s persistence=%s options=%s', 'relation', relname, relkind, relpersistence, reloptions) FROM relation
UNION ALL
SELECT format('column %s.%s no=%s type=%s not_null=%s identity=%s generated=%s default=%s',
    relation.relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
    (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum))
FROM pg_attribute JOIN relation ON relation.oid = attrelid
WHERE attnum > 0 AND NOT attisdropped AND relation.relkind <> 'i'
UNION ALL
SELECT format('constraint %s on %s: %s', conname, relation.relname, pg_get_constraintdef(pg_constraint.oid))
FROM pg_constraint JOIN relation ON relation.oid = conrelid
UNION ALL
SELECT 'index ' || pg_get_indexdef(relation.oid) FROM relation WHERE relkind = 'i'
UNION ALL
SELECT format('view %s: %s', relname, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger JOIN relation ON relation.oid = tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace AND prokind IN ('f', 'p')
UNION ALL
SELECT format('type %s kind=%s labels=%s', typname, typtype,
    (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = pg_type.oid))
FROM pg_type WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('d', 'e', 'r')
ORDER BY 1`

func lines(ctx context.Context, t *testing.T, db querier, query string) []string {
	t.Helper()
	rows, err := db.Query(ctx, query)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return found
}

// differences are the lines that only one of the two has, marked - for expected
// and + for actual.
func differences(expected, actual []string) []string {
	var differ []string
	for _, line := range expected {
		if !slices.Contains(actual, line) {
			differ = append(differ, "- "+line)
		}
	}
	for _, line := range actual {
		if !slices.Contains(expected, line) {
			differ = append(differ, "+ "+line)
		}
	}
	return differ
}

func TestSchema_Comments(t *testing.T) {
	t.Parallel()

	t.Run("EverythingHasOne", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		require.Empty(t, lines(ctx, t, dbtest.Tx(ctx, t), withoutComment),
			"say with COMMENT ON what these are for, in the migration that makes them")
	})

	t.Run("OneThatHasNoneIsFound", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Database(ctx, t)
		_, err := db.Pool.Exec(ctx, `
			CREATE TABLE mute_table (id bigint);
			CREATE VIEW mute_view AS SELECT 1 AS one;
			CREATE FUNCTION mute_function(bigint) RETURNS bigint LANGUAGE sql RETURN $1;
			COMMENT ON FUNCTION outbox_append IS NULL`)
		require.NoError(t, err)
		require.Equal(t, []string{
			"function mute_function(bigint)",
			"function outbox_append(text,text,text,jsonb,jsonb,bigint)",
			"relation mute_table",
			"relation mute_view",
		}, lines(ctx, t, db.Pool, withoutComment))
	})
}

func TestUp(t *testing.T) {
	t.Parallel()

	names, err := fs.Glob(migrations.Files(), "*.sql")
	require.NoError(t, err)

	t.Run("ReturnsWhatItApplied", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		applied, err := migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		require.Equal(t, names, applied)

		applied, err = migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		require.Empty(t, applied)

		list, err := migrations.List(ctx, db.URL)
		require.NoError(t, err)
		require.Len(t, list, len(names))
		for i, status := range list {
			require.True(t, status.Applied)
			require.Equal(t, names[i], status.Name)
		}
		latest, err := migrations.Latest()
		require.NoError(t, err)
		require.Equal(t, latest, list[len(list)-1].Version)
	})

	t.Run("LetsOneProcessWorkAtATime", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		applied := make([][]string, 3)
		group, groupCtx := errgroup.WithContext(ctx)
		for i := range applied {
			group.Go(func() (err error) {
				applied[i], err = migrations.Up(groupCtx, db.URL)
				return err
			})
		}
		require.NoError(t, group.Wait())
		var all []string
		for _, some := range applied {
			all = append(all, some...)
		}
		require.ElementsMatch(t, names, all)
	})

	t.Run("GivesADeliveryToAnEventThatWasAppendedBesideTheChange", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		_, err := migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		for undone := ""; undone != "00029_outbox_release.sql"; {
			undone, err = migrations.Down(ctx, db.URL)
			require.NoError(t, err)
		}
		// As an append does that was under way in its old form.
		mustExec(ctx, t, db.Pool, `INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type) VALUES ('a', 1, '{}', 0, 'wallet', 'a.b')`)
		_, err = migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		require.Equal(t, []string{"a pending 0 t"}, lines(ctx, t, db.Pool, `
			SELECT format('%s %s %s %s', delivery.key, state, delivery.shard, delivery.place = delivery.id)
			FROM outbox_open JOIN outbox_delivery AS delivery USING (id)`))
	})

	t.Run("NamesAnUnreachableDatabaseAndStops", func(t *testing.T) {
		t.Parallel()

		_, err := migrations.Up(t.Context(), "postgres://nobody@127.0.0.1:1/none")
		require.ErrorContains(t, err, "reach database")
	})
}

func TestDown(t *testing.T) {
	t.Parallel()

	t.Run("UndoesEveryMigrationWholly", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		db := dbtest.Empty(ctx, t)
		nothing := lines(ctx, t, db.Pool, snapshot)
		applied, err := migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		whole := lines(ctx, t, db.Pool, snapshot)
		require.Greater(t, len(whole), 300, "the snapshot sees the schema")

		for i := range applied {
			undone, err := migrations.Down(ctx, db.URL)
			require.NoError(t, err)
			require.Equal(t, applied[len(applied)-1-i], undone)
		}
		require.Empty(t, differences(nothing, lines(ctx, t, db.Pool, snapshot)))

		undone, err := migrations.Down(ctx, db.URL)
		require.NoError(t, err)
		require.Empty(t, undone)

		_, err = migrations.Up(ctx, db.URL)
		require.NoError(t, err)
		require.Empty(t, differences(whole, lines(ctx, t, db.Pool, snapshot)))
	})
}
