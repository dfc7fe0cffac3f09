package migrations_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/dbtest"
)

// appendMany calls outbox_append_many for events of one stream.
func appendMany(ctx context.Context, db rower, stream string, events ...event) ([]uuid.UUID, error) {
	var keys, types, payloads, headers []any
	var keySeqs []any
	for _, e := range events {
		keys, types = append(keys, e.key), append(types, e.typ)
		payloads, headers = append(payloads, e.payload), append(headers, e.headers)
		if e.keySeq != nil {
			keySeqs = append(keySeqs, e.keySeq)
		}
	}
	var ids []uuid.UUID
	err := db.QueryRow(ctx, `SELECT outbox_append_many($1, $2::text[], $3::text[], $4::text[]::jsonb[], $5::text[]::jsonb[], $6::bigint[])`,
		stream, keys, types, payloads, headers, keySeqs).Scan(&ids)
	return ids, err
}

func TestOutboxAppendMany(t *testing.T) {
	t.Parallel()

	t.Run("StoresInTheOrderGivenAndCountsPerKey", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		mustAppend(ctx, t, pool, counted("b"))
		ids, err := appendMany(ctx, pool, "rolling", counted("b"), counted("a"), counted("b"), counted("c"), counted("a"))
		require.NoError(t, err)
		require.Len(t, ids, 5)

		stored := lines(ctx, t, pool, `SELECT key || ' ' || key_seq FROM outbox_event ORDER BY id`)
		require.Equal(t, []string{"b 1", "b 2", "a 1", "b 3", "c 1", "a 2"}, stored)
		inOrder := lines(ctx, t, pool, `SELECT event_id::text FROM outbox_event ORDER BY id OFFSET 1`)
		for i, id := range ids {
			require.Equal(t, id.String(), inOrder[i], "ids come back in the order of the events")
		}
		require.Equal(t, []string{"a 2", "b 3", "c 1"}, lines(ctx, t, pool, `SELECT key || ' ' || last_seq FROM outbox_key ORDER BY key`))
	})

	t.Run("TakesVersionsForStreamsThatWantThem", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		_, err := appendMany(ctx, pool, "wallet", supplied("a", 4), supplied("b", 9), supplied("a", 5))
		require.NoError(t, err)
		require.Equal(t, []string{"a 4", "b 9", "a 5"}, lines(ctx, t, pool, `SELECT key || ' ' || key_seq FROM outbox_event ORDER BY id`))
		require.Empty(t, lines(ctx, t, pool, `SELECT key FROM outbox_key`))
	})

	t.Run("RefusesAllForOneBadEventAndNamesIt", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		bad := counted("c")
		bad.typ = "no good"
		_, err := appendMany(ctx, pool, "rolling", counted("a"), counted("b"), bad)
		requireState(t, err, invalidParameter, "append to outbox stream rolling, event 3: type 'no good'")
		require.Empty(t, lines(ctx, t, pool, `SELECT key FROM outbox_event UNION ALL SELECT key FROM outbox_key UNION ALL SELECT kind FROM river_job`))
	})

	t.Run("RefusesListsOfDifferentLength", func(t *testing.T) {
		t.Parallel()

		for _, call := range []string{
			`'rolling', '{a,b}', '{t}', ARRAY['1','2']::jsonb[]`,
			`'rolling', '{a,b}', '{t,t}', ARRAY['1']::jsonb[]`,
			`'rolling', '{a,b}', '{t,t}', ARRAY['1','2']::jsonb[], ARRAY['{}']::jsonb[]`,
			`'wallet', '{a,b}', '{t,t}', ARRAY['1','2']::jsonb[], NULL, '{1}'`,
			`'rolling', '{a,b}', NULL, ARRAY['1','2']::jsonb[]`,
		} {
			ctx := t.Context()
			_, err := dbtest.Tx(ctx, t).Exec(ctx, `SELECT outbox_append_many(`+call+`)`)
			requireState(t, err, invalidParameter, "must have one element per event")
		}
	})

	t.Run("RefusesAnUnknownStream", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		_, err := appendMany(ctx, dbtest.Tx(ctx, t), "walet", counted("a"))
		requireState(t, err, invalidParameter, "there is no stream 'walet'")
	})

	t.Run("TakesEventsWithoutHeaders", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		_, err := pool.Exec(ctx, `SELECT outbox_append_many('rolling', '{a,b}', '{t,t}', ARRAY['1','2']::jsonb[])`)
		require.NoError(t, err)
		_, err = pool.Exec(ctx, `SELECT outbox_append_many('rolling', '{a,b}', '{t,t}', ARRAY['1','2']::jsonb[], ARRAY[NULL,'{"x":"y"}']::jsonb[])`)
		require.NoError(t, err)
		require.Equal(t, []string{"{}", "{}", "{}", `{"x": "y"}`}, lines(ctx, t, pool, `SELECT headers::text FROM outbox_event ORDER BY id`))
	})

	t.Run("InsertsOneJobPerShard", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		one, same, other := keysOfShard(ctx, t, pool)
		_, err := appendMany(ctx, pool, "rolling", counted(one), counted(same), counted(one))
		require.NoError(t, err)
		require.Equal(t, 1, numJobs(ctx, t, pool))
		_, err = appendMany(ctx, pool, "rolling", counted(other), counted(same))
		require.NoError(t, err)
		require.Equal(t, []string{`{"shard": 0}`, `{"shard": 1}`}, lines(ctx, t, pool, `SELECT args::text FROM river_job ORDER BY args`))
	})

	t.Run("NeverDeadlocks", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		var forward []event
		for i := range 50 {
			forward = append(forward, counted(fmt.Sprintf("k%d", i)))
		}
		backward := slices.Clone(forward)
		slices.Reverse(backward)

		group, groupCtx := errgroup.WithContext(ctx)
		for _, events := range [][]event{forward, backward, forward, backward} {
			group.Go(func() error {
				for range 20 {
					if _, err := appendMany(groupCtx, pool, "rolling", events...); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, group.Wait())
		require.Equal(t, []string{"80"}, lines(ctx, t, pool, `SELECT DISTINCT last_seq::text FROM outbox_key`))
	})
}
