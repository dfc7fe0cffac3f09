package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

const (
	// hotKey gets every third event.
	hotKey = "hot-0"
	// numKeys of each stream share the rest.
	numKeys = 24
	// maxPerTransaction bounds the events of one transaction.
	maxPerTransaction = 6
)

// appended is one event that the application was told the id of.
type appended struct {
	committedAt time.Time // by when it was; zero if it was not
	key, stream string
}

// application appends events, in transactions of its own, and keeps account of
// them.
type application struct {
	committed  map[string]appended
	numEvents  int
	pool       *pgxpool.Pool
	random     *rand.Rand
	rolledBack map[string]appended
	versions   map[string]int64 // of the wallets
}

func newApplication(pool *pgxpool.Pool, random *rand.Rand) *application {
	return &application{
		committed:  make(map[string]appended),
		pool:       pool,
		random:     random,
		rolledBack: make(map[string]appended),
		versions:   make(map[string]int64),
	}
}

// transaction is one of the application's.
type transaction struct {
	application *application
	events      map[string]appended
	tx          pgx.Tx
	versions    map[string]int64 // of wallets, if it commits
}

func (a *application) begin(ctx context.Context, t *testing.T) *transaction {
	t.Helper()
	tx, err := a.pool.Begin(ctx)
	require.NoError(t, err)
	return &transaction{application: a, events: make(map[string]appended), tx: tx, versions: make(map[string]int64)}
}

// append appends one event for each of keys, in one round trip, and returns their
// ids.
func (tx *transaction) append(ctx context.Context, t *testing.T, keys ...appended) []string {
	t.Helper()
	batch := &pgx.Batch{}
	for _, key := range keys {
		tx.application.numEvents++
		var keySeq *int64
		if key.stream == "wallet" {
			version, isKnown := tx.versions[key.key]
			if !isKnown {
				version = tx.application.versions[key.key]
			}
			version++
			tx.versions[key.key], keySeq = version, &version
		}
		batch.Queue(`SELECT outbox_append($1, $2, $3, $4, '{"traceparent": "00-aa-bb-01"}', $5)::text`,
			key.stream, key.key, key.stream+".happened.v1", fmt.Sprintf(`{"n": "%d"}`, tx.application.numEvents), keySeq)
	}
	results := tx.tx.SendBatch(ctx, batch)
	ids := make([]string, len(keys))
	for i := range keys {
		require.NoError(t, results.QueryRow().Scan(&ids[i]))
		tx.events[ids[i]] = keys[i]
	}
	require.NoError(t, results.Close())
	return ids
}

// end commits, or rolls back, and notes it.
func (tx *transaction) end(ctx context.Context, t *testing.T, commits bool) {
	t.Helper()
	into := tx.application.rolledBack
	if commits {
		require.NoError(t, tx.tx.Commit(ctx))
		into = tx.application.committed
		for key, version := range tx.versions {
			tx.application.versions[key] = version
		}
	} else {
		require.NoError(t, tx.tx.Rollback(ctx))
	}
	for id, event := range tx.events {
		if commits {
			event.committedAt = time.Now()
		}
		into[id] = event
	}
}

// commit appends one event for each of keys in one transaction.
func (a *application) commit(ctx context.Context, t *testing.T, keys ...appended) []string {
	t.Helper()
	tx := a.begin(ctx, t)
	ids := tx.append(ctx, t, keys...)
	tx.end(ctx, t, true)
	return ids
}

// appendTwo runs two transactions on keys of their own. The first to take ids is the
// last to commit. Every fifth is rolled back.
func (a *application) appendTwo(ctx context.Context, t *testing.T) {
	t.Helper()
	first, second := a.begin(ctx, t), a.begin(ctx, t)
	first.append(ctx, t, a.pick(0)...)
	second.append(ctx, t, a.pick(1)...)
	second.end(ctx, t, a.random.IntN(5) > 0)
	first.end(ctx, t, a.random.IntN(5) > 0)
}

// pick returns some keys, of even or of odd number.
func (a *application) pick(parity int) []appended {
	keys := make([]appended, 1+a.random.IntN(maxPerTransaction))
	for i := range keys {
		keys[i].stream = streamNames()[a.random.IntN(3)]
		keys[i].key = hotKey
		if parity == 1 || a.random.IntN(3) > 0 {
			keys[i].key = fmt.Sprintf("key-%d", 2*a.random.IntN(numKeys/2)+parity)
		}
	}
	return keys
}

// backlog is numEvents events of each stream for a transaction, half of them of the
// hot key.
func backlog(numEvents int) []appended {
	keys := make([]appended, 0, 3*numEvents)
	for i := range numEvents {
		for _, stream := range streamNames() {
			key := hotKey
			if i%2 > 0 {
				key = fmt.Sprintf("key-%d", i%numKeys)
			}
			keys = append(keys, appended{key: key, stream: stream})
		}
	}
	return keys
}
