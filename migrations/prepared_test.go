package migrations_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/migrations"
)

// TestOutboxAppend_Prepared appends in transactions that are prepared: those that wake a
// worker too, which is what NOTIFY is for.
func TestOutboxAppend_Prepared(t *testing.T) {
	t.Parallel()

	t.Run("WorksWhereTheServerAllowsIt", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		server, _ := dbtest.Cluster(ctx, t, map[string]string{"fsync": "off", "max_prepared_transactions": "10"})
		url := server.URL(devstack.MainDatabase)
		_, err := migrations.Up(ctx, url)
		require.NoError(t, err)
		conn, err := pgx.Connect(ctx, url)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		for n, appended := range []string{
			`SELECT outbox_append('rolling', 'a', 'x.v1', '{}')`, // wakes a worker
			`SELECT outbox_append('rolling', 'a', 'x.v1', '{}')`, // finds a job
			`SELECT outbox_append_many('agent', ARRAY['a', 'b', 'c', 'd'], array_fill('x.v1'::text, ARRAY[4]), array_fill('{}'::jsonb, ARRAY[4]))`,
		} {
			_, err := conn.Exec(ctx, `BEGIN; `+appended+fmt.Sprintf(`; PREPARE TRANSACTION 'p-%d'`, n))
			require.NoError(t, err, appended)
			_, err = conn.Exec(ctx, fmt.Sprintf(`COMMIT PREPARED 'p-%d'`, n))
			require.NoError(t, err)
		}
		var numPending, numShards int
		require.NoError(t, conn.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM outbox_events WHERE state = 'pending'),
				(SELECT count(*) FROM (SELECT DISTINCT kind, args FROM river_job WHERE state = 'available') AS jobs)
				- (SELECT count(*) FROM (SELECT DISTINCT stream, shard FROM outbox_delivery) AS shards)`).Scan(&numPending, &numShards))
		require.Equal(t, 6, numPending)
		require.Zero(t, numShards, "each shard has its job")
	})

	t.Run("IsRefusedByTheServerOtherwise", func(t *testing.T) {
		t.Parallel()
		ctx, pool := newDatabase(t)
		var most int
		require.NoError(t, pool.QueryRow(ctx, `SELECT current_setting('max_prepared_transactions')::integer`).Scan(&most))
		if most > 0 {
			t.Skip("this server allows it")
		}
		for range 2 {
			tx := begin(ctx, t, pool)
			mustAppend(ctx, t, tx, counted("a"))
			_, err := tx.Exec(ctx, `PREPARE TRANSACTION 'p'`)
			require.Error(t, err)
			require.NoError(t, tx.Rollback(ctx))
		}
		var numEvents int
		require.NoError(t, pool.QueryRow(ctx, `SELECT count(*) FROM outbox_event`).Scan(&numEvents))
		require.Zero(t, numEvents)
	})
}
