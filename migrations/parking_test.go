package migrations_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// notInPrerequisiteState is the SQLSTATE of what needs something else first.
const notInPrerequisiteState = "55000"

const (
	park    = `UPDATE outbox_delivery SET failures = 3, first_failed_at = now(), not_before = now(), park_reason = 'row', parked_at = clock_timestamp()` + ofEvent
	giveUp  = `UPDATE outbox_delivery SET discard_reason = 'x', discarded_at = now(), discarded_by = 'x'` + ofEvent
	stateOf = `SELECT state FROM outbox_events WHERE event_id = $1`
)

func mustPark(ctx context.Context, t *testing.T, db rower, e event) uuid.UUID {
	t.Helper()
	id := mustAppend(ctx, t, db, e)
	mustExec(ctx, t, db, park, id)
	return id
}

func mustExec(ctx context.Context, t *testing.T, db rower, statement string, args ...any) {
	t.Helper()
	_, err := db.Exec(ctx, statement, args...)
	require.NoError(t, err)
}

func TestOutboxDecide_Refuses(t *testing.T) {
	t.Parallel()

	who, why := "ana", "limits raised"
	for _, act := range []string{"redrive", "discard"} {
		for name, tc := range map[string]struct {
			by      any
			err     string
			ids     func(ctx context.Context, t *testing.T, db rower, parked uuid.UUID) []any
			reason  any
			refusal string
		}{
			"AnEmptyReason":    {by: who, reason: "", refusal: "reason must say why"},
			"NoReason":         {by: who, reason: nil, refusal: "reason must say why"},
			"ALongReason":      {by: who, reason: strings.Repeat("é", 1001), refusal: "reason must say why"},
			"Nobody":           {by: "", reason: why, refusal: "by_whom must say who decides"},
			"NULLForSomebody":  {by: nil, reason: why, refusal: "by_whom must say who decides"},
			"ALongName":        {by: strings.Repeat("é", 201), reason: why, refusal: "by_whom must say who decides"},
			"NoEvents":         {by: who, reason: why, refusal: "must name at least one event", ids: func(context.Context, *testing.T, rower, uuid.UUID) []any { return []any{} }},
			"NULLAmongTheRest": {by: who, reason: why, refusal: "none may be NULL", ids: func(_ context.Context, _ *testing.T, _ rower, parked uuid.UUID) []any { return []any{parked, nil} }},
			"AnUnknownEvent": {by: who, reason: why, err: notInPrerequisiteState, refusal: uuid.Max.String() + " is unknown", ids: func(_ context.Context, _ *testing.T, _ rower, parked uuid.UUID) []any {
				return []any{parked, uuid.Max}
			}},
			"APendingEvent": {by: who, reason: why, err: notInPrerequisiteState, refusal: "is pending", ids: func(ctx context.Context, t *testing.T, db rower, parked uuid.UUID) []any {
				return []any{parked, mustAppend(ctx, t, db, counted("pending"))}
			}},
			"APublishedEvent": {by: who, reason: why, err: notInPrerequisiteState, refusal: "is published", ids: func(ctx context.Context, t *testing.T, db rower, parked uuid.UUID) []any {
				published := mustPark(ctx, t, db, counted("published"))
				mustExec(ctx, t, db, publish, published)
				return []any{parked, published}
			}},
			"ADiscardedEvent": {by: who, reason: why, err: notInPrerequisiteState, refusal: "is discarded", ids: func(ctx context.Context, t *testing.T, db rower, parked uuid.UUID) []any {
				discarded := mustPark(ctx, t, db, counted("discarded"))
				mustExec(ctx, t, db, giveUp, discarded)
				return []any{parked, discarded}
			}},
		} {
			if act == "discard" && name == "APendingEvent" {
				continue // every undelivered event can be given up
			}
			t.Run(act+"/"+name, func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				tx := dbtest.Tx(ctx, t)
				parked := mustPark(ctx, t, tx, counted("parked"))
				ids := []any{parked}
				if tc.ids != nil {
					ids = tc.ids(ctx, t, tx, parked)
				}
				sqlState := invalidParameter
				if tc.err != "" {
					sqlState = tc.err
				}
				savepoint, err := tx.Begin(ctx)
				require.NoError(t, err)
				_, err = savepoint.Exec(ctx, `SELECT outbox_`+act+`($1, $2, $3)`, ids, tc.by, tc.reason)
				requireState(t, err, sqlState, act+" events: ")
				require.ErrorContains(t, err, tc.refusal)
				require.NoError(t, savepoint.Rollback(ctx))
				require.Equal(t, []string{"parked"}, lines(ctx, t, tx, strings.Replace(stateOf, "$1", "'"+parked.String()+"'", 1)))
				require.Empty(t, lines(ctx, t, tx, `SELECT act FROM outbox_intervention`))
			})
		}
	}
}

