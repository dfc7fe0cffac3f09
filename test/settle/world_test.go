package settle_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/audit"
	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
	"truegreen/internal/wallet"
)

// programmes are one of each kind, effective from a day.
const programmes = `programmes:
  - {code: turnover, kind: rebate, basis: stake, currency: KRW, period: monthly, time_zone: Asia/Seoul, effective_from: %[1]s, tiers: [{from: 0, rate_ppm: 10000}], max_attempts: 40, auto_approve_below: 1000000000}
  - {code: loss, kind: cashback, basis: game, currency: KRW, period: monthly, time_zone: Asia/Seoul, effective_from: %[1]s, tiers: [{from: 0, rate_ppm: 100000}], max_attempts: 40, auto_approve_below: 1000000000}
  - {code: start, kind: lossback, window: 72h, currency: KRW, period: monthly, time_zone: Asia/Seoul, effective_from: %[1]s, tiers: [{from: 0, rate_ppm: 200000}], max_attempts: 40, auto_approve_below: 1000000000}
`

// month is the one that these tests settle: the last that is over in Seoul.
//
// Another month may end while the tests run, so they look at the runs of this one
// alone. The runs of the next month wait for a watermark that never arrives.
var month = lastMonth(time.Now())

// lastMonth returns the first instant of the last month that is over.
func lastMonth(now time.Time) time.Time {
	seoul := time.FixedZone("KST", 9*60*60)
	year, current, _ := now.In(seoul).Date()
	return time.Date(year, current-1, 1, 0, 0, 0, 0, seoul)
}

// period is the key of the month.
func period() string { return month.Format("2006-01") }

// instant is one of the month, as activity has it, so long after it began.
func instant(sinceStart time.Duration) string {
	return month.Add(sinceStart).UTC().Format(time.RFC3339)
}

// world is a database in which a month is to be settled.
type world struct {
	ask          runKind          // of what is settled after the month; none while it is
	credits      map[string]int64 // by reference
	db           *dbtest.DB
	ends         []string // of each programme's runs, in order
	numProcesses int
	played       []played // by player
	proxy        *proxy
	random       *rand.Rand
	wallets      map[string]int64 // once all is credited
}

