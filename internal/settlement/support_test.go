package settlement_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/audit"
	"truegreen/internal/dbfactory"
	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/money"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
	"truegreen/jobs"
	"truegreen/workers"
)

const (
	patience = 30 * time.Second
	poll     = 10 * time.Millisecond
)

// weekly has one tier, so that amounts are easy to see: 10 % of what is lost.
const weekly = `programmes:
  - code: weekly
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: Asia/Seoul
    effective_from: 2026-11-02
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
    max_attempts: 3
    auto_approve_below: 1000000000
`

// The week that most tests settle: 2026-11-02 to 2026-11-09 in Seoul.
const week = "2026-W45"

func weekStart() time.Time { return time.Date(2026, 11, 1, 15, 0, 0, 0, time.UTC) }
func weekEnd() time.Time   { return weekStart().AddDate(0, 0, 7) }

// lastMonday is when the last week that is over began in Seoul, for what depends on
// how long ago a week has ended.
func lastMonday() time.Time {
	today := time.Now().In(time.FixedZone("KST", 9*60*60))
	sinceMonday := (int(today.Weekday()) + 6) % 7
	return time.Date(today.Year(), today.Month(), today.Day()-sinceMonday-7, 0, 0, 0, 0, today.Location())
}

// weeklySince is the weekly programme, effective from a Monday.
func weeklySince(monday time.Time) string {
	return strings.Replace(weekly, "2026-11-02", monday.Format(time.DateOnly), 1)
}

// noBroker stands in for a broker that no test here sends to.
type noBroker struct{}

func (noBroker) Publish(_ context.Context, events []outbox.Event) []outbox.Outcome {
	return make([]outbox.Outcome, len(events))
}

func (noBroker) Prove(context.Context, outbox.Stream) error { return nil }

type testBundle struct {
	client  *river.Client[pgx.Tx]
	db      *dbtest.DB
	logs    *logBuffer
	runner  *settlement.Runner
	service *settlement.Service
}

// quickConfig is for what fails and is tried again many times.
func quickConfig() settlement.Config {
	config := defaultConfig()
	config.Backoff, config.MaxBackoff = time.Millisecond, 10*time.Millisecond
	return config
}

func defaultConfig() settlement.Config {
	return settlement.Config{Backoff: 20 * time.Millisecond, ChunkSize: 3, LockTimeout: 100 * time.Millisecond}
}

// setup makes a service and a client that works the queues of settlement with
// the real workers. The client is not started: see work.
func setup(ctx context.Context, t *testing.T, config settlement.Config) *testBundle {
	t.Helper()
	bundle := &testBundle{db: dbtest.Database(ctx, t), logs: &logBuffer{}}
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	inserter, err := river.NewClient(riverpgxv5.New(bundle.db.Pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	bundle.service, err = settlement.New(bundle.db.Pool, inserter, config)
	require.NoError(t, err)
	bundle.client, bundle.runner = bundle.newClient(ctx, t, "test")
	return bundle
}

// newClient makes a client as a process has it. It is not started.
func (bundle *testBundle) newClient(ctx context.Context, t *testing.T, workerID string) (*river.Client[pgx.Tx], *settlement.Runner) {
	t.Helper()
	recorder, err := freshness.NewRecorder(workerID)
	require.NoError(t, err)
	relay, err := outbox.NewRelay(bundle.db.Pool, noBroker{}, recorder, outbox.Config{WorkerID: workerID})
	require.NoError(t, err)
	streams, err := outbox.Streams(ctx, bundle.db.Pool)
	require.NoError(t, err)
	runner := settlement.NewRunner(bundle.service, recorder, slog.New(slog.NewTextHandler(bundle.logs, nil)))
	registered, err := workers.Register(workers.Services{
		Recorder: recorder, Relay: relay, Runner: runner, Streams: streams, TickBudget: 10 * time.Second,
	})
	require.NoError(t, err)
	client, err := river.NewClient(riverpgxv5.New(bundle.db.Pool), &river.Config{
		DiscardedJobRetentionPeriod: -1,
		FetchCooldown:               time.Millisecond,
		FetchPollInterval:           50 * time.Millisecond,
		ID:                          workerID,
		Logger:                      slog.New(slog.DiscardHandler),
		Queues:                      workers.Queues(streams, []string{jobs.QueueSettlementCashback, jobs.QueueSettlementLossback, jobs.QueueSettlementRebate, jobs.QueueSettlementTick}),
		Workers:                     registered,
	})
	require.NoError(t, err)
	return client, runner
}

// work starts the client until the test ends.
func (bundle *testBundle) work(ctx context.Context, t *testing.T) {
	t.Helper()
	start(ctx, t, bundle.client)
}

// workBeside starts another client, as another process has it.
func (bundle *testBundle) workBeside(ctx context.Context, t *testing.T, workerID string) {
	t.Helper()
	client, _ := bundle.newClient(ctx, t, workerID)
	start(ctx, t, client)
}

func start(ctx context.Context, t *testing.T, client *river.Client[pgx.Tx]) {
	t.Helper()
	require.NoError(t, client.Start(ctx))
	t.Cleanup(func() { require.NoError(t, client.StopAndCancel(context.WithoutCancel(ctx))) })
}

// programme applies and approves the first programme of a text.
func (bundle *testBundle) programme(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	terms, err := programme.Parse("test", strings.NewReader(text))
	require.NoError(t, err)
	applied, err := bundle.service.Apply(ctx, terms, "maker")
	require.NoError(t, err)
	for i := range applied {
		_, err = bundle.service.ApproveVersion(ctx, applied[i].Terms.Code, applied[i].Number, "checker")
		require.NoError(t, err)
	}
}

// loser is a player who lost an amount in the week, by one bet.
func (bundle *testBundle) loser(ctx context.Context, t *testing.T, code string, lost money.Minor) {
	t.Helper()
	bundle.bet(ctx, t, code, lost, 0)
}

// loserAt is a player who lost an amount at an instant, by one bet.
func (bundle *testBundle) loserAt(ctx context.Context, t *testing.T, code string, lost money.Minor, at time.Time) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{At: at, Balance: lost, Code: code})
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: at, Player: code, Stake: lost})
		return nil
	}))
}

