package anomaly_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// saveAll keeps a copy of every row and sequence. A copy of the whole database
// for each trial would take longer than the trial. Tables that a trial makes, such as
// partitions, are dropped again; none may drop one that setup left.
const saveAll = `
CREATE SCHEMA anomaly;
CREATE TABLE anomaly.saved_table (name text, columns text);
CREATE TABLE anomaly.saved_sequence (name text, last_value bigint, is_called boolean);
DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT class.relname AS name, string_agg(quote_ident(attribute.attname), ', ' ORDER BY attribute.attnum) AS columns
        FROM pg_class AS class
        JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum > 0
        WHERE class.relnamespace = 'public'::regnamespace AND class.relkind = 'r'
            AND NOT attribute.attisdropped AND attribute.attgenerated = ''
        GROUP BY class.relname
    LOOP
        EXECUTE format('CREATE TABLE anomaly.%I AS SELECT %s FROM public.%I', each.name, each.columns, each.name);
        INSERT INTO anomaly.saved_table VALUES (each.name, each.columns);
    END LOOP;
    FOR each IN SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
        EXECUTE format('INSERT INTO anomaly.saved_sequence SELECT %L, last_value, is_called FROM public.%I', each.name, each.name);
    END LOOP;
END $$;
CREATE FUNCTION anomaly.restore() RETURNS void LANGUAGE plpgsql
SET session_replication_role = replica
AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT class.relname AS name FROM pg_class AS class
        WHERE class.relnamespace = 'public'::regnamespace AND class.relkind = 'r'
            AND class.relname NOT IN (SELECT name FROM anomaly.saved_table)
    LOOP
        EXECUTE format('DROP TABLE public.%I', each.name);
    END LOOP;
    FOR each IN SELECT name, columns FROM anomaly.saved_table LOOP
        EXECUTE format('DELETE FROM public.%I', each.name);
        EXECUTE format('INSERT INTO public.%I (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM anomaly.%I', each.name, each.columns, each.columns, each.name);
    END LOOP;
    PERFORM setval(format('public.%I', name), last_value, is_called) FROM anomaly.saved_sequence;
END $$`

// world is a database that a trial finds as the operation's setup left it.
type world struct {
	db *dbtest.DB
}

func newWorld(ctx context.Context, t *testing.T, setup func(ctx context.Context, t *testing.T, db *dbtest.DB)) *world {
	t.Helper()
	w := &world{db: dbtest.Database(ctx, t)}
	setup(ctx, t, w.db)
	exec(ctx, t, w.db, "DELETE FROM loop_progress")
	exec(ctx, t, w.db, saveAll)
	return w
}

// give returns the database as it was after setup. No other trial may be at it.
func (w *world) give(ctx context.Context, t *testing.T) *dbtest.DB {
	t.Helper()
	_, err := w.db.Pool.Exec(ctx, "SELECT anomaly.restore()")
	require.NoError(t, err)
	return w.db
}
