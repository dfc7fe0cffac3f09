package bench_test

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// BenchmarkDrainBehindSnapshot drains while another session holds a snapshot, so
// that nothing which was marked since can be cleaned away: the searches for due
// events pass by all of it. Before and after it come the same drains without.
func BenchmarkDrainBehindSnapshot(b *testing.B) {
	const (
		freeRounds = 3
		heldRounds = 9 // some two minutes
		numEvents  = 200_000
	)
	ctx := b.Context()
	s := setup(ctx, b)
	firstSeq := 1
	drain := func() float64 {
		s.emptyBroker(ctx, b)
		s.stage(ctx, b, manyKeys, firstSeq, numEvents)
		firstSeq += numEvents
		started := time.Now()
		stop := s.startWorkers(ctx, b, 1)
		defer stop()
		s.waitDrained(ctx, b)
		return numEvents / time.Since(started).Seconds()
	}
	var free, held []float64
	var heldFor time.Duration
	for b.Loop() {
		for range freeRounds {
			free = append(free, drain())
		}
		holder, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		require.NoError(b, err)
		_, err = holder.Exec(ctx, `SELECT count(*) FROM outbox_shard`)
		require.NoError(b, err)
		started := time.Now()
		for range heldRounds {
			held = append(held, drain())
		}
		heldFor = time.Since(started)
		require.NoError(b, holder.Rollback(ctx))
		for range freeRounds {
			free = append(free, drain())
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(free), "free_rows/s")
	b.ReportMetric(median(held), "held_rows/s")
	b.ReportMetric(median(held)/median(free), "held/free")
	b.ReportMetric(held[len(held)-1]/median(free), "last-held/free")
	b.ReportMetric(heldFor.Seconds(), "held-for-s")
}

// BenchmarkDrainByBacklog drains backlogs of different length. With UPDATE_DOCS set
// it draws the figures into docs/benchmarks-backlog.svg.
func BenchmarkDrainByBacklog(b *testing.B) {
	ctx := b.Context()
	s := setup(ctx, b)
	backlogs := []int{10_000, 30_000, 100_000, 300_000, 1_000_000}
	rates := make([]float64, len(backlogs))
	firstSeq := 1
	for b.Loop() {
		for i, numEvents := range backlogs {
			var each []float64
			rounds := 3
			if numEvents > 300_000 {
				rounds = 1 // as many events as all the others
			}
			for range rounds {
				s.emptyBroker(ctx, b)
				s.stage(ctx, b, manyKeys, firstSeq, numEvents)
				firstSeq += numEvents
				started := time.Now()
				stop := s.startWorkers(ctx, b, 1)
				s.waitDrained(ctx, b)
				each = append(each, float64(numEvents)/time.Since(started).Seconds())
				stop()
			}
			rates[i] = median(each)
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, numEvents := range backlogs {
		b.ReportMetric(rates[i], fmt.Sprintf("pending=%d_rows/s", numEvents))
	}
	if os.Getenv("UPDATE_DOCS") != "" {
		require.NoError(b, os.WriteFile("../docs/benchmarks-backlog.svg", []byte(plot(backlogs, rates)), 0o644))
	}
}

// plot draws rates over backlogs, the latter on a scale of powers of ten.
func plot(backlogs []int, rates []float64) string {
	const left, right, top, bottom = 70.0, 620.0, 20.0, 260.0
	most := 0.0
	for _, rate := range rates {
		most = max(most, rate)
	}
	step := 5000.0
	for most/step > 8 {
		step *= 2
	}
	most = math.Ceil(most/step) * step
	x := func(backlog int) float64 { return left + (math.Log10(float64(backlog))-4)/2*(right-left) }
	y := func(rate float64) float64 { return bottom - rate/most*(bottom-top) }

	var svg strings.Builder
	svg.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 310" font-family="sans-serif" font-size="12">` + "\n")
	svg.WriteString(`<rect width="640" height="310" fill="white"/>` + "\n")
	for rate := 0.0; rate <= most; rate += step {
		fmt.Fprintf(&svg, `<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%.0f</text>`+"\n",
			left, right, y(rate), y(rate), left-6, y(rate)+4, rate)
	}
	points := make([]string, len(backlogs))
	for i, backlog := range backlogs {
		points[i] = fmt.Sprintf("%.1f,%.1f", x(backlog), y(rates[i]))
		fmt.Fprintf(&svg, `<circle cx="%.1f" cy="%.1f" r="4" fill="#1a7f37"/><text x="%.1f" y="%.0f" text-anchor="middle">%d</text>`+"\n",
			x(backlog), y(rates[i]), x(backlog), bottom+18, backlog)
	}
	fmt.Fprintf(&svg, `<polyline points="%s" fill="none" stroke="#1a7f37" stroke-width="2"/>`+"\n", strings.Join(points, " "))
	fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f" text-anchor="middle">pending events</text><text x="%.0f" y="12" text-anchor="end">events/s</text></svg>`+"\n",
		(left+right)/2, bottom+40, left-6)
	return svg.String()
}
