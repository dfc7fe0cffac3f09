package migrations_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/migrations"
)

// firstStep is the version from which on each migration is undone by itself to the
// letter. Older ones cannot be changed.
const firstStep = 35

// columnNumber is what a column that was dropped and made again does not get back.
var columnNumber = regexp.MustCompile(` no=\d+ `)

// told is what the schema says of itself, and which settings its functions have.
const told = `
SELECT format('comment on %s: %s', described.name, described.text)
FROM (
    SELECT
        format('relation %s %s', relation.relname, attribute.attname) AS name,
        description.description AS text
    FROM pg_description AS description
    JOIN pg_class AS relation ON relation.oid = description.objoid AND description.classoid = 'pg_class'::regclass
    LEFT JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid AND attribute.attnum = description.objsubid AND description.objsubid > 0
    WHERE relation.relnamespace = current_schema()::regnamespace
    UNION ALL
    SELECT
        format('function %s', function.oid::regprocedure),
        description.description
    FROM pg_description AS description
    JOIN pg_proc AS function ON function.oid = description.objoid AND description.classoid = 'pg_proc'::regclass
    WHERE function.pronamespace = current_schema()::regnamespace
) AS described
ORDER BY 1`

func wholeSchema(ctx context.Context, t *testing.T, db *dbtest.DB) []string {
	t.Helper()
	found := append(lines(ctx, t, db.Pool, snapshot), lines(ctx, t, db.Pool, told)...)
	for i := range found {
		found[i] = columnNumber.ReplaceAllString(found[i], " ")
	}
	return found
}

// stepper applies and undoes migrations one at a time, beginning behind firstStep.
func stepper(ctx context.Context, t *testing.T, db *dbtest.DB) *goose.Provider {
	t.Helper()
	conn := stdlib.OpenDBFromPool(db.Pool)
	t.Cleanup(func() { _ = conn.Close() })
	provider, err := goose.NewProvider(goose.DialectPostgres, conn, migrations.Files(), goose.WithDisableGlobalRegistry(true))
	require.NoError(t, err)
	_, err = provider.UpTo(ctx, firstStep)
	require.NoError(t, err)
	return provider
}

func TestDown_Each(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Empty(ctx, t)
	provider := stepper(ctx, t, db)
	latest, err := migrations.Latest()
	require.NoError(t, err)
	for version := int64(0); version < latest; {
		before := wholeSchema(ctx, t, db)
		step, err := provider.UpByOne(ctx)
		require.NoError(t, err)
		version = step.Source.Version
		_, err = provider.Down(ctx)
		require.NoError(t, err)
		require.Empty(t, differences(before, wholeSchema(ctx, t, db)), "%s down is not what was there before it", step.Source.Path)
		_, err = provider.UpByOne(ctx)
		require.NoError(t, err)
	}
}

// TestUp_KeepsPrivileges has a role that may read everything, as dashboards do, and
// wants it to read the same by the same names after the newer migrations.
func TestUp_KeepsPrivileges(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Empty(ctx, t)
	provider := stepper(ctx, t, db)
	mustExec(ctx, t, db.Pool, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_monitor`)
	const readable = `
		SELECT relation.relname
		FROM pg_class AS relation
		CROSS JOIN LATERAL aclexplode(relation.relacl) AS grants
		WHERE relation.relnamespace = 'public'::regnamespace
			AND grants.grantee = 'pg_monitor'::regrole
			AND grants.privilege_type = 'SELECT'
		ORDER BY 1`
	before := lines(ctx, t, db.Pool, readable)
	require.Contains(t, before, "settlement_alarms")
	_, err := provider.Up(ctx)
	require.NoError(t, err)
	require.Subset(t, lines(ctx, t, db.Pool, readable), before)
}

// TestViews_ReadOnlyRole has a role that may read what is public, and nothing else.
func TestViews_ReadOnlyRole(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	tx := dbtest.Tx(ctx, t)
	_, err := tx.Exec(ctx, `
		INSERT INTO loop_contract (loop, budget, gates_readiness, job_kind, late_after, pass_interval, queue, red_after, scheduled, sort_order)
		SELECT job_kind, '10 s', true, job_kind, '45 s', '5 s', queue, '60 s', false, 1 FROM outbox_stream`)
	require.NoError(t, err)
	for _, view := range []string{
		"audit_findings", "job_failures", "ledger_lines", "outbox_events", "outbox_status", "settlement_alarms", "settlement_credits",
		"settlement_results", "wallet_balances", "worker_freshness", "worker_heartbeats",
	} {
		_, err = tx.Exec(ctx, "GRANT SELECT ON "+view+" TO pg_monitor; SET LOCAL ROLE pg_monitor")
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "SELECT * FROM "+view)
		require.NoError(t, err, view)
		_, err = tx.Exec(ctx, "RESET ROLE")
		require.NoError(t, err)
	}
}
