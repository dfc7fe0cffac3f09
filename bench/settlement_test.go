package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
	"truegreen/jobs"
	"truegreen/workers"
)

// payday is a database of players and a worker that settles.
type payday struct {
	client  *river.Client[pgx.Tx]
	pool    *pgxpool.Pool
	service *settlement.Service
}

// setupPayday makes a payday, with a pool that configure may change.
func setupPayday(ctx context.Context, b *testing.B, numPlayers int, configure ...func(*pgxpool.Config)) *payday {
	b.Helper()
	p := &payday{}
	config, err := pgxpool.ParseConfig(dbtest.Durable(ctx, b).URL)
	require.NoError(b, err)
	config.MaxConns = 40
	for _, change := range configure {
		change(config)
	}
	p.pool, err = pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	b.Cleanup(p.pool.Close)
	p.exec(ctx, b, `
		INSERT INTO ledger_account (currency, kind) SELECT 'KRW', kind FROM unnest(ARRAY['cash', 'house', 'promotion']) AS kind;
		WITH numbered AS (
			INSERT INTO player (as_of, code, currency, registered_at, rolling_ppm, status, vip)
			SELECT '2026-10-01', 'p-' || n, 'KRW', '2026-10-01', 0, 'active', 0 FROM generate_series(1, `+fmt.Sprint(numPlayers)+`) AS n
			RETURNING id
		), account AS (
			INSERT INTO ledger_account (currency, kind, player_id) SELECT 'KRW', 'player', id FROM numbered ORDER BY id
			RETURNING id, player_id
		)
		INSERT INTO wallet (account_id, currency, player_id) SELECT id, 'KRW', player_id FROM account ORDER BY id;
		VACUUM ANALYZE`)

	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	registry, err := freshness.New(freshness.Config{})
	require.NoError(b, err)
	require.NoError(b, pgtx.Do(ctx, p.pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	recorder, err := freshness.NewRecorder("bench")
	require.NoError(b, err)
	inserter, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{Logger: logger})
	require.NoError(b, err)
	p.service, err = settlement.New(p.pool, inserter, settlement.Config{})
	require.NoError(b, err)
	relay, err := outbox.NewRelay(p.pool, silentBroker{}, recorder, outbox.Config{WorkerID: "bench"})
	require.NoError(b, err)
	streams, err := outbox.Streams(ctx, p.pool)
	require.NoError(b, err)
	runner := settlement.NewRunner(p.service, recorder, logger)
	registered, err := workers.Register(workers.Services{
		Recorder: recorder, Relay: relay, Runner: runner, Streams: streams, TickBudget: 10 * time.Second,
	})
	require.NoError(b, err)
	p.client, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		FetchCooldown: time.Millisecond,
		Logger:        logger,
		Queues:        workers.Queues(streams, []string{jobs.QueueSettlementCashback}),
		Workers:       registered,
	})
	require.NoError(b, err)
	require.NoError(b, p.client.Start(ctx))
	b.Cleanup(func() { _ = p.client.StopAndCancel(context.WithoutCancel(ctx)) })
	return p
}

// silentBroker is for a worker that publishes nothing: events stay pending.
type silentBroker struct{}

func (silentBroker) Publish(_ context.Context, events []outbox.Event) []outbox.Outcome {
	return make([]outbox.Outcome, len(events))
}

func (silentBroker) Prove(context.Context, outbox.Stream) error { return nil }

func (p *payday) exec(ctx context.Context, b *testing.B, statements string) {
	b.Helper()
	for statement := range strings.SplitSeq(statements, ";\n") {
		_, err := p.pool.Exec(ctx, statement)
		require.NoError(b, err, statement)
	}
}

