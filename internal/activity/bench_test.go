package activity_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/activity"
	"truegreen/internal/dbtest"
	"truegreen/internal/wallet"
)

// steadyTraffic is a file of about numLines lines: players with money, who place
// bets that are settled a while later.
func steadyTraffic(numLines, numPlayers int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	var file []byte
	write := func(line activity.Line) {
		file = line.AppendJSON(file)
		file = append(file, '\n')
	}
	for i := range numPlayers {
		player := fmt.Sprintf("player-%06d", i)
		write(activity.Line{Type: activity.TypePlayer, Player: player, Currency: "KRW", Status: activity.StatusActive, At: at})
		write(activity.Line{Type: activity.TypeDeposit, ID: fmt.Sprintf("deposit-%06d", i), Player: player, Amount: 1 << 40, At: at})
	}
	categories := []string{"slots", "live", "sports"}
	var open []string
	for i := 2 * numPlayers; i < numLines; i++ {
		at = at.Add(50 * time.Millisecond)
		if len(open) > 500 {
			n := rng.IntN(len(open))
			write(activity.Line{Type: activity.TypeResult, Bet: open[n], Payout: 0, At: at})
			open[n] = open[len(open)-1]
			open = open[:len(open)-1]
			continue
		}
		bet := fmt.Sprintf("bet-%09d", i)
		write(activity.Line{
			Type: activity.TypeBet, ID: bet, Player: fmt.Sprintf("player-%06d", rng.IntN(numPlayers)),
			Category: categories[rng.IntN(len(categories))], Stake: 1000, At: at,
		})
		if rng.IntN(2) == 0 {
			open = append(open, bet)
		} else {
			write(activity.Line{Type: activity.TypeResult, Bet: bet, Payout: 500, At: at})
			i++
		}
	}
	return file
}

// BenchmarkImport imports -benchtime Nx times a hundred thousand lines:
// -benchtime 10x is a million.
func BenchmarkImport(b *testing.B) {
	const linesPerOp = 100_000
	ctx := b.Context()
	db := dbtest.Durable(ctx, b)
	service := activity.New(wallet.New())
	file := steadyTraffic(linesPerOp*b.N, 5_000)
	b.ResetTimer()
	result, err := service.Import(ctx, db.Pool, "traffic.jsonl", bytes.NewReader(file), activity.ImportOptions{})
	require.NoError(b, err)
	b.ReportMetric(float64(result.NumLines)/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkSubmit applies one line per transaction on 32 connections, as live
// traffic does: each operation is a bet or its result.
func BenchmarkSubmit(b *testing.B) {
	const numConns, numPlayers = 32, 5_000
	ctx := b.Context()
	db := dbtest.Durable(ctx, b)
	config := db.Pool.Config()
	config.MaxConns = numConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	defer pool.Close()
	service := activity.New(wallet.New())
	_, err = service.Import(ctx, pool, "players", bytes.NewReader(steadyTraffic(2*numPlayers, numPlayers)), activity.ImportOptions{})
	require.NoError(b, err)

	var next atomic.Int64
	b.ResetTimer()
	group, ctx := errgroup.WithContext(ctx)
	for worker := range numConns {
		group.Go(func() error {
			rng := rand.New(rand.NewPCG(uint64(worker), 3))
			for {
				n := next.Add(2)
				if n > int64(b.N) {
					return nil
				}
				bet := betLine(fmt.Sprintf("live-%09d", n), fmt.Sprintf("player-%06d", rng.IntN(numPlayers)), 1000, int(n/5000))
				for _, line := range []activity.Line{bet, resultLine(bet.ID, 500, int(n/5000))} {
					if _, err := service.Submit(ctx, pool, []activity.Line{line}); err != nil {
						return err
					}
				}
			}
		})
	}
	require.NoError(b, group.Wait())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
