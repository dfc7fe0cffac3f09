package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
)

// note sweeps so that every shard's cursor is noted now, and stops at nothing that was
// delivered before.
func (bundle *testBundle) note(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.exec(ctx, t, `UPDATE outbox_cursor SET noted_at = '-infinity'`)
	sweeper := outbox.NewSweeper(bundle.db.Pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{Interval: time.Minute})
	require.NoError(t, sweeper.Sweep(ctx))
}

// deliver marks every event that is due as published.
func (bundle *testBundle) deliver(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.exec(ctx, t, `
		UPDATE outbox_delivery SET published_at = now(), broker_ref = 'STUB/1'
		WHERE published_at IS NULL AND discarded_at IS NULL AND parked_at IS NULL`)
}

func (bundle *testBundle) due(ctx context.Context, t *testing.T) (numDue int) {
	t.Helper()
	bundle.scan(ctx, t, &numDue, `SELECT count(due_at) FROM outbox_due WHERE stream = 'rolling'`)
	return numDue
}

// TestCursor_HidesNothingDue has events become due behind a cursor that was noted before.
func TestCursor_HidesNothingDue(t *testing.T) {
	t.Parallel()

	t.Run("ATransactionThatCommitsLate", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 20)
		// More than a search leaves out, each with a place before the one delivered.
		var open []pgx.Tx
		for _, key := range keys[1:13] {
			tx, err := bundle.db.Pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
			_, err = outbox.Append(ctx, tx, outbox.StreamRolling, outbox.Message{Key: key, Payload: []byte(`{}`), Type: "a"})
			require.NoError(t, err)
			open = append(open, tx)
		}
		bundle.stage(ctx, t, keys[0])
		bundle.deliver(ctx, t)
		bundle.note(ctx, t)
		require.Zero(t, bundle.due(ctx, t))
		for _, tx := range open {
			require.NoError(t, tx.Commit(ctx))
			require.Equal(t, 1, bundle.due(ctx, t))
			bundle.deliver(ctx, t)
			require.Zero(t, bundle.due(ctx, t))
			bundle.note(ctx, t)
		}
	})

	t.Run("ARedrivenEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		id := bundle.park(ctx, t, parking{key: bundle.neighbours(ctx, t, 1)[0]})
		bundle.note(ctx, t)
		bundle.note(ctx, t)
		require.Zero(t, bundle.due(ctx, t))
		bundle.exec(ctx, t, `SELECT outbox_redrive(ARRAY[$1::uuid], 'test', 'because')`, id)
		require.Equal(t, 1, bundle.due(ctx, t))
		bundle.note(ctx, t)
		require.Equal(t, 1, bundle.due(ctx, t))
	})

	t.Run("AnEventWhoseWaitIsOver", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.stage(ctx, t, bundle.neighbours(ctx, t, 1)...)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = clock_timestamp() + interval '2 s'`)
		bundle.note(ctx, t)
		bundle.note(ctx, t)
		require.Eventually(t, func() bool { return bundle.due(ctx, t) == 1 }, 30*time.Second, 20*time.Millisecond)
	})

	t.Run("AnEventThatWaitedBehindAnother", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		id := bundle.park(ctx, t, parking{key: key})
		bundle.stage(ctx, t, key)
		bundle.note(ctx, t)
		require.Zero(t, bundle.due(ctx, t), "it waits behind a parked one")
		bundle.exec(ctx, t, `SELECT outbox_discard(ARRAY[$1::uuid], 'test', 'because')`, id)
		bundle.note(ctx, t)
		require.Equal(t, 1, bundle.due(ctx, t))
		bundle.exec(ctx, t, `
			UPDATE outbox_delivery SET published_at = now(), broker_ref = 'STUB/1'
			WHERE id = (SELECT id FROM outbox_event WHERE type = 'truegreen.gap.v1')`)
		require.Equal(t, 1, bundle.due(ctx, t), "the marker went, and the event is due")
	})

	t.Run("ACursorOfAnotherServer", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.note(ctx, t)
		// As after a restart, or in a backup that was restored where numbers are lower.
		bundle.exec(ctx, t, `UPDATE outbox_cursor SET server_started_at = server_started_at - interval '1 s', fresh_from = 1000000000`)
		bundle.stage(ctx, t, bundle.neighbours(ctx, t, 1)...)
		require.Equal(t, 1, bundle.due(ctx, t))
		sweeper := outbox.NewSweeper(bundle.db.Pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{Interval: time.Minute})
		require.NoError(t, sweeper.Sweep(ctx))
		require.Equal(t, 1, bundle.due(ctx, t))
		var numOld int
		bundle.scan(ctx, t, &numOld, `SELECT count(*) FROM outbox_cursor WHERE server_started_at <> pg_postmaster_start_time()`)
		require.Zero(t, numOld)
	})

	t.Run("AnEventOfTheOwnTransaction", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		_, err = tx.Exec(ctx, `SELECT pg_current_xact_id()`)
		require.NoError(t, err)
		bundle.note(ctx, t)
		_, err = outbox.Append(ctx, tx, outbox.StreamRolling, outbox.Message{Key: "own", Payload: []byte(`{}`), Type: "a"})
		require.NoError(t, err)
		var numDue int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(due_at) FROM outbox_due`).Scan(&numDue))
		require.Equal(t, 1, numDue)
	})
}