// stage stores a run that owes each of the players whose numbers lie from first to
// last and awaits approval; it returns its id.
func (p *payday) stage(ctx context.Context, b *testing.B, name string, first, last int) int64 {
	b.Helper()
	p.approveProgramme(ctx, b, name)
	runID, err := p.service.Plan(ctx, name, "2026-W41", "maker")
	require.NoError(b, err)
	p.await(ctx, b, "waiting_inputs", runID) // for a feed that never comes
	p.exec(ctx, b, fmt.Sprintf(`
		INSERT INTO settlement_item (amount_minor, basis_minor, capped_minor, currency, delivery, disposition, gross_minor, inputs, period_id, player_id, rate_ppm, run_id, tier_from, tier_value)
		SELECT 100, 1000, 100, 'KRW', 'pending', 'eligible', 100, '{"categories": [{"category": "slots", "payout": "0", "stake": "1000"}], "promotions": "0", "status": "active"}',
			run.period_id, player.id, 100000, run.id, 0, 1000
		FROM settlement_run AS run CROSS JOIN player WHERE run.id = %[1]d AND player.id BETWEEN %[2]d AND %[3]d ORDER BY player.id;
		UPDATE settlement_run SET calculated_at = now(), eligible_minor = %[4]d * 100, inputs_at = period_ends_at, num_eligible = %[4]d, num_evaluated = %[4]d, num_excluded = 0,
			state = 'awaiting_approval' WHERE id = %[1]d;
		VACUUM ANALYZE settlement_item;
		CHECKPOINT`, runID, first, last, last-first+1))
	return runID
}

// approveProgramme makes a programme of a weekly cashback.
func (p *payday) approveProgramme(ctx context.Context, b *testing.B, code string) {
	b.Helper()
	terms, err := programme.Parse("bench.yaml", strings.NewReader(`programmes:
  - {code: `+code+`, kind: cashback, currency: KRW, period: weekly, time_zone: UTC, effective_from: 2026-10-05, basis: game, tiers: [{from: 0, rate_ppm: 100000}]}`))
	require.NoError(b, err)
	_, err = p.service.Apply(ctx, terms, "maker")
	require.NoError(b, err)
	_, err = p.service.ApproveVersion(ctx, code, 1, "checker")
	require.NoError(b, err)
}