// late is a bet of the week that comes when the week is settled, with the money for it.
func (bundle *testBundle) late(ctx context.Context, t *testing.T, code string, stake, payout money.Minor) {
	t.Helper()
	at := weekStart().Add(2 * time.Hour)
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Apply(ctx, t, tx, activity.Line{Amount: stake, At: at, ID: uuid.NewString(), Player: code, Type: activity.TypeDeposit})
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: at, Payout: payout, Player: code, Stake: stake})
		return nil
	}))
}

// bet registers a player who placed and settled one bet in the week.
func (bundle *testBundle) bet(ctx context.Context, t *testing.T, code string, stake, payout money.Minor) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{At: weekStart(), Balance: stake, Code: code})
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: weekStart().Add(time.Hour), Payout: payout, Player: code, Stake: stake})
		return nil
	}))
}

// status changes a player's status, as of now.
func (bundle *testBundle) status(ctx context.Context, t *testing.T, code string, status activity.Status) {
	t.Helper()
	var at time.Time
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, "SELECT as_of FROM player WHERE code = $1", code).Scan(&at))
	bundle.apply(ctx, t, activity.Line{
		At: at.Add(time.Second), Currency: "KRW", Player: code, Status: status, Type: activity.TypePlayer,
	})
}

func (bundle *testBundle) watermark(ctx context.Context, t *testing.T, at time.Time) {
	t.Helper()
	bundle.apply(ctx, t, activity.Line{At: at, Source: "bets", Type: activity.TypeWatermark})
}

func (bundle *testBundle) apply(ctx context.Context, t *testing.T, lines ...activity.Line) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Apply(ctx, t, tx, lines...)
		return nil
	}))
}

// plan makes the run of the week.
func (bundle *testBundle) plan(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	runID, err := bundle.service.Plan(ctx, "weekly", week, "person")
	require.NoError(t, err)
	return runID
}

// settle makes the run of the week and waits for its end.
func (bundle *testBundle) settle(ctx context.Context, t *testing.T) settlement.Result {
	t.Helper()
	runID := bundle.plan(ctx, t)
	return bundle.await(ctx, t, runID, "done", "aborted")
}

// await waits until a run is in one of these states and none of its jobs is at
// work.
func (bundle *testBundle) await(ctx context.Context, t *testing.T, runID int64, states ...string) settlement.Result {
	t.Helper()
	var result settlement.Result
	require.Eventually(t, func() bool {
		var err error
		result, err = bundle.service.Get(ctx, runID)
		require.NoError(t, err)
		for _, state := range states {
			if result.State == state {
				return bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE state = 'running'") == 0
			}
		}
		return false
	}, patience, poll, "run %d is to be in %v", runID, states)
	return result
}

// awaitJobs waits until the jobs of the run have come to their ends, and returns
// their states in order.
func (bundle *testBundle) awaitJobs(ctx context.Context, t *testing.T) []string {
	t.Helper()
	require.Eventually(t, func() bool {
		return bundle.count(ctx, t, "SELECT count(*) FROM river_job WHERE kind = 'settlement_cashback' AND finalized_at IS NULL") == 0
	}, patience, poll)
	rows, err := bundle.db.Pool.Query(ctx, "SELECT state::text FROM river_job WHERE kind = 'settlement_cashback' ORDER BY id")
	require.NoError(t, err)
	states, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return states
}

