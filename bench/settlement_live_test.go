package bench_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/activity"
	"truegreen/internal/wallet"
)

// BenchmarkSettlementBesideBets places bets at a steady rate, each a transaction of its
// own on the wallet of any player: alone, beside a loop in the database that keeps one
// processor and touches nothing, and while a run credits all of these wallets. A bet's
// time runs from when it was due, so that one that is held up is charged for those that
// it holds up in turn. Nobody publishes the events meanwhile.
func BenchmarkSettlementBesideBets(b *testing.B) {
	for _, rate := range []int{100, 200} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) { measureBesideBets(b, rate) })
	}
}

func measureBesideBets(b *testing.B, rate int) {
	b.Helper()
	const (
		lasts      = 15 * time.Second
		numPlayers = 200_000
		rounds     = 3
	)
	ctx := b.Context()
	p := setupPayday(ctx, b, numPlayers)
	live := openLive(ctx, b, p, numPlayers, rate)
	found := make(map[string]latencies)
	var rates []float64
	loop := fmt.Sprintf("DO $$ BEGIN LOOP EXIT WHEN clock_timestamp() > now() + interval '%d ms'; END LOOP; END $$", lasts.Milliseconds())
	for b.Loop() {
		// Gives each wallet what it bets later.
		p.deliver(ctx, b, p.stage(ctx, b, "funds", 1, numPlayers))
		for round := range rounds {
			runID := p.stage(ctx, b, fmt.Sprintf("beside-%d", round), 1, numPlayers)
			p.exec(ctx, b, "VACUUM ANALYZE;\nCHECKPOINT") // or it would be done while others are measured
			live.warmUp(ctx, b)
			for _, beside := range []struct {
				name string
				run  func()
			}{
				{"alone", func() { <-time.After(lasts) }},
				{"loop", func() { p.exec(ctx, b, loop) }},
				{"delivery", func() {
					started := time.Now()
					p.deliver(ctx, b, runID)
					rates = append(rates, numPlayers/time.Since(started).Seconds())
				}},
			} {
				took := live.betBeside(ctx, b, beside.run)
				found[beside.name] = append(found[beside.name], took...)
				b.Logf("%s: %d bets, p50 %.2f, p95 %.2f, p99 %.2f, p99.9 %.2f, longest %.2f ms", beside.name, len(took),
					took.quantile(0.5), took.quantile(0.95), took.quantile(0.99), took.quantile(0.999), took.quantile(1))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates), "credits/s")
	for name, took := range found {
		b.ReportMetric(took.quantile(0.5), name+"_p50_ms")
		b.ReportMetric(took.quantile(0.99), name+"_p99_ms")
		b.ReportMetric(took.quantile(0.999), name+"_p99.9_ms")
		b.ReportMetric(took.quantile(1), name+"_longest_ms")
	}
	b.ReportMetric(found["delivery"].quantile(0.99)/found["alone"].quantile(0.99), "delivery/alone")
	b.ReportMetric(found["loop"].quantile(0.99)/found["alone"].quantile(0.99), "loop/alone")
}

// live is the traffic of players.
type live struct {
	interval   time.Duration
	mu         sync.Mutex
	numBets    int
	numPlayers int
	pool       *pgxpool.Pool
	rng        *rand.Rand
	service    *activity.Service
}

// openLive has 16 connections for them.
func openLive(ctx context.Context, b *testing.B, p *payday, numPlayers, rate int) *live {
	b.Helper()
	config := p.pool.Config()
	config.MaxConns = 16
	config.MinConns = config.MaxConns
	planLikeProduct(config)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return &live{
		interval: time.Second / time.Duration(rate), numPlayers: numPlayers, pool: pool, rng: rand.New(rand.NewPCG(1, 2)), service: activity.New(wallet.New()),
	}
}

// planLikeProduct sets how the product's own processes let their statements be planned.
func planLikeProduct(config *pgxpool.Config) {
	config.ConnConfig.RuntimeParams["jit"] = "off"
	config.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
}

// warmUp makes each connection plan what it needs.
func (l *live) warmUp(ctx context.Context, b *testing.B) {
	b.Helper()
	var group errgroup.Group
	for range l.pool.Config().MaxConns {
		group.Go(func() error {
			for range 50 {
				if err := l.submit(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(b, group.Wait())
}

// betBeside places bets, each when it is due, until run returns. It returns how long
// after they were due they were committed.
func (l *live) betBeside(ctx context.Context, b *testing.B, run func()) latencies {
	b.Helper()
	var failed error
	var found latencies
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() { found, failed = l.bet(ctx, ended) })
	func() {
		defer close(ended)
		run()
	}()
	group.Wait()
	require.NoError(b, failed)
	return found
}

func (l *live) bet(ctx context.Context, ended <-chan struct{}) (found latencies, failed error) {
	var group sync.WaitGroup
	var mu sync.Mutex
	started := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		due := started.Add(time.Duration(n) * l.interval)
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ended:
			group.Wait()
			return found, failed
		}
		group.Go(func() {
			err := l.submit(ctx)
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			found = append(found, took)
		})
	}
}

// submit places the next bet.
func (l *live) submit(ctx context.Context) error {
	bet := l.next()
	result, err := l.service.Submit(ctx, l.pool, []activity.Line{bet})
	if err != nil {
		return fmt.Errorf("place bet %s of %s: %w", bet.ID, bet.Player, err)
	}
	if result.NumRefused > 0 {
		return fmt.Errorf("bet %s of %s was refused", bet.ID, bet.Player)
	}
	return nil
}

// next is the next bet, of a player at random.
func (l *live) next() activity.Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numBets++
	return activity.Line{
		At:       time.Now().UTC().Truncate(time.Microsecond),
		Category: "slots",
		ID:       fmt.Sprintf("live-%d", l.numBets),
		Player:   fmt.Sprintf("p-%d", 1+l.rng.IntN(l.numPlayers)),
		Stake:    1,
		Type:     activity.TypeBet,
	}
}

// latencies are how long things took.
type latencies []time.Duration

// quantile is in milliseconds.
func (l latencies) quantile(share float64) float64 {
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(int(float64(len(sorted))*share), len(sorted)-1)].Seconds() * 1000
}
