package bench_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"truegreen/internal/pgtx"
)

const (
	numConnections = 32
	numWallets     = 10_000
	roundTime      = 4 * time.Second
)

// move is what every variant of a wallet transaction does first.
const move = `UPDATE bench_wallet SET balance = balance + 1, version = version + 1 WHERE id = $1 RETURNING version`

// variant is one way to store the event of a wallet transaction.
type variant struct {
	name  string
	store func(ctx context.Context, tx pgx.Tx, key string, version int64) error
}

// BenchmarkAppend measures wallet transactions at 32 connections, without an
// event, with a plain row of the outbox and no job, and with outbox_append. The
// same worker publishes the rows of both meanwhile; those of the plain variant
// are left to its sweep. The variants take turns.
func BenchmarkAppend(b *testing.B) {
	body := string(payload())
	variants := []variant{
		{"alone", func(context.Context, pgx.Tx, string, int64) error { return nil }},
		{"plain", func(ctx context.Context, tx pgx.Tx, key string, version int64) error {
			_, err := tx.Exec(ctx, `
				WITH stored AS (
					INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
					VALUES ($1, $2, $3, outbox_shard_of($1, 4), 'wallet', 'wallet.staked.v1')
					RETURNING id, created_at, key, shard, stream
				)
				INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
				SELECT id, created_at, key, id, shard, stream FROM stored`, key, version, body)
			return err
		}},
		{"append", func(ctx context.Context, tx pgx.Tx, key string, version int64) error {
			_, err := tx.Exec(ctx, `SELECT outbox_append('wallet', $1, 'wallet.staked.v1', $2::jsonb, key_seq => $3)`, key, body, version)
			return err
		}},
	}
	for _, left := range []time.Duration{0, 5 * time.Millisecond} {
		b.Run(fmt.Sprintf("left=%s", left), func(b *testing.B) {
			const rounds = 3
			ctx := b.Context()
			s := setup(ctx, b)
			pool := applicationPool(ctx, b, s.pool.Config().ConnString())
			_, err := pool.Exec(ctx, `CREATE TABLE bench_wallet (id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, version bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50)`)
			require.NoError(b, err)
			_, err = pool.Exec(ctx, `INSERT INTO bench_wallet (id) SELECT generate_series(1, $1)`, numWallets)
			require.NoError(b, err)
			stop := s.startWorkers(ctx, b, 1)
			defer stop()

			rates := make(map[string][]float64)
			for b.Loop() {
				for range rounds {
					for _, variant := range variants {
						rate, numEvents := transactions(ctx, b, pool, left, variant)
						rates[variant.name] = append(rates[variant.name], rate)
						if variant.name != "alone" {
							s.owed.Add(numEvents)
						}
						s.waitDrained(ctx, b)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for name, values := range rates {
				b.ReportMetric(median(values), name+"_tx/s")
			}
			b.ReportMetric(median(rates["append"])/median(rates["plain"]), "append/plain")
			b.ReportMetric(median(rates["append"])/median(rates["alone"]), "append/alone")
		})
	}
}

// applicationPool is a pool as any application has it.
func applicationPool(ctx context.Context, b *testing.B, url string) *pgxpool.Pool {
	b.Helper()
	config, err := pgxpool.ParseConfig(url)
	require.NoError(b, err)
	config.MaxConns = numConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}

// transactions returns how many a second committed, and how many in all, with left of other work in
// each after the event was stored.
func transactions(ctx context.Context, b *testing.B, pool *pgxpool.Pool, left time.Duration, variant variant) (rate float64, num int64) {
	b.Helper()
	var count atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, numConnections)
	started := time.Now()
	for range numConnections {
		group.Go(func() {
			for time.Since(started) < roundTime {
				id := 1 + rand.Int64N(numWallets)
				err := pgtx.Do(ctx, pool, func(tx pgx.Tx) error {
					var version int64
					if err := tx.QueryRow(ctx, move, id).Scan(&version); err != nil {
						return err
					}
					if err := variant.store(ctx, tx, fmt.Sprintf("w-%d", id), version); err != nil {
						return err
					}
					if left > 0 {
						timer := time.NewTimer(left)
						<-timer.C
					}
					return nil
				})
				if err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	elapsed := time.Since(started)
	select {
	case err := <-errs:
		require.NoError(b, err)
	default:
	}
	return float64(count.Load()) / elapsed.Seconds(), count.Load()
}