// setup makes a world of players who all played, most of whom lost.
func setup(ctx context.Context, t *testing.T, seed uint64, numPlayers int) *world {
	t.Helper()
	w := &world{
		credits: make(map[string]int64), db: dbtest.Database(ctx, t), ends: []string{"regular all_delivered"},
		random: rand.New(rand.NewPCG(seed, 1)), wallets: make(map[string]int64),
	}
	w.proxy = newProxy(t, w.db.URL)
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, w.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	inserter, err := river.NewClient(riverpgxv5.New(w.db.Pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	service, err := settlement.New(w.db.Pool, inserter, settlement.Config{})
	require.NoError(t, err)
	terms, err := programme.Parse("test", strings.NewReader(fmt.Sprintf(programmes, month.Format(time.DateOnly))))
	require.NoError(t, err)
	applied, err := service.Apply(ctx, terms, "maker")
	require.NoError(t, err)
	for _, version := range applied {
		_, err = service.ApproveVersion(ctx, version.Terms.Code, version.Number, "checker")
		require.NoError(t, err)
	}

	var lines strings.Builder
	for n := range numPlayers {
		w.play(&lines, n)
	}
	for _, source := range []string{"bets", "cash"} {
		fmt.Fprintf(&lines, `{"type":"watermark","source":"%s","at":"%s"}`+"\n", source, month.AddDate(0, 1, 0).Format(time.RFC3339))
	}
	w.bring(ctx, t, "month", lines.String())
	t.Cleanup(func() {
		if t.Failed() {
			w.dump(t)
		}
	})
	return w
}

// bring imports lines.
func (w *world) bring(ctx context.Context, t *testing.T, source, lines string) {
	t.Helper()
	_, err := activity.New(wallet.New()).Import(ctx, w.db.Pool, source, strings.NewReader(lines), activity.ImportOptions{})
	require.NoError(t, err)
}

// played is what a player did in the month.
type played struct {
	code                   string
	deposit, stake, payout int64 // the first deposit, and the sums of the bets
}

// owed is what each programme owes for it.
func (p *played) owed() map[string]int64 {
	lost := max(0, p.stake-p.payout)
	return map[string]int64{"turnover": p.stake / 100, "loss": lost / 10, "start": min(p.deposit, lost) / 5}
}

// play makes up one bet of a player, and works out what it is worth.
func (w *world) play(lines *strings.Builder, n int) {
	p := played{code: fmt.Sprintf("p-%03d", n), deposit: int64(2000 + n), stake: 1000 + w.random.Int64N(1000)}
	p.payout = w.random.Int64N(p.stake * 6 / 5) // some win
	w.played = append(w.played, p)
	fmt.Fprintf(lines, `{"type":"player","player":"%[1]s","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"active","at":"%[5]s"}
{"type":"deposit","id":"d-%[1]s","player":"%[1]s","amount":%[2]d,"at":"%[6]s"}
{"type":"bet","id":"b-%[1]s","player":"%[1]s","category":"slots","stake":%[3]d,"at":"%[7]s"}
{"type":"result","bet":"b-%[1]s","payout":%[4]d,"at":"%[8]s"}
`, p.code, p.deposit, p.stake, p.payout, instant(0), instant(24*time.Hour), instant(48*time.Hour), instant(48*time.Hour+5*time.Second))
	w.wallets[p.code] = p.deposit - p.stake + p.payout
	for programme, amount := range p.owed() {
		w.owe(programme, p.code, 0, amount)
	}
}

// owe expects a credit, unless it is of nothing.
func (w *world) owe(programme, player string, adj int, amount int64) {
	if amount <= 0 {
		return
	}
	w.credits[fmt.Sprintf("settle/%s/%s/%s/KRW/%d", programme, period(), player, adj)] = amount
	w.wallets[player] += amount
}

// tick has the next free process look for what is due, as the clock does.
func (w *world) tick(ctx context.Context, t *testing.T, num int) {
	t.Helper()
	_, err := w.db.Pool.Exec(ctx, `
		INSERT INTO river_job (args, kind, max_attempts, queue)
		SELECT '{}', 'settlement_tick', 1, 'settlement_tick' FROM generate_series(1, $1::integer)
		WHERE NOT EXISTS (SELECT FROM river_job WHERE kind = 'settlement_tick' AND finalized_at IS NULL)`, num)
	require.NoError(t, err)
}

// await has ticks come until something is so.
func (w *world) await(ctx context.Context, t *testing.T, what string, isSo func() bool) {
	t.Helper()
	w.tick(ctx, t, 1)
	require.Eventually(t, func() bool {
		if isSo() {
			return true
		}
		w.tick(ctx, t, 1)
		return false
	}, patience, 10*poll, what)
}

// isSettled reports whether all runs and all jobs of settlements have ended, well or
// not.
func (w *world) isSettled(ctx context.Context, t *testing.T) bool {
	t.Helper()
	numEnded := w.count(ctx, t, "SELECT count(*) FROM settlement_results WHERE period = '"+period()+"' AND state IN ('done', 'aborted')")
	return numEnded >= 3*len(w.ends) && w.count(ctx, t, `
		SELECT (SELECT count(*) FROM settlement_results WHERE period = '`+period()+`' AND state NOT IN ('done', 'aborted'))
			+ (SELECT count(*) FROM river_job WHERE kind LIKE 'settlement_%' AND kind <> 'settlement_tick' AND finalized_at IS NULL)`) == 0
}

// bury lets the time pass that River gives a process and its leadership, so that the
// next process rescues what this one had as soon as it leads.
func (w *world) bury(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, statement := range []string{
		"UPDATE river_job SET attempted_at = attempted_at - interval '1 hour' WHERE state = 'running'",
		"DELETE FROM river_leader",
	} {
		w.exec(ctx, t, statement)
	}
}

func (w *world) exec(ctx context.Context, t *testing.T, statement string) {
	t.Helper()
	_, err := w.db.Pool.Exec(ctx, statement)
	require.NoError(t, err)
}

// settle lets one process do all that is left, and stops it.
func (w *world) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	last := w.start(t, order{})
	w.await(ctx, t, "all is to be settled", func() bool { return w.isSettled(ctx, t) || last.hasExited() })
	last.stop(t)
}

// requireSettled checks that everybody was credited once, by all that tells of it.
func (w *world) requireSettled(ctx context.Context, t *testing.T) {
	t.Helper()
	ends := strings.Join(w.ends, ", ")
	require.Equal(t, fmt.Sprintf("loss: %[1]s; start: %[1]s; turnover: %[1]s", ends), w.text(ctx, t, `
		SELECT string_agg(programme || ': ' || ends, '; ' ORDER BY programme)
		FROM (SELECT programme, string_agg(run_kind || ' ' || outcome, ', ' ORDER BY run_id) AS ends
			FROM settlement_results WHERE period = '`+period()+`' GROUP BY programme) AS ended`))
	require.Equal(t, w.credits, w.amounts(ctx, t, "SELECT reference, amount FROM settlement_credits WHERE delivery = 'credited'"))
	require.Equal(t, w.credits, w.amounts(ctx, t, "SELECT reference, amount FROM ledger_lines WHERE kind = 'credit' AND account = 'player'"))
	require.Equal(t, w.wallets, w.amounts(ctx, t, "SELECT player, balance FROM wallet_balances"))
	events := "FROM outbox_events WHERE type = 'wallet.credited.v1'"
	require.Equal(t, w.credits, w.amounts(ctx, t, "SELECT payload ->> 'reference', (payload ->> 'amount')::bigint "+events))
	require.Equal(t, len(w.credits), w.count(ctx, t, "SELECT count(*) "+events))
	w.requireTrueBooks(ctx, t)
	require.Empty(t, w.text(ctx, t, `
		SELECT coalesce(string_agg(loop || ' ' || verdict, ', '), '') FROM worker_freshness
		WHERE loop LIKE 'settlement_%' AND verdict NOT IN ('ok', 'idle')`))
}

// requireTrueBooks asks all audits. They hold at any time, whoever has just died.
func (w *world) requireTrueBooks(ctx context.Context, t *testing.T) {
	t.Helper()
	found, err := audit.Run(ctx, w.db.Pool, 20)
	require.NoError(t, err)
	require.Positive(t, found.NumAudits)
	require.Empty(t, found.Findings)
	require.Zero(t, w.count(ctx, t, `
		SELECT count(*) FROM settlement_run AS parent
		WHERE outcome = 'partial' AND (
			SELECT count(*) FROM settlement_event WHERE run_id = parent.id AND kind = 'acknowledged'
		) <> (
			SELECT count(*) FROM settlement_run WHERE parent_id = parent.id AND outcome = 'all_delivered' AND parent.acknowledged_at IS NOT NULL
		)`))
}

// amounts reads pairs of a text that comes once and an amount.
func (w *world) amounts(ctx context.Context, t *testing.T, query string) map[string]int64 {
	t.Helper()
	rows, err := w.db.Pool.Query(ctx, query)
	require.NoError(t, err)
	found := make(map[string]int64)
	var text string
	var amount int64
	_, err = pgx.ForEachRow(rows, []any{&text, &amount}, func() error {
		require.NotContains(t, found, text)
		found[text] = amount
		return nil
	})
	require.NoError(t, err)
	return found
}

func (w *world) count(ctx context.Context, t *testing.T, query string) (num int) {
	t.Helper()
	require.NoError(t, w.db.Pool.QueryRow(ctx, query).Scan(&num))
	return num
}

func (w *world) text(ctx context.Context, t *testing.T, query string) (text string) {
	t.Helper()
	require.NoError(t, w.db.Pool.QueryRow(ctx, query).Scan(&text))
	return text
}

// dump shows what a failed test left in the database.
func (w *world) dump(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, query := range []string{
		`SELECT id, state, coalesce(outcome, ''), attempt, epoch, num_calculations, cursor_player_id, job_id, coalesce(abort_detail, '') FROM settlement_run ORDER BY id`,
		`SELECT id, kind, state::text, attempt, max_attempts, attempted_by, now() - attempted_at, coalesce(left(errors[cardinality(errors)] ->> 'error', 200), '') FROM river_job WHERE kind LIKE 'settlement_%' AND kind <> 'settlement_tick' ORDER BY id`,
		`SELECT run_id, delivery, count(*) FROM settlement_item GROUP BY 1, 2 ORDER BY 1, 2`,
		`SELECT pid, state, wait_event_type, wait_event, left(query, 100) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'`,
	} {
		rows, err := w.db.Pool.Query(ctx, query)
		if err != nil {
			t.Logf("dump: %v", err)
			continue
		}
		for rows.Next() {
			values, err := rows.Values()
			t.Logf("%v %v", values, err)
		}
		rows.Close()
	}
}
