package outbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgconnect"
	"truegreen/internal/pgtx"
)

// TestRelay_Drain_Swallowed: the database may keep a statement from its rows without an
// error. Such a pass must not look like one that worked.
func TestRelay_Drain_Swallowed(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		judge func(outbox.Event) outbox.Class
		says  string
		table string
	}{
		"Acknowledgements": {says: "the outcomes of 2 of 2 events were not stored, first id 1", table: "outbox_delivery"},
		"Failures": {
			judge: func(outbox.Event) outbox.Class { return outbox.ClassRow },
			says:  "the outcomes of 2 of 2 events were not stored, first id 1", table: "outbox_delivery",
		},
		"Leases": {says: "the lease of a free shard was not stored", table: "outbox_shard"},
	} {
		for _, way := range dbtest.Ways {
			t.Run(name+"By"+way, func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				bundle := setup(ctx, t)
				keys := bundle.neighbours(ctx, t, 2)
				bundle.stage(ctx, t, keys...)
				bundle.broker.judge = tc.judge
				dbtest.Swallow(ctx, t, bundle.db.Pool, way, tc.table, "UPDATE")

				result, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
				require.Error(t, err)
				if way == "trigger" { // a rule is refused by most statements
					require.ErrorIs(t, err, pgtx.ErrRowCount)
					require.ErrorContains(t, err, tc.says)
					require.Equal(t, freshness.Failure, bundle.record.recorded[len(bundle.record.recorded)-1].Kind)
				}
				require.Zero(t, result.NumPublished)
				require.Empty(t, bundle.record.completed)
				for _, progress := range bundle.record.recorded {
					require.Equal(t, freshness.Failure, progress.Kind)
				}
				require.Zero(t, bundle.countOf(t, `SELECT count(*) FROM outbox_shard WHERE last_published_at IS NOT NULL`), "nothing is known to be published")
			})
		}
	}

	t.Run("KeepsWhatTheDatabaseKept", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 3)
		bundle.stage(ctx, t, keys...)
		bundle.exec(ctx, t, `CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`)
		bundle.exec(ctx, t, `CREATE TRIGGER swallow BEFORE UPDATE ON outbox_delivery FOR EACH ROW WHEN (old.id = 2) EXECUTE FUNCTION swallow()`)

		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, "the outcomes of 1 of 3 events were not stored, first id 2")
		require.Equal(t, []string{keys[0] + "#1 published", keys[1] + "#1 pending", keys[2] + "#1 published"}, bundle.states(ctx, t))
		require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)
		require.Empty(t, bundle.record.completed)
	})

	t.Run("APolicyIsNamed", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 1)
		bundle.stage(ctx, t, keys...)
		role := bundle.db.Pool.Config().ConnConfig.Database + "_role"
		bundle.exec(ctx, t, `CREATE ROLE `+role)
		t.Cleanup(func() {
			for _, statement := range []string{`DROP OWNED BY ` + role, `DROP ROLE ` + role} {
				_, err := bundle.db.Pool.Exec(context.WithoutCancel(ctx), statement)
				require.NoError(t, err)
			}
		})
		bundle.exec(ctx, t, `GRANT ALL ON ALL TABLES IN SCHEMA public TO `+role)
		bundle.exec(ctx, t, `ALTER TABLE outbox_delivery ENABLE ROW LEVEL SECURITY`)
		database, err := pgconnect.Parse(bundle.db.URL)
		require.NoError(t, err)
		pool, err := database.Pool(ctx, pgconnect.Options{Fixed: map[string]string{"role": role}})
		require.NoError(t, err)
		defer pool.Close()
		relay, err := outbox.NewRelay(pool, bundle.broker, bundle.record, outbox.Config{WorkerID: "test-1"})
		require.NoError(t, err)

		_, err = relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.ErrorContains(t, err, `query would be affected by row-level security policy for table "outbox_delivery"`)
		require.Empty(t, bundle.record.completed)
	})
}

func (bundle *testBundle) countOf(t *testing.T, query string) int {
	t.Helper()
	var num int
	bundle.scan(t.Context(), t, &num, query)
	return num
}

func TestAppend_Swallowed(t *testing.T) {
	t.Parallel()

	for _, table := range []string{"outbox_event", "outbox_delivery"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			bundle := setup(ctx, t)
			dbtest.Swallow(ctx, t, bundle.db.Pool, "trigger", table, "INSERT")
			_, err := bundle.db.Pool.Exec(ctx, `SELECT outbox_append('rolling', 'k', 'a.b', '{}')`)
			require.ErrorContains(t, err, "append to outbox stream rolling: the event was not stored")
			_, err = bundle.db.Pool.Exec(ctx, `SELECT outbox_append_many('rolling', '{k,l}', '{a.b,a.b}', '{"1","2"}')`)
			require.ErrorContains(t, err, "append to outbox stream rolling: 0 of 2 events were stored")
		})
	}
}

func TestDecide_Swallowed(t *testing.T) {
	t.Parallel()

	for _, act := range []outbox.Act{outbox.ActDiscard, outbox.ActRedrive} {
		for table, event := range map[string]string{"outbox_delivery": "UPDATE", "outbox_intervention": "INSERT"} {
			t.Run(fmt.Sprintf("%s_%s", act, table), func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				bundle := setup(ctx, t)
				bundle.stage(ctx, t, "k")
				var eventID uuid.UUID
				bundle.scan(ctx, t, &eventID, `UPDATE outbox_delivery SET parked_at = now(), park_reason = 'row'
					RETURNING (SELECT event_id FROM outbox_event AS event WHERE event.id = outbox_delivery.id)`)
				dbtest.Swallow(ctx, t, bundle.db.Pool, "trigger", table, event)
				_, err := outbox.Decide(ctx, bundle.db.Pool, outbox.Decision{
					Act: act, By: "ana", Reason: "why", Selection: outbox.ParkedSelection{EventIDs: []uuid.UUID{eventID}},
				})
				require.Error(t, err)
				require.Equal(t, []string{"k#1 parked"}, bundle.states(ctx, t))
				require.Zero(t, bundle.countOf(t, `SELECT count(*) FROM outbox_intervention`))
			})
		}
	}
}

func TestKeeper_Keep_Swallowed(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct{ event, says, table string }{
		"Moved":            {"DELETE", "removed from outbox_event", "outbox_event"},
		"MovedDelivery":    {"DELETE", "removed from outbox_delivery", "outbox_delivery"},
		"FailedJobsPruned": {"DELETE", "remove old failed jobs: 0 of 1 were removed", "river_job"},
		"History":          {"INSERT", "0 of 1 were stored in outbox_history", "outbox_history"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			bundle := setupKeeper(ctx, t)
			bundle.stage(ctx, t, "k")
			bundle.resolve(ctx, t, "k", published, 2*day)
			bundle.exec(ctx, t, `INSERT INTO river_job (args, attempt, finalized_at, kind, max_attempts, state)
				VALUES ('{}', 1, now() - interval '60 days', 'maintenance', 1, 'discarded')`)
			dbtest.Swallow(ctx, t, bundle.db.Pool, "trigger", tc.table, tc.event)

			_, err := bundle.keeper.Keep(ctx, bundle.record.complete)
			require.ErrorContains(t, err, tc.says)
			require.Empty(t, bundle.record.completed)
			require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)
			require.Equal(t, 1, bundle.countOf(t, `SELECT count(*) FROM outbox_events`), "nothing is lost")
		})
	}
}