func TestOutboxDecide_Redrives(t *testing.T) {
	t.Parallel()

	t.Run("ForgettingTheFailuresAndAssuringOneJobPerShard", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		one, same, other := keysOfShard(ctx, t, tx)
		ids := []uuid.UUID{
			mustPark(ctx, t, tx, counted(one)), mustPark(ctx, t, tx, counted(same)), mustPark(ctx, t, tx, counted(other)), mustPark(ctx, t, tx, supplied(one, 1)),
		}
		mustExec(ctx, t, tx, `DELETE FROM river_job`)
		var num int
		require.NoError(t, tx.QueryRow(ctx, `SELECT outbox_redrive($1, 'ana', 'limits raised')`, ids).Scan(&num))
		require.Equal(t, 4, num)
		require.Equal(t, []string{"pending 0 0"}, lines(ctx, t, tx, `
			SELECT DISTINCT format('%s %s %s', open.state, delivery.failures, num_nonnulls(first_failed_at, park_reason, delivery.parked_at))
			FROM outbox_open AS open JOIN outbox_delivery AS delivery ON delivery.id = open.id`))
		require.Equal(t, []string{`outbox_rolling {"shard": 0}`, `outbox_rolling {"shard": 1}`, `outbox_wallet {"shard": 0}`},
			lines(ctx, t, tx, `SELECT kind || ' ' || args FROM river_job ORDER BY 1`))
		require.Equal(t, []string{"redrive ana limits raised 4"},
			lines(ctx, t, tx, `SELECT format('%s %s %s %s', act, by_whom, reason, count(*)) FROM outbox_intervention GROUP BY act, by_whom, reason`))
	})
}

func TestOutboxDecide_Discards(t *testing.T) {
	t.Parallel()

	t.Run("WithOneMarkerPerEventHoweverItCameAbout", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		marked, unmarked := mustPark(ctx, t, tx, counted("marked")), mustPark(ctx, t, tx, counted("unmarked"))
		later := mustAppend(ctx, t, tx, counted("unmarked"))
		// As under the policy skip, where parking leaves the marker.
		mustExec(ctx, t, tx, `SELECT outbox_leave_gaps(array_agg(id), 'parked') FROM outbox_event WHERE event_id = $1`, marked)
		mustExec(ctx, t, tx, `SELECT outbox_discard($1, 'ana', 'test data')`, []uuid.UUID{marked, unmarked})
		require.Equal(t, []string{"marked 1 parked", "unmarked 1 test data"}, lines(ctx, t, tx, `
			SELECT format('%s %s %s', key, key_seq, payload ->> 'reason') FROM outbox_events WHERE type = 'truegreen.gap.v1' AND state = 'pending' ORDER BY key`))

		var isBefore bool
		require.NoError(t, tx.QueryRow(ctx, `
			SELECT marker.place < later.place AND marker.id > later.id AND marker.place = discarded.place
			FROM outbox_delivery AS discarded, outbox_delivery AS later, outbox_delivery AS marker
			WHERE discarded.id = (SELECT id FROM outbox_event WHERE event_id = $1)
				AND later.id = (SELECT id FROM outbox_event WHERE event_id = $2)
				AND marker.id = (SELECT id FROM outbox_event WHERE key = 'unmarked' AND type = 'truegreen.gap.v1')`, unmarked, later).Scan(&isBefore))
		require.True(t, isBefore)
	})

	t.Run("WithoutASecondMarkerOnceTheFirstIsHistory", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustPark(ctx, t, tx, counted("a"))
		mustExec(ctx, t, tx, `SELECT outbox_leave_gaps(array_agg(id), 'parked') FROM outbox_event WHERE event_id = $1`, id)
		mustExec(ctx, t, tx, `UPDATE outbox_delivery SET published_at = clock_timestamp(), broker_ref = 'S/1' WHERE parked_at IS NULL`)
		mustExec(ctx, t, tx, `SELECT outbox_history_move(clock_timestamp(), 0, 1000)`)
		mustExec(ctx, t, tx, `SELECT outbox_discard($1, 'ana', 'test data')`, []uuid.UUID{id})
		require.Equal(t, []string{"rolling.accrued.v1 discarded", "truegreen.gap.v1 published"},
			lines(ctx, t, tx, `SELECT type || ' ' || state FROM outbox_events ORDER BY 1`))
	})

	t.Run("AMarkerWithoutLeavingOne", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		mustExec(ctx, t, tx, `SELECT outbox_discard($1, 'ana', 'test data')`, []uuid.UUID{mustPark(ctx, t, tx, counted("a"))})
		var marker uuid.UUID
		require.NoError(t, tx.QueryRow(ctx, `SELECT event_id FROM outbox_event WHERE type = 'truegreen.gap.v1'`).Scan(&marker))
		mustExec(ctx, t, tx, park, marker)
		mustExec(ctx, t, tx, `SELECT outbox_discard($1, 'ana', 'not even that')`, []uuid.UUID{marker})
		require.Equal(t, []string{"discarded", "discarded"}, lines(ctx, t, tx, `SELECT state FROM outbox_events`))
	})
}

