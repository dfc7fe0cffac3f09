package anomaly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbfactory"
	"truegreen/internal/dbtest"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
)

// weekly pays back 10 % of what a week's losers lost.
const weekly = `programmes:
  - code: weekly
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: Asia/Seoul
    effective_from: 2026-11-02
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
    max_attempts: 4
    auto_approve_below: 1000000000
`

// week is the one that the cases settle: 2026-11-02 to 2026-11-09 in Seoul.
const week = "2026-W45"

func weekStart() time.Time { return time.Date(2026, 11, 1, 15, 0, 0, 0, time.UTC) }
func weekEnd() time.Time   { return weekStart().AddDate(0, 0, 7) }

// terms are those of weekly with some of its text replaced.
func terms(oldnew ...string) string { return strings.NewReplacer(oldnew...).Replace(weekly) }

// books is a database with money in it, past the proxy.
type books struct {
	db      *dbtest.DB
	service *settlement.Service
}

func openBooks(ctx context.Context, t *testing.T, db *dbtest.DB) *books {
	t.Helper()
	registerLoops(ctx, t, db)
	return &books{db: db, service: newService(t, db.Pool, settlement.Config{})}
}

func newService(t *testing.T, pool *pgxpool.Pool, config settlement.Config) *settlement.Service {
	t.Helper()
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: silent()})
	require.NoError(t, err)
	service, err := settlement.New(pool, inserter, config)
	require.NoError(t, err)
	return service
}

func (b *books) apply(ctx context.Context, t *testing.T, lines ...activity.Line) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, b.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Apply(ctx, t, tx, lines...)
		return nil
	}))
}

// programme applies and approves terms.
func (b *books) programme(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	parsed, err := programme.Parse("test", strings.NewReader(text))
	require.NoError(t, err)
	applied, err := b.service.Apply(ctx, parsed, "maker")
	require.NoError(t, err)
	for i := range applied {
		_, err = b.service.ApproveVersion(ctx, applied[i].Terms.Code, applied[i].Number, "checker")
		require.NoError(t, err)
	}
}

// losers are players who lost 1,000 each in the week.
func (b *books) losers(ctx context.Context, t *testing.T, codes ...string) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, b.db.Pool, func(tx pgx.Tx) error {
		for _, code := range codes {
			dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{At: weekStart(), Balance: 1000, Code: code})
			dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: weekStart().Add(time.Hour), Player: code, Stake: 1000})
		}
		return nil
	}))
}

// late is a bet of the week that arrives afterwards.
func (b *books) late(ctx context.Context, t *testing.T, code string, stake money.Minor) {
	t.Helper()
	at := weekStart().Add(2 * time.Hour)
	require.NoError(t, pgtx.Do(ctx, b.db.Pool, func(tx pgx.Tx) error {
		dbfactory.Apply(ctx, t, tx, activity.Line{Amount: stake, At: at, ID: uuid.NewString(), Player: code, Type: activity.TypeDeposit})
		dbfactory.SettledBet(ctx, t, tx, dbfactory.BetOpts{At: at, Player: code, Stake: stake})
		return nil
	}))
}

// status changes the status of players.
func (b *books) status(ctx context.Context, t *testing.T, status activity.Status, codes ...string) {
	t.Helper()
	for _, code := range codes {
		at := scalar[time.Time](ctx, t, b.db, "SELECT as_of FROM player WHERE code = $1", code)
		b.apply(ctx, t, activity.Line{At: at.Add(time.Second), Currency: "KRW", Player: code, Status: status, Type: activity.TypePlayer})
	}
}

// watermarks say that everything of the week is in.
func (b *books) watermarks(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, source := range []string{"bets", "cash"} {
		b.apply(ctx, t, activity.Line{At: weekEnd(), Source: source, Type: activity.TypeWatermark})
	}
}

// plan makes the run of the week.
func (b *books) plan(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	runID, err := b.service.Plan(ctx, "weekly", week, "person")
	require.NoError(t, err)
	return runID
}

// settle works all jobs of the kind of the programme to their ends.
func (b *books) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	job := settling("settlement_cashback")
	trial := newTrial(ctx, t, b.db, anomalyNone)
	job.finish(ctx, t, trial)
}

// settling is the case of a job that settles, with chunks so small that there are
// several.
func settling(kind string) jobCase {
	return jobCase{kind: kind, settlement: settlement.Config{Backoff: time.Millisecond, ChunkSize: 2}}
}

// moneyState is what has become of runs, items and wallets.
func moneyState(ctx context.Context, t *testing.T, trial *trial) string {
	t.Helper()
	return scalar[string](ctx, t, trial.db, `
		SELECT concat_ws(E'\n',
			(SELECT string_agg(concat_ws(' ', programme, period, run_kind, state, outcome, abort_reason, credited, failed, pending, approved_by,
				CASE WHEN acknowledged_at IS NOT NULL THEN 'acknowledged' END), E'\n' ORDER BY run_id) FROM settlement_results),
			(SELECT string_agg(concat_ws(' ', run_id, player, amount, adj, delivery, reason, failure_code), E'\n' ORDER BY run_id, player, adj) FROM settlement_credits),
			(SELECT string_agg(player || '=' || balance, ' ' ORDER BY player) FROM wallet_balances),
			(SELECT string_agg(code || ' ' || version || ' ' || coalesce(approved_by, '-'), ' ' ORDER BY code, version) FROM programme_version JOIN programme ON programme.id = programme_id),
			(SELECT count(*) FROM outbox_event WHERE type = 'wallet.credited.v1'))`)
}
