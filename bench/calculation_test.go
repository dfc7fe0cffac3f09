package bench_test

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// BenchmarkSettlementCalculation works out a weekly cashback of a million players from
// the sums of the week's 20,000,000 bets: beside one other week of as many, and beside
// four. Its plan is shown with -v. Beforehand it does the same for a fiftieth of the
// players, so that one sees whether memory grows with them.
func BenchmarkSettlementCalculation(b *testing.B) {
	const (
		numFew     = 20_000
		numPlayers = 1_000_000
		rounds     = 3
	)
	ctx := b.Context()
	seen := &cursorTracer{}
	p := setupPayday(ctx, b, numPlayers, func(config *pgxpool.Config) {
		planLikeProduct(config)
		config.ConnConfig.Tracer = seen
	})
	p.exec(ctx, b, `
		INSERT INTO player_line (player_id, at, rolling_ppm, status, vip) SELECT id, registered_at, 0, 'active', 0 FROM player;
		INSERT INTO input_watermark (source, at) VALUES ('bets', '2026-11-16')`)
	seconds := make(map[string][]float64)
	mebibytes := make(map[string][]float64)
	calculate := func(name, code, week string, num int) {
		took, peak := p.calculate(ctx, b, code, week, num)
		seconds[name] = append(seconds[name], took.Seconds())
		mebibytes[name] = append(mebibytes[name], float64(peak)/(1<<20))
		b.Logf("%s: %.2f s, %.2f MiB", name, took.Seconds(), float64(peak)/(1<<20))
	}
	for b.Loop() {
		p.play(ctx, b, "2026-11-02", numFew)
		p.play(ctx, b, "2026-10-05", numPlayers)
		p.play(ctx, b, "2026-09-28", numPlayers)
		p.exec(ctx, b, "VACUUM ANALYZE")
		for round := range rounds {
			calculate("few", fmt.Sprintf("few-%d", round), "2026-W45", numFew)
			calculate("one", fmt.Sprintf("one-%d", round), "2026-W41", numPlayers)
		}
		seen.explain(ctx, b, p.pool, "one week")

		for _, week := range []string{"2026-09-14", "2026-09-21", "2026-10-12"} {
			p.play(ctx, b, week, numPlayers)
		}
		p.exec(ctx, b, "VACUUM ANALYZE")
		for round := range rounds {
			calculate("four", fmt.Sprintf("four-%d", round), "2026-W41", numPlayers)
		}
		seen.explain(ctx, b, p.pool, "four weeks")
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range seconds {
		b.ReportMetric(median(values), name+"_s")
		b.ReportMetric(slices.Max(values), name+"_longest_s")
		b.ReportMetric(slices.Max(mebibytes[name]), name+"_heap_MiB")
	}
	b.ReportMetric(median(seconds["four"])/median(seconds["one"]), "four/one")
}

// play stores what settled bets of a week leave behind: of each player four quarter
// hours of five bets, in two categories. The rows lie as they come in, quarter by
// quarter, and of no order within it.
func (p *payday) play(ctx context.Context, b *testing.B, week string, numPlayers int) {
	b.Helper()
	_, err := p.pool.Exec(ctx, `
		INSERT INTO activity_rollup (quarter_at, player_id, category, num_bets, payout_minor, risk_minor, stake_minor)
		SELECT quarter_at, player_id, category, 5, payout_minor, least(abs(payout_minor - stake_minor), stake_minor), stake_minor
		FROM (
			SELECT
				$1::timestamptz + interval '15 minutes' * (session / 2 * 336 + mod(chance & 1023, 336)) AS quarter_at,
				player_id,
				(ARRAY['live', 'slots'])[1 + session % 2] AS category,
				5000 + 5 * (chance >> 10 & 8191) AS stake_minor,
				(5000 + 5 * (chance >> 10 & 8191)) * (chance >> 23 & 127) / 66 AS payout_minor,
				chance
			FROM generate_series(1, $2::bigint) AS player_id
			CROSS JOIN generate_series(0, 3) AS session
			CROSS JOIN LATERAL hashint8extended(4 * player_id + session, extract(epoch FROM $1::timestamptz)::bigint) AS chance
		) AS played
		ORDER BY quarter_at, chance`, week+"T00:00:00Z", numPlayers)
	require.NoError(b, err)
}

// calculate plans a run of a programme of its own, and returns how long it took to the
// point where it awaits approval, and the most that the process's heap held meanwhile.
func (p *payday) calculate(ctx context.Context, b *testing.B, code, week string, numPlayers int) (took time.Duration, peak uint64) {
	b.Helper()
	p.approveProgramme(ctx, b, code)
	p.exec(ctx, b, "CHECKPOINT")
	for range 2 { // pools give up what they hold at the second
		runtime.GC()
	}
	stop := watchHeap()
	started := time.Now()
	runID, err := p.service.Plan(ctx, code, week, "maker")
	require.NoError(b, err)
	p.await(ctx, b, "awaiting_approval", runID)
	took = time.Since(started)
	peak = stop()

	run, err := p.service.Get(ctx, runID)
	require.NoError(b, err)
	require.EqualValues(b, numPlayers, *run.Evaluated)
	require.Positive(b, *run.Eligible)
	require.Less(b, *run.Eligible, *run.Evaluated)
	return took, peak
}

// watchHeap looks at the heap again and again until stop, which returns the most that
// it held, garbage that was not yet collected included.
func watchHeap() (stop func() uint64) {
	var peak atomic.Uint64
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for {
			metrics.Read(sample)
			peak.Store(max(peak.Load(), sample[0].Value.Uint64()))
			select {
			case <-ticker.C:
			case <-end:
				return
			}
		}
	}()
	return func() uint64 {
		close(end)
		<-done
		return peak.Load()
	}
}

// cursorTracer keeps the statement by which a calculation reads, as it was sent.
type cursorTracer struct {
	latest atomic.Pointer[pgx.TraceQueryStartData]
}

// TraceQueryStart is called before each statement.
func (tracer *cursorTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(strings.TrimSpace(data.SQL), "DECLARE settlement_activity") {
		tracer.latest.Store(&data)
	}
	return ctx
}

// TraceQueryEnd is called after each statement.
func (*cursorTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// explain shows the plan of the latest calculation, as it is and where the table of sums
// must not be read as a whole.
func (tracer *cursorTracer) explain(ctx context.Context, b *testing.B, pool *pgxpool.Pool, name string) {
	b.Helper()
	data := tracer.latest.Load()
	require.NotNil(b, data)
	for _, seqScan := range []string{"on", "off"} {
		tx, err := pool.Begin(ctx)
		require.NoError(b, err)
		defer func() { _ = tx.Rollback(ctx) }()
		_, err = tx.Exec(ctx, "SELECT set_config('enable_seqscan', $1, true)", seqScan)
		require.NoError(b, err)
		rows, err := tx.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) "+data.SQL, data.Args...)
		require.NoError(b, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(b, err)
		b.Logf("beside %s, enable_seqscan %s:\n%s", name, seqScan, strings.Join(plan, "\n"))
		require.NoError(b, tx.Rollback(ctx))
	}
}