func TestOutboxDecide_Waits(t *testing.T) {
	t.Parallel()

	const lease = `
		UPDATE outbox_shard
		SET lease_epoch = lease_epoch + 1, lease_expires_at = clock_timestamp() + $1, lease_owner = 'w-1', leased_at = clock_timestamp()
		WHERE stream = 'rolling'`
	hold := func(ctx context.Context, t *testing.T, pool *pgxpool.Pool, ttl time.Duration) {
		t.Helper()
		mustExec(ctx, t, pool, lease, ttl)
	}

	t.Run("ForTheEndOfTheLeaseInWhichTheEventWasParked", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		hold(ctx, t, pool, 300*time.Millisecond)
		id := mustPark(ctx, t, pool, counted("a"))
		mustExec(ctx, t, pool, `SELECT outbox_redrive($1, 'ana', 'limits raised')`, []uuid.UUID{id})
		var isOver bool
		require.NoError(t, pool.QueryRow(ctx, `
			SELECT bool_and(done.at >= shard.lease_expires_at) FROM outbox_shard AS shard, outbox_intervention AS done WHERE shard.stream = 'rolling'`).Scan(&isOver))
		require.True(t, isOver)
	})

	t.Run("SoThatAnAcknowledgementOfThatLeaseWins", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		hold(ctx, t, pool, time.Hour)
		id := mustPark(ctx, t, pool, counted("a"))
		refused := make(chan error, 1)
		go func() {
			_, err := pool.Exec(ctx, `SELECT outbox_discard($1, 'ana', 'test data')`, []uuid.UUID{id})
			refused <- err
		}()
		require.Eventually(t, func() bool {
			return len(lines(ctx, t, pool, `SELECT 'waits' FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)) == 1
		}, 10*time.Second, 5*time.Millisecond)
		mustExec(ctx, t, pool, publish, id)
		mustExec(ctx, t, pool, `UPDATE outbox_shard SET lease_expires_at = NULL, lease_owner = NULL WHERE stream = 'rolling'`)
		requireState(t, <-refused, notInPrerequisiteState, "is published")
	})

	t.Run("ForNoLeaseThatBeganLater", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		id := mustPark(ctx, t, pool, counted("a"))
		hold(ctx, t, pool, time.Hour)
		mustExec(ctx, t, pool, `SELECT outbox_redrive($1, 'ana', 'limits raised')`, []uuid.UUID{id})
	})

	t.Run("ForNoLeaseOfAnotherShard", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		one, _, other := keysOfShard(ctx, t, pool)
		hold(ctx, t, pool, time.Hour)
		mustExec(ctx, t, pool, `UPDATE outbox_shard SET lease_expires_at = NULL, lease_owner = NULL WHERE stream = 'rolling' AND shard = outbox_shard_of($1, 4)`, one)
		id := mustPark(ctx, t, pool, counted(one))
		mustPark(ctx, t, pool, counted(other))
		mustExec(ctx, t, pool, `SELECT outbox_redrive($1, 'ana', 'limits raised')`, []uuid.UUID{id})
	})
}

func TestOutboxIntervention(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]string{
		"IsNotChanged":   `UPDATE outbox_intervention SET reason = 'other'`,
		"IsNotDeleted":   `DELETE FROM outbox_intervention`,
		"IsNotTruncated": `TRUNCATE outbox_intervention`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			mustExec(ctx, t, tx, `SELECT outbox_redrive($1, 'ana', 'limits raised')`, []uuid.UUID{mustPark(ctx, t, tx, counted("a"))})
			_, err := tx.Exec(ctx, change)
			requireState(t, err, restrictViolation, "what was done to events is not changed or deleted")
		})
	}
}
