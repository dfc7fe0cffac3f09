package bench_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// claimSQL is the relay's own statement, as the generated code has it.
func claimSQL(b *testing.B) string {
	b.Helper()
	source, err := os.ReadFile("../internal/dbsqlc/outbox_delivery.sql.go")
	require.NoError(b, err)
	found := regexp.MustCompile("(?s)const outboxDeliveryClaim = `(.*?)`").FindSubmatch(source)
	require.Len(b, found, 2)
	return string(found[1])
}

// BenchmarkClaimByPublished claims a thousand of 20,000 pending events beside none and
// beside ten million published ones, as a day of 115 events a second leaves them in the
// live tables. With -v it shows both plans.
func BenchmarkClaimByPublished(b *testing.B) {
	const (
		numClaims    = 201
		numPending   = 20_000
		numPublished = 10_000_000
	)
	ctx := b.Context()
	s := setup(ctx, b)
	claim := claimSQL(b)
	medians := make(map[string]float64)
	for b.Loop() {
		s.stage(ctx, b, manyKeys, 1, numPending)
		medians["none"] = s.claims(ctx, b, claim, "none", numClaims)

		for first := 0; first < numPublished; first += 500_000 {
			s.stagePublished(ctx, b, 1_000+first/10_000, 500_000)
		}
		for _, rest := range []string{`VACUUM ANALYZE outbox_event, outbox_delivery`, `CHECKPOINT`} {
			_, err := s.pool.Exec(ctx, rest)
			require.NoError(b, err)
		}
		s.stage(ctx, b, manyKeys, 1_000_000, numPending)
		medians["10M"] = s.claims(ctx, b, claim, "10M", numClaims)
	}
	b.ReportMetric(0, "ns/op")
	for name, value := range medians {
		b.ReportMetric(value, name+"_ms/claim")
	}
	b.ReportMetric(medians["10M"]/medians["none"], "10M/none")
}

// stagePublished stores events that the broker acknowledged.
func (s *stack) stagePublished(ctx context.Context, b *testing.B, firstSeq, numEvents int) {
	b.Helper()
	_, err := s.pool.Exec(ctx, `
		WITH stored AS (
			INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
			SELECT 'q-' || n % 10000, $2 + n / 10000, '{"amount":"1000"}', outbox_shard_of('q-' || n % 10000, 4), 'wallet', 'wallet.staked.v1'
			FROM generate_series(0, $1 - 1) AS n
			RETURNING id, created_at, key, shard, stream
		)
		INSERT INTO outbox_delivery (id, attempts, broker_ref, created_at, key, place, published_at, shard, stream)
		SELECT id, 1, 'TRUEGREEN_WALLET/' || id, created_at, key, id, clock_timestamp(), shard, stream FROM stored`, numEvents, firstSeq)
	require.NoError(b, err)
}

// claims returns the median of one claim of 1,000 events in milliseconds, each rolled
// back.
func (s *stack) claims(ctx context.Context, b *testing.B, claim, name string, num int) float64 {
	b.Helper()
	_, err := s.pool.Exec(ctx, `UPDATE outbox_shard SET lease_owner = 'bench', lease_epoch = 1, lease_expires_at = clock_timestamp() + interval '1 hour' WHERE stream = 'wallet'`)
	require.NoError(b, err)
	args := []any{"wallet", int32(0), int64(0), int64(0), []string{}, true, int32(1000), 6 * time.Second, int64(1)}
	times := make([]float64, num)
	tx, err := s.pool.Begin(ctx)
	require.NoError(b, err)
	defer func() { _ = tx.Rollback(ctx) }()
	for i := range times {
		started := time.Now()
		rows, err := tx.Query(ctx, claim, args...)
		require.NoError(b, err)
		numRows := 0
		for rows.Next() {
			numRows++
		}
		require.NoError(b, rows.Err())
		require.Equal(b, 1000, numRows)
		times[i] = time.Since(started).Seconds() * 1000
	}
	rows, err := tx.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) "+claim, args...)
	require.NoError(b, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b, err)
	b.Log(fmt.Sprintf("beside %s published:\n", name) + strings.Join(plan, "\n"))
	return median(times)
}
