package bench_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/pgtx"
)

// BenchmarkLatency measures how long after the commit of its transaction an
// event's acknowledgement is stored, at a steady rate of transactions that start
// by the clock, whether or not earlier ones have ended.
func BenchmarkLatency(b *testing.B) {
	for _, rate := range []int{200, 1000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			const lasts = 15 * time.Second
			ctx := b.Context()
			s := setup(ctx, b)
			stop := s.startWorkers(ctx, b, 1)
			defer stop()
			var p50, p99 time.Duration
			for b.Loop() {
				s.latencies(ctx, b, rate, 3*time.Second) // until leader, plans and connections are there
				latencies := s.latencies(ctx, b, rate, lasts)
				p50, p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p50.Seconds()*1000, "p50_ms")
			b.ReportMetric(p99.Seconds()*1000, "p99_ms")
		})
	}
}

// latencies returns those of every event, sorted.
func (s *stack) latencies(ctx context.Context, b *testing.B, rate int, lasts time.Duration) []time.Duration {
	b.Helper()
	pool := applicationPool(ctx, b, s.pool.Config().ConnString())
	body := string(payload())
	var mu sync.Mutex
	var group sync.WaitGroup
	committed := make(map[uuid.UUID]time.Time)
	var failed error
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for range int(lasts.Seconds() * float64(rate)) {
		<-ticker.C
		group.Go(func() {
			var id uuid.UUID
			err := pgtx.Do(ctx, pool, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, `SELECT outbox_append('rolling', $1, 'rolling.accrued.v1', $2::jsonb)`, fmt.Sprintf("w-%d", rand.IntN(numWallets)), body).Scan(&id)
			})
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			committed[id] = now
		})
	}
	group.Wait()
	require.NoError(b, failed)
	s.owed.Add(int64(len(committed)))
	s.waitDrained(ctx, b)

	// The database's clock is this machine's.
	rows, err := s.pool.Query(ctx, `SELECT event_id, published_at FROM outbox_events WHERE stream = 'rolling'`)
	require.NoError(b, err)
	var latencies []time.Duration
	var id uuid.UUID
	var publishedAt time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &publishedAt}, func() error {
		if at, ok := committed[id]; ok {
			latencies = append(latencies, publishedAt.Sub(at))
		}
		return nil
	})
	require.NoError(b, err)
	require.Len(b, latencies, len(committed))
	slices.Sort(latencies)
	return latencies
}