// TestCursor_FindsEveryUndeliveredEvent does at random what happens to events, in
// transactions that stay open for a while, and compares after each step what a search
// finds with what there is.
func TestCursor_FindsEveryUndeliveredEvent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("Seed", seed), func(t *testing.T) {
			t.Parallel()
			walk := &cursorWalk{bundle: setup(ctx, t), random: rand.New(rand.NewPCG(seed, 1))}
			conn, err := walk.bundle.db.Pool.Acquire(ctx)
			require.NoError(t, err)
			defer conn.Release()
			_, err = conn.Exec(ctx, `SET jit = off`)
			require.NoError(t, err)
			for range 80 {
				walk.step(ctx, t)
				var numWrong, numOpen int
				require.NoError(t, conn.QueryRow(ctx, `
					WITH found AS (
						SELECT id FROM outbox_fresh UNION ALL SELECT id FROM outbox_waiting
					), real AS (
						SELECT id FROM outbox_delivery WHERE published_at IS NULL AND discarded_at IS NULL
					)
					SELECT
						(SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE real) AS more) + (SELECT count(*) FROM (TABLE real EXCEPT ALL TABLE found) AS less),
						(SELECT count(*) FROM real)`).Scan(&numWrong, &numOpen))
				require.Zero(t, numWrong, "of %d undelivered events", numOpen)
			}
			for _, tx := range walk.open {
				require.NoError(t, tx.Rollback(ctx))
			}
		})
	}
}

type cursorWalk struct {
	bundle *testBundle
	open   []pgx.Tx
	random *rand.Rand
}

// step changes something, mostly in a transaction that was begun before.
func (walk *cursorWalk) step(ctx context.Context, t *testing.T) {
	t.Helper()
	switch dice := walk.random.IntN(10); {
	case dice < 2:
		walk.bundle.note(ctx, t)
	case dice < 4 && len(walk.open) > 0:
		n := walk.random.IntN(len(walk.open))
		end := walk.open[n].Commit
		if walk.random.IntN(3) == 0 {
			end = walk.open[n].Rollback
		}
		require.NoError(t, end(ctx))
		walk.open = append(walk.open[:n], walk.open[n+1:]...)
	case len(walk.open) < 6:
		tx, err := walk.bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		walk.open = append(walk.open, tx)
		walk.change(ctx, t, tx)
	default:
		walk.change(ctx, t, walk.open[walk.random.IntN(len(walk.open))])
	}
}