// await waits until runs are in a state. It looks seldom: it takes time from what is
// measured, and bets are beside it.
func (p *payday) await(ctx context.Context, b *testing.B, state string, runIDs ...int64) {
	b.Helper()
	for {
		var numThere, numAborted int
		err := p.pool.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE state = $2), count(*) FILTER (WHERE state = 'aborted' OR outcome <> 'all_delivered')
			FROM settlement_run WHERE id = ANY($1)`, runIDs, state).Scan(&numThere, &numAborted)
		require.NoError(b, err)
		require.Zero(b, numAborted)
		if numThere == len(runIDs) {
			return
		}
		timer := time.NewTimer(50 * time.Millisecond)
		<-timer.C
	}
}

// deliver approves runs and waits for their ends.
func (p *payday) deliver(ctx context.Context, b *testing.B, runIDs ...int64) {
	b.Helper()
	for _, runID := range runIDs {
		_, err := p.service.Approve(ctx, settlement.Decision{By: "boss", RunID: runID})
		require.NoError(b, err)
	}
	p.await(ctx, b, "done", runIDs...)
}

// creditAll does with one statement what a delivery does for each item of a run that
// meets the condition: wallet, ledger, event, item, attempt. It looks at no status.
const creditAll = `
	WITH credit AS MATERIALIZED (
		SELECT item.id, item.amount_minor, item.currency, player.code AS player, wallet.account_id, wallet.balance_minor, wallet.version,
			nextval('ledger_txn_id_seq') AS txn_id, 'settle/bench/2026-W41/' || player.code || '/KRW/0/' || item.run_id AS reference,
			(SELECT id FROM ledger_account WHERE kind = 'promotion' AND currency = 'KRW' AND player_id IS NULL) AS promotion_id
		FROM settlement_item AS item
		JOIN player ON player.id = item.player_id
		JOIN wallet ON wallet.player_id = item.player_id
		WHERE item.run_id = $1 AND item.delivery = 'pending' %s
		FOR NO KEY UPDATE OF wallet
	), moved AS (
		UPDATE wallet SET balance_minor = wallet.balance_minor + credit.amount_minor, version = wallet.version + 1
		FROM credit WHERE wallet.account_id = credit.account_id
	), txn AS (
		INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE SELECT txn_id, now(), 'credit', reference FROM credit
	), entry AS (
		INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at)
		SELECT txn_id, unnest(ARRAY[account_id, promotion_id]), unnest(ARRAY[amount_minor, -amount_minor]), now() FROM credit
	), marked AS (
		UPDATE settlement_item AS item SET attempts = item.attempts + 1, credited_at = clock_timestamp(), delivery = 'credited'
		FROM credit WHERE item.id = credit.id
	), attempted AS (
		INSERT INTO settlement_attempt (item_id, run_id, attempt, job_id, result) SELECT id, $1, 1, 0, 'credited' FROM credit
	), stored AS (
		INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
		SELECT player || '/' || currency, version + 1, jsonb_build_object('amount', amount_minor::text, 'at', now(), 'balance', (balance_minor + amount_minor)::text,
			'currency', currency, 'player', player, 'reference', reference), outbox_shard_of(player || '/' || currency, 4), 'wallet', 'wallet.credited.v1'
		FROM credit
		RETURNING id, created_at, key, shard, stream
	)
	INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream) SELECT id, created_at, key, id, shard, stream FROM stored`

// BenchmarkSettlementDelivery credits 200,000 players, by one run and by two side by
// side of half of them each, in turns with one statement that writes the same, and with
// a transaction for each player at 16 connections. Nobody publishes the events meanwhile.
func BenchmarkSettlementDelivery(b *testing.B) {
	const (
		numPlayers = 200_000
		numSingly  = 20_000 // what is slow has fewer
		rounds     = 3
	)
	ctx := b.Context()
	p := setupPayday(ctx, b, numPlayers)
	rates := make(map[string][]float64)
	measure := func(name string, num int, run func()) {
		started := time.Now()
		run()
		rates[name] = append(rates[name], float64(num)/time.Since(started).Seconds())
	}
	for b.Loop() {
		for round := range rounds {
			one := p.stage(ctx, b, fmt.Sprintf("one-%d", round), 1, numPlayers)
			measure("one", numPlayers, func() { p.deliver(ctx, b, one) })

			statement := p.stage(ctx, b, fmt.Sprintf("statement-%d", round), 1, numPlayers)
			measure("statement", numPlayers, func() {
				_, err := p.pool.Exec(ctx, fmt.Sprintf(creditAll, ""), statement)
				require.NoError(b, err)
			})

			first := p.stage(ctx, b, fmt.Sprintf("first-%d", round), 1, numPlayers/2)
			second := p.stage(ctx, b, fmt.Sprintf("second-%d", round), numPlayers/2+1, numPlayers)
			measure("two", numPlayers, func() { p.deliver(ctx, b, first, second) })

			singly := p.stage(ctx, b, fmt.Sprintf("singly-%d", round), 1, numSingly)
			measure("singly", numSingly, func() { p.singly(ctx, b, singly, numSingly) })
		}
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range rates {
		b.ReportMetric(median(values), name+"_credits/s")
	}
	b.ReportMetric(median(rates["one"])/median(rates["statement"]), "one/statement")
	b.ReportMetric(median(rates["two"])/median(rates["one"]), "two/one")
	b.ReportMetric(median(rates["one"])/median(rates["singly"]), "one/singly")
}

// singly credits each player in a transaction of its own.
func (p *payday) singly(ctx context.Context, b *testing.B, runID int64, numPlayers int) {
	b.Helper()
	const numConnections = 16
	statement := fmt.Sprintf(creditAll, "AND item.player_id = $2")
	config := p.pool.Config()
	for _, setting := range []string{"enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit"} {
		config.ConnConfig.RuntimeParams[setting] = "off" // as one would write it by hand
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	defer pool.Close()
	var group errgroup.Group
	for n := range numConnections {
		group.Go(func() error {
			for player := 1 + n; player <= numPlayers; player += numConnections {
				if _, err := pool.Exec(ctx, statement, runID, player); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(b, group.Wait())
}
