package migrations_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/dbtest"
	"truegreen/jobs"
)

func TestOutboxAppend(t *testing.T) {
	t.Parallel()

	t.Run("StoresTheEventAsGiven", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		given := supplied("player_1", 7)
		given.headers = `{"traceparent": "00-1-2-01"}`
		id := mustAppend(ctx, t, tx, given)

		var stream, key, typ, payload, headers, state string
		var keySeq int64
		err := tx.QueryRow(ctx, `
			SELECT stream, key, key_seq, type, payload::text, headers::text, state
			FROM outbox_events WHERE event_id = $1`, id).
			Scan(&stream, &key, &keySeq, &typ, &payload, &headers, &state)
		require.NoError(t, err)
		require.Equal(t, []any{"wallet", "player_1", int64(7), "wallet.credited.v1", "pending"}, []any{stream, key, keySeq, typ, state})
		require.JSONEq(t, `{"amount":"1"}`, payload)
		require.JSONEq(t, `{"traceparent": "00-1-2-01"}`, headers)
	})

	t.Run("LeavesNothingWhenRolledBack", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		tx := begin(ctx, t, pool)
		mustAppend(ctx, t, tx, counted("a"))
		require.NoError(t, tx.Rollback(ctx))

		var left int
		require.NoError(t, pool.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM outbox_event) + (SELECT count(*) FROM outbox_key) + (SELECT count(*) FROM river_job)`).Scan(&left))
		require.Zero(t, left)
	})

	t.Run("CountsWithoutGapsAndInOrderUnderLoad", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		group, groupCtx := errgroup.WithContext(ctx)
		for range 8 {
			group.Go(func() error {
				for range 25 {
					tx, err := pool.Begin(groupCtx)
					if err != nil {
						return err
					}
					if _, err := counted("k"+string(rune('0'+rand.IntN(3)))).append(groupCtx, tx); err != nil {
						return err
					}
					end := tx.Commit
					if rand.IntN(4) == 0 {
						end = tx.Rollback
					}
					if err := end(groupCtx); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, group.Wait())

		var numKeys, numWrong int
		require.NoError(t, pool.QueryRow(ctx, `
			SELECT count(DISTINCT key), count(*) FILTER (WHERE key_seq <> nth)
			FROM (SELECT key, key_seq, row_number() OVER (PARTITION BY key ORDER BY id) AS nth FROM outbox_event) AS numbered`).
			Scan(&numKeys, &numWrong))
		require.Equal(t, 3, numKeys)
		require.Zero(t, numWrong, "the nth event of a key has key_seq n")
	})

	t.Run("TakesAVersionOnce", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		mustAppend(ctx, t, tx, supplied("twice", 1))
		mustAppend(ctx, t, tx, supplied("twice", 2))
		_, err := supplied("twice", 2).append(ctx, tx)
		requireState(t, err, uniqueViolation, "outbox_event_key_seq_key")
	})

	t.Run("HasDefaultsForCallersInPlainSQL", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		_, err := tx.Exec(ctx, `SELECT outbox_append('agent', 'plain', 'agent.earned.v1', '{"earned": "5"}')`)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `SELECT outbox_append(stream => 'wallet', key => 'plain', type => 'x', payload => '1', key_seq => 1)`)
		require.NoError(t, err)
	})
}

func TestOutboxAppend_Bounds(t *testing.T) {
	t.Parallel()

	with := func(e event, change func(*event)) event {
		change(&e)
		return e
	}
	good := counted("bounds")
	largest := `"` + strings.Repeat("x", 524288-2) + `"` // with its quotes 512 KiB, as the stream takes

	for name, tc := range map[string]struct {
		event   event
		message string
	}{
		"HeaderName":        {with(good, func(e *event) { e.headers = `{"a b": "x"}` }), "header name 'a b' must be 1 to 64 of"},
		"HeaderNameCE":      {with(good, func(e *event) { e.headers = `{"CE-id": "x"}` }), "must not start with ce- or Nats-"},
		"HeaderNameNats":    {with(good, func(e *event) { e.headers = `{"nats-Msg-Id": "x"}` }), "must not start with ce- or Nats-"},
		"HeaderNameLong":    {with(good, func(e *event) { e.headers = `{"` + strings.Repeat("h", 65) + `": "x"}` }), "must be 1 to 64 of"},
		"HeaderValue":       {with(good, func(e *event) { e.headers = `{"a": 1}` }), "header a must be a string"},
		"HeaderValueBreaks": {with(good, func(e *event) { e.headers = `{"a": "x\r\ny"}` }), "header a must not have control characters: character 2 is U+000D"},
		"HeadersList":       {with(good, func(e *event) { e.headers = `["a"]` }), "headers must be a JSON object"},
		"HeadersNull":       {with(good, func(e *event) { e.headers = nil }), "headers must be a JSON object"},
		"HeaderContentType": {with(good, func(e *event) { e.headers = `{"Content-Type": "text/plain"}` }), "header Content-Type is not for the caller: the outbox sets it to application/json, so leave it out"},
		"HeaderValueEnds":   {with(good, func(e *event) { e.headers = `{"a": "x "}` }), "header a is 'x ' and must not begin or end with a space, which the broker does not carry: use 'x'"},
		"KeyControl":        {with(good, func(e *event) { e.key = "a\nb" }), "key must not have control characters: character 2 is U+000A"},
		"KeyControlC1":      {with(good, func(e *event) { e.key = "ab\u0085" }), "key must not have control characters: character 3 is U+0085"},
		"KeyEndsInSpace":    {with(good, func(e *event) { e.key = "trail " }), "stream rolling: key 'trail ' must not begin or end with a space, which the broker does not carry: use 'trail'"},
		"KeyBeginsInSpace":  {with(good, func(e *event) { e.key = " \u3000x" }), "must not begin or end with a space, which the broker does not carry: use 'x'"},
		"KeyEmpty":          {with(good, func(e *event) { e.key = "" }), "key must have 1 to 260 characters"},
		"KeyLong":           {with(good, func(e *event) { e.key = strings.Repeat("k", 261) }), "key must have 1 to 260 characters"},
		"KeyNull":           {with(good, func(e *event) { e.key = nil }), "key must have 1 to 260 characters"},
		"KeySeqMissing":     {with(supplied("x", 1), func(e *event) { e.keySeq = nil }), "stream wallet: key_seq must be given and above 0"},
		"KeySeqUnwanted":    {with(good, func(e *event) { e.keySeq = 1 }), "stream rolling: key_seq must be left out"},
		"KeySeqZero":        {supplied("x", 0), "key_seq must be given and above 0"},
		"PayloadLarge":      {with(good, func(e *event) { e.payload = largest[:1] + "x" + largest[1:] }), "have 524289 bytes, more than the 524288 that stream rolling takes"},
		"PayloadAndHeaders": {with(good, func(e *event) { e.payload = largest; e.headers = `{"a": "x"}` }), "have 524298 bytes"},
		"PayloadNull":       {with(good, func(e *event) { e.payload = nil }), "payload must not be NULL"},
		"Stream":            {with(good, func(e *event) { e.stream = "walet" }), "there is no stream 'walet'"},
		"StreamNull":        {with(good, func(e *event) { e.stream = nil }), "there is no stream NULL"},
		"TypeBlank":         {with(good, func(e *event) { e.typ = "a b" }), "type 'a b' must be 1 to 8 tokens"},
		"TypeDots":          {with(good, func(e *event) { e.typ = "a..b" }), "must be 1 to 8 tokens"},
		"TypeEmpty":         {with(good, func(e *event) { e.typ = "" }), "must be 1 to 8 tokens"},
		"TypeLong":          {with(good, func(e *event) { e.typ = strings.Repeat("t", 129) }), "at most 128 bytes"},
		"TypeNewline":       {with(good, func(e *event) { e.typ = "a\n" }), "must be 1 to 8 tokens"},
		"TypeNineTokens":    {with(good, func(e *event) { e.typ = "1.2.3.4.5.6.7.8.9" }), "must be 1 to 8 tokens"},
		"TypeNull":          {with(good, func(e *event) { e.typ = nil }), "type NULL must be 1 to 8 tokens"},
		"TypeWildcard":      {with(good, func(e *event) { e.typ = "wallet.>" }), "must be 1 to 8 tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			_, err := tc.event.append(ctx, dbtest.Tx(ctx, t))
			requireState(t, err, invalidParameter, tc.message)
		})
	}

	for name, event := range map[string]event{
		"Header":         with(good, func(e *event) { e.headers = `{"` + strings.Repeat("h", 64) + `": ""}` }),
		"HeaderCEWithin": with(good, func(e *event) { e.headers = `{"x-ce-id": "x", "center": "y"}` }),
		"HeaderSpaceIn":  with(good, func(e *event) { e.headers = `{"a": "x y"}` }),
		"KeySpaceIn":     with(good, func(e *event) { e.key = "p 1/\u00a0한글" }),
		"Key":            with(good, func(e *event) { e.key = strings.Repeat("키", 260) }),
		"KeySeqLargest":  supplied("edge", 1<<62),
		"Payload":        with(good, func(e *event) { e.payload = largest }),
		"PayloadScalar":  with(good, func(e *event) { e.payload = `null` }),
		"Type":           with(good, func(e *event) { e.typ = "1.2.3.4.5.6._.-" + strings.Repeat("t", 128-15) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			mustAppend(ctx, t, dbtest.Tx(ctx, t), event)
		})
	}
}

func TestOutboxAppend_Locks(t *testing.T) {
	t.Parallel()

	t.Run("OtherKeysOfTheShardDoNotWait", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		one, same, _ := keysOfShard(ctx, t, pool)
		first, second, third := begin(ctx, t, pool), begin(ctx, t, pool), begin(ctx, t, pool)
		mustAppend(ctx, t, first, counted(one))
		mustAppend(ctx, t, second, counted(same))
		// Also once the shard has a job that is committed.
		require.NoError(t, first.Commit(ctx))
		mustAppend(ctx, t, third, counted(one))
		require.NoError(t, third.Commit(ctx))
		require.NoError(t, second.Commit(ctx))
	})

	t.Run("NoAppendLocksTheShard", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		tx := begin(ctx, t, pool)
		mustAppend(ctx, t, tx, counted("a"))
		// A lease is an update of the shard's row.
		worker := begin(ctx, t, pool)
		_, err := worker.Exec(ctx, `UPDATE outbox_shard SET lease_epoch = lease_epoch + 1`)
		require.NoError(t, err)
		mustAppend(ctx, t, tx, counted("b"))
	})

	t.Run("AppendsOfOneCountedKeyWait", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		first, second := begin(ctx, t, pool), begin(ctx, t, pool)
		mustAppend(ctx, t, first, counted("a"))
		_, err := counted("a").append(ctx, second)
		requireState(t, err, lockNotAvailable, "lock timeout")

		require.NoError(t, first.Rollback(ctx))
		id := mustAppend(ctx, t, pool, counted("a"))
		var keySeq int64
		require.NoError(t, pool.QueryRow(ctx, `SELECT key_seq FROM outbox_event WHERE event_id = $1`, id).Scan(&keySeq))
		require.Equal(t, int64(1), keySeq, "what was rolled back left no gap")
	})
}

func TestOutboxAppend_Wakes(t *testing.T) {
	t.Parallel()

	t.Run("InsertsOneJobPerShard", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		one, same, other := keysOfShard(ctx, t, pool)
		for i := range 3 {
			mustAppend(ctx, t, pool, supplied(one, i+1))
			mustAppend(ctx, t, pool, supplied(same, i+1))
		}
		require.Equal(t, 1, numJobs(ctx, t, pool))
		mustAppend(ctx, t, pool, supplied(other, 1))
		mustAppend(ctx, t, pool, counted(one))
		require.Equal(t, 3, numJobs(ctx, t, pool), "another shard and another stream have jobs of their own")

		options := jobs.OutboxWalletArgs{}.InsertOpts()
		var numRight int
		require.NoError(t, pool.QueryRow(ctx, `
			SELECT count(*) FROM river_job
			WHERE kind = $1 AND queue = $2 AND max_attempts = $3 AND state = 'available' AND args IN ('{"shard": 0}', '{"shard": 1}')`,
			jobs.OutboxWalletArgs{}.Kind(), options.Queue, options.MaxAttempts).Scan(&numRight))
		require.Equal(t, 2, numRight, "the jobs are what the workers of package jobs take")
	})

	for name, tc := range map[string]struct {
		before string
		num    int
	}{
		"NotAShardThatIsAwake":           {`UPDATE outbox_shard SET awake_until = clock_timestamp() + interval '1 hour'`, 0},
		"NotAShardInBackoff":             {`UPDATE outbox_shard SET backoff_until = clock_timestamp() + interval '1 hour'`, 0},
		"AShardThatFellAsleep":           {`UPDATE outbox_shard SET awake_until = clock_timestamp() - interval '1 ms'`, 1},
		"AShardWhoseBackoffIsOver":       {`UPDATE outbox_shard SET backoff_until = clock_timestamp() - interval '1 ms'`, 1},
		"AShardWhoseJobRuns":             {`INSERT INTO river_job (args, kind, max_attempts, queue, state) VALUES ('{"shard": 0}', 'outbox_wallet', 20, 'outbox_wallet', 'running')`, 2},
		"AShardWhoseJobIsFarOff":         {`INSERT INTO river_job (args, kind, max_attempts, queue, scheduled_at) VALUES ('{"shard": 0}', 'outbox_wallet', 20, 'outbox_wallet', now() + interval '1 minute')`, 2},
		"NotAShardWhoseJobIsAboutToRun":  {`INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{"shard": 0}', 'outbox_wallet', 20, 'outbox_wallet')`, 1},
		"AShardWhoseNeighbourHasTheJob":  {`INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{"shard": 1}', 'outbox_wallet', 20, 'outbox_wallet')`, 2},
		"AShardOfTheStreamWithoutTheJob": {`INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{"shard": 0}', 'outbox_agent', 20, 'outbox_agent')`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			one, _, _ := keysOfShard(ctx, t, tx)
			_, err := tx.Exec(ctx, tc.before)
			require.NoError(t, err)
			// A version that no other test waits for.
			mustAppend(ctx, t, tx, supplied(one, 1+rand.IntN(1<<60)))
			require.Equal(t, tc.num, numJobs(ctx, t, tx))
		})
	}

	t.Run("NotifiesRiverOnceItIsCommitted", func(t *testing.T) {
		t.Parallel()

		ctx, pool := newDatabase(t)
		conn, err := pool.Acquire(ctx)
		require.NoError(t, err)
		defer conn.Release()
		_, err = conn.Exec(ctx, `LISTEN "public.river_insert"`)
		require.NoError(t, err)

		require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := supplied("a", 1).append(ctx, tx)
			return err
		}))
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		notification, err := conn.Conn().WaitForNotification(ctx)
		require.NoError(t, err)
		require.JSONEq(t, `{"queue": "outbox_wallet"}`, notification.Payload)
	})
}