// noCompletion is for a tick that is no job's.
func noCompletion(context.Context, pgx.Tx, freshness.Progress) error { return nil }

// tick runs one tick as a job and waits for its end.
func (bundle *testBundle) tick(ctx context.Context, t *testing.T) *rivertype.JobRow {
	t.Helper()
	// Not by the client, whose uniqueness lets no two come within a second.
	id := scalar[int64](ctx, t, bundle.db, `
		INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{}', 'settlement_tick', 1, 'settlement_tick') RETURNING id`)
	var job *rivertype.JobRow
	require.Eventually(t, func() bool {
		var err error
		job, err = bundle.client.JobGet(ctx, id)
		require.NoError(t, err)
		return job.FinalizedAt != nil
	}, patience, poll)
	return job
}

func (bundle *testBundle) count(ctx context.Context, t *testing.T, query string, args ...any) int {
	t.Helper()
	return scalar[int](ctx, t, bundle.db, query, args...)
}

func scalar[T any](ctx context.Context, t *testing.T, db *dbtest.DB, query string, args ...any) T {
	t.Helper()
	var value T
	require.NoError(t, db.Pool.QueryRow(ctx, query, args...).Scan(&value))
	return value
}

func (bundle *testBundle) exec(ctx context.Context, t *testing.T, query string) {
	t.Helper()
	_, err := bundle.db.Pool.Exec(ctx, query)
	require.NoError(t, err)
}

// ids are those of players, as SQL has a list.
func (bundle *testBundle) ids(ctx context.Context, t *testing.T, codes ...string) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, "SELECT '(' || string_agg(id::text, ',') || ')' FROM player WHERE code = ANY($1)", codes)
}

// balances are those of all players, in order of code, such as "a=10 b=0".
func (bundle *testBundle) balances(ctx context.Context, t *testing.T) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, "SELECT coalesce(string_agg(player || '=' || balance, ' ' ORDER BY player), '') FROM wallet_balances")
}

// credits are what became of the items of a run, in order of players, such as
// "a=10:credited b=0:winner".
func (bundle *testBundle) credits(ctx context.Context, t *testing.T, runID int64) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, `
		SELECT coalesce(string_agg(player || '=' || amount || ':' || coalesce(delivery, reason) || coalesce('/' || failure_code, ''), ' ' ORDER BY player), '')
		FROM settlement_credits WHERE run_id = $1`, runID)
}

// verdict is that of the loop that settles cashback.
func (bundle *testBundle) verdict(ctx context.Context, t *testing.T) string {
	t.Helper()
	return scalar[string](ctx, t, bundle.db, "SELECT verdict FROM worker_freshness WHERE loop = 'settlement_cashback'")
}

// requireTrueBooks asks all audits.
func (bundle *testBundle) requireTrueBooks(ctx context.Context, t *testing.T) {
	t.Helper()
	report, err := audit.Run(ctx, bundle.db.Pool, 20)
	require.NoError(t, err)
	require.Positive(t, report.NumAudits)
	require.Empty(t, report.Findings)
}

// awaitLockWaits waits until so many sessions of the database wait for locks.
func (bundle *testBundle) awaitLockWaits(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return bundle.count(ctx, t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") >= n
	}, patience, poll)
}

// lockWallet lets another session hold the wallet of a player until release.
func (bundle *testBundle) lockWallet(ctx context.Context, t *testing.T, code string) (release func()) {
	t.Helper()
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, "SELECT FROM wallet WHERE player_id = (SELECT id FROM player WHERE code = $1) FOR UPDATE", code)
	require.NoError(t, err)
	release = func() {
		if err := tx.Rollback(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("release wallet: %v", err)
		}
	}
	t.Cleanup(release)
	return release
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

// verdicts are the lines that tell how runs ended, without their times. It waits
// for the first: a run is done a moment before its line is written.
func (b *logBuffer) verdicts(t *testing.T) []string {
	t.Helper()
	var found []string
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		found = nil
		for line := range strings.Lines(b.text.String()) {
			if _, rest, ok := strings.Cut(line, " level="); ok && strings.Contains(rest, "settlement ended") {
				found = append(found, "level="+strings.TrimSpace(rest))
			}
		}
		return len(found) > 0
	}, time.Minute, time.Millisecond, "no run told how it ended")
	return found
}

// count is how many lines hold a text.
func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

func numbered(n int) string { return fmt.Sprintf("p-%03d", n) }