func (walk *cursorWalk) change(ctx context.Context, t *testing.T, tx pgx.Tx) {
	t.Helper()
	if walk.random.IntN(2) == 0 {
		_, err := outbox.Append(ctx, tx, outbox.StreamRolling, outbox.Message{Key: uuid.NewString(), Payload: []byte(`{}`), Type: "a"})
		require.NoError(t, err)
		return
	}
	changes := []string{
		`published_at = now(), broker_ref = 'STUB/1'`,
		`published_at = now(), broker_ref = 'STUB/1'`,
		`attempts = attempts + 1`,
		`not_before = now(), failures = 1`,
		`not_before = NULL`,
		`parked_at = now(), park_reason = 'test'`,
		`parked_at = NULL, park_reason = NULL`,
		`discarded_at = now(), discarded_by = 'test', discard_reason = 'test'`,
	}
	_, err := tx.Exec(ctx, `
		UPDATE outbox_delivery SET `+changes[walk.random.IntN(len(changes))]+`
		WHERE id = (
			SELECT id FROM outbox_delivery WHERE published_at IS NULL AND discarded_at IS NULL
			ORDER BY md5(id::text || $1::text) LIMIT 1 FOR UPDATE SKIP LOCKED)`, fmt.Sprint(walk.random.Uint64()))
	require.NoError(t, err)
}

// TestEvidence_ReadsNothingThatIsOver compares what reading the loops reads in the
// database, in pages, before and after what a search must pass by has grown.
func TestEvidence_ReadsNothingThatIsOver(t *testing.T) {
	t.Parallel()
	const insert = `
		INSERT INTO outbox_delivery (id, place, stream, shard, key, created_at, not_before)
		SELECT max + n, max + n, 'rolling', mod(n, 4), 'key-' || n, clock_timestamp(), %s
		FROM generate_series(1, $1::integer) AS n, (SELECT coalesce(max(id), 0) AS max FROM outbox_delivery) AS last`
	const deliver = `
		UPDATE outbox_delivery SET published_at = now(), broker_ref = 'STUB/1' WHERE published_at IS NULL`
	const jobs = `
		INSERT INTO river_job (args, attempt, attempted_at, finalized_at, kind, max_attempts, queue, state)
		SELECT '{}', 1, now(), now(), 'outbox_rolling', 20, 'outbox_rolling', 'completed' FROM generate_series(1, $1::integer)`
	cases := map[string]struct {
		commit []string // each in a transaction of its own
		open   string   // in one that stays open
	}{
		"DeliveredEvents":        {commit: []string{fmt.Sprintf(insert, "NULL"), deliver}},
		"DeliveredAfterAFailure": {commit: []string{fmt.Sprintf(insert, "now()"), deliver}},
		"UncommittedEvents":      {open: fmt.Sprintf(insert, "NULL")},
		"UncommittedJobs":        {open: jobs},
		"CompletedJobs":          {commit: []string{jobs}},
		"Passes": {commit: []string{`
			DO $$ BEGIN
				FOR n IN 1 .. current_setting('test.num')::integer LOOP
					UPDATE outbox_shard SET last_published_at = clock_timestamp() WHERE stream = 'rolling';
					UPDATE loop_progress SET last_success_at = clock_timestamp() WHERE loop = 'outbox_rolling';
					COMMIT;
				END LOOP;
			END $$`}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			registry, err := freshness.New(freshness.Config{})
			require.NoError(t, err)
			require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
			bundle.exec(ctx, t, `INSERT INTO loop_progress (loop, worker_id, last_success_at) SELECT loop, 'w' || n, now() FROM loop_contract, generate_series(1, 2) AS n`)
			held, err := bundle.db.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
			require.NoError(t, err)
			defer func() { _ = held.Rollback(context.WithoutCancel(ctx)) }()
			_, err = held.Exec(ctx, `SELECT count(*) FROM outbox_delivery`)
			require.NoError(t, err)
			open, err := bundle.db.Pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { _ = open.Rollback(context.WithoutCancel(ctx)) }()

			grow := func(num int) int {
				for _, sql := range test.commit {
					if name == "Passes" {
						conn, err := bundle.db.Pool.Acquire(ctx)
						require.NoError(t, err)
						_, err = conn.Exec(ctx, fmt.Sprintf(`SET test.num = %d`, num))
						require.NoError(t, err)
						_, err = conn.Exec(ctx, sql)
						require.NoError(t, err)
						conn.Release()
						continue
					}
					args := []any{num}
					if sql == deliver {
						args = nil
					}
					bundle.exec(ctx, t, sql, args...)
				}
				if test.open != "" {
					_, err := open.Exec(ctx, test.open, num)
					require.NoError(t, err)
				}
				bundle.note(ctx, t)
				return bundle.pagesRead(ctx, t)
			}
			few := grow(200)
			many := grow(8000)
			// A search may descend an index that is a level deeper, and a bitmap of one that
			// is larger. Reading what is over would take a page for each of the 8,000.
			limit := 3 * few
			require.Less(t, limit, 8000, "%d pages behind 200 leave no room to see it", few)
			require.Less(t, many, limit, "%d pages behind 200, %d behind 8,200", few, many)
		})
	}
}

