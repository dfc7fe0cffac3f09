package migrations_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// SQLSTATEs that the tests expect.
const (
	invalidParameter = "22023"
	lockNotAvailable = "55P03"
	uniqueViolation  = "23505"
)

// rower is a connection, a pool or a transaction.
type rower interface {
	querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// event is what outbox_append is called with. Nil is NULL.
type event struct {
	headers any
	key     any
	keySeq  any
	payload any
	stream  any
	typ     any
}

// counted is a good event of a stream that counts by itself.
func counted(key string) event {
	return event{headers: `{}`, key: key, payload: `{"amount":"1"}`, stream: "rolling", typ: "rolling.accrued.v1"}
}

// supplied is a good event of a stream that takes the caller's version.
func supplied(key string, keySeq int) event {
	return event{headers: `{}`, key: key, keySeq: keySeq, payload: `{"amount":"1"}`, stream: "wallet", typ: "wallet.credited.v1"}
}

func (e event) append(ctx context.Context, db rower) (uuid.UUID, error) {
	var id uuid.UUID
	err := db.QueryRow(ctx, `SELECT outbox_append($1, $2, $3, $4::jsonb, $5::jsonb, $6::bigint)`,
		e.stream, e.key, e.typ, e.payload, e.headers, e.keySeq).Scan(&id)
	return id, err
}

func mustAppend(ctx context.Context, t *testing.T, db rower, e event) uuid.UUID {
	t.Helper()
	id, err := e.append(ctx, db)
	require.NoError(t, err)
	return id
}

func requireState(t *testing.T, err error, sqlState, message string) {
	t.Helper()
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, sqlState, refused.Code, refused.Message)
	require.Contains(t, refused.Message, message)
}

// keysOfShard returns two keys of one shard of the four that each stream has,
// and one of another.
func keysOfShard(ctx context.Context, t *testing.T, db rower) (one, same, other string) {
	t.Helper()
	err := db.QueryRow(ctx, `
		SELECT min(n), max(n), (SELECT min(o) FROM generate_series(1, 100) AS o WHERE outbox_shard_of('k' || o, 4) = 1)
		FROM (SELECT 'k' || n AS n FROM generate_series(1, 100) AS n WHERE outbox_shard_of('k' || n, 4) = 0 LIMIT 2) AS two`).
		Scan(&one, &same, &other)
	require.NoError(t, err)
	require.NotEqual(t, one, same)
	return one, same, "k" + other
}

func numJobs(ctx context.Context, t *testing.T, db rower) int {
	t.Helper()
	var num int
	require.NoError(t, db.QueryRow(ctx, `SELECT count(*) FROM river_job`).Scan(&num))
	return num
}

// begin starts a transaction on a connection of its own, so that two can be open
// at once. It gives up on a lock after 300 ms and is rolled back in the end.
func begin(ctx context.Context, t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(ctx)) })
	_, err = tx.Exec(ctx, `SET LOCAL lock_timeout = '300ms'`)
	require.NoError(t, err)
	return tx
}

func newDatabase(t *testing.T) (context.Context, *pgxpool.Pool) {
	t.Helper()
	ctx := t.Context()
	return ctx, dbtest.Database(ctx, t).Pool
}