// TestStatus_ReadsNothingThatWasDelivered compares what outbox_status reads, in pages, at
// two lengths of history, and that it counts the same.
func TestStatus_ReadsNothingThatWasDelivered(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t)
	bundle.park(ctx, t, parking{key: "parked"})
	bundle.stage(ctx, t, "parked", "pending")
	const status = `SELECT pending, delayed, blocked, parked, published, oldest_due_age IS NOT NULL, last_published_at FROM outbox_status`
	grow := func(num int) int {
		bundle.exec(ctx, t, `
			INSERT INTO outbox_delivery (id, place, stream, shard, key, created_at, published_at, broker_ref)
			SELECT max + n, max + n, 'rolling', mod(n, 4), 'key-' || n, now(), now(), 'STUB/1'
			FROM generate_series(1, $1::integer) AS n, (SELECT max(id) AS max FROM outbox_delivery) AS last`, num)
		bundle.exec(ctx, t, `ANALYZE outbox_delivery`)
		bundle.note(ctx, t)
		return bundle.pagesOf(ctx, t, status)
	}
	few := grow(200)
	many := grow(20_000)
	require.Less(t, many, few+few/2, "%d pages after 200 deliveries, %d after 20,200", few, many)
	var counts string
	bundle.scan(ctx, t, &counts, `SELECT concat_ws(' ', pending, delayed, blocked, parked) FROM outbox_status WHERE stream = 'rolling'`)
	require.Equal(t, "1 0 1 1", counts)
}

// pagesRead is how many pages the evidence of all loops costs, its plan apart.
func (bundle *testBundle) pagesRead(ctx context.Context, t *testing.T) int {
	t.Helper()
	return bundle.pagesOf(ctx, t, `SELECT loop, verdict, age, oldest_due_age, stuck_part, num_failing FROM worker_freshness`)
}

// pagesOf is how many pages a query reads.
func (bundle *testBundle) pagesOf(ctx context.Context, t *testing.T, query string) int {
	t.Helper()
	conn, err := bundle.db.Pool.Acquire(ctx)
	require.NoError(t, err)
	defer conn.Release()
	var pages int
	// What a first reading finds dead for everybody it marks so: the second counts.
	for range 2 {
		var doc []byte
		err := conn.QueryRow(ctx, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query).Scan(&doc)
		require.NoError(t, err)
		var plans []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		require.NoError(t, json.Unmarshal(doc, &plans))
		pages = plans[0].Plan.Hit + plans[0].Plan.Read
	}
	return pages
}
