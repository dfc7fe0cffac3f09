package activity_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbtest"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

type testBundle struct {
	db      *dbtest.DB
	service *activity.Service
}

func setup(ctx context.Context, t testing.TB) *testBundle {
	t.Helper()
	return &testBundle{db: dbtest.Database(ctx, t), service: activity.New(wallet.New())}
}

// applied applies lines that must apply.
func (b *testBundle) applied(ctx context.Context, t *testing.T, lines ...activity.Line) activity.Result {
	t.Helper()
	result, err := b.service.Submit(ctx, b.db.Pool, lines)
	require.NoError(t, err)
	require.Equal(t, int64(len(lines)), result.NumLines)
	require.Equal(t, result.NumLines, result.NumApplied+result.NumKnown+result.NumRefused)
	return result
}

// refusedBecause applies lines of which the last must not apply, and checks that
// nothing of them stays.
func (b *testBundle) refusedBecause(ctx context.Context, t *testing.T, reason string, lines ...activity.Line) {
	t.Helper()
	before := b.state(ctx, t)
	_, err := b.service.Submit(ctx, b.db.Pool, lines)
	var lineErr *activity.LineError
	require.ErrorAs(t, err, &lineErr)
	require.EqualError(t, lineErr.Err, reason)
	require.Equal(t, len(lines)-1, lineErr.Index)
	require.Equal(t, before, b.state(ctx, t))
}

func (b *testBundle) state(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	return stateOf(ctx, t, b.db.Pool)
}

// stateQueries read everything that lines leave behind, by content: no keys of
// our own, and no times of booking.
func stateQueries() map[string]string {
	return map[string]string{
		"agent": `SELECT a.code, a.as_of, a.registered_at, a.rolling_ppm, parent.code
			FROM agent AS a LEFT JOIN agent AS parent ON parent.id = a.parent_id`,
		"agent_line": `SELECT a.code, l.at, l.rolling_ppm, parent.code
			FROM agent_line AS l JOIN agent AS a ON a.id = l.agent_id LEFT JOIN agent AS parent ON parent.id = l.parent_id`,
		"player": `SELECT p.code, p.as_of, p.registered_at, p.rolling_ppm, p.status, p.vip, p.currency, a.code AS agent
			FROM player AS p LEFT JOIN agent AS a ON a.id = p.agent_id`,
		"player_line": `SELECT p.code, l.at, l.rolling_ppm, l.status, l.vip, a.code AS agent
			FROM player_line AS l JOIN player AS p ON p.id = l.player_id LEFT JOIN agent AS a ON a.id = l.agent_id`,
		"wallet":   `SELECT * FROM wallet_balances`,
		"ledger":   `SELECT reference, kind, account, player, currency, amount, at FROM ledger_lines`,
		"accounts": `SELECT kind, currency, player_id IS NULL FROM ledger_account`,
		"payment":  `SELECT f.kind, f.ref, f.amount_minor, f.at, f.refusal, p.code FROM payment AS f JOIN player AS p ON p.id = f.player_id`,
		"bet": `SELECT b.ref, b.category, b.payout_minor, b.placed_at, b.refusal, b.settled_at, b.stake_minor, b.voided_at, p.code
			FROM bet AS b JOIN player AS p ON p.id = b.player_id`,
		"rollup": `SELECT r.quarter_at, r.category, r.num_bets, r.payout_minor, r.risk_minor, r.stake_minor, p.code
			FROM activity_rollup AS r JOIN player AS p ON p.id = r.player_id`,
		"watermark": `SELECT source, at FROM input_watermark`,
		"event":     `SELECT stream, key, key_seq, type, payload FROM outbox_event`,
	}
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// stateOf is the content of the tables, by name. Instants are written in UTC, whatever
// the zone of the server.
func stateOf(ctx context.Context, t testing.TB, db pgtx.Beginner) map[string]string {
	t.Helper()
	tx, err := db.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	_, err = tx.Exec(ctx, "SET LOCAL TIME ZONE 'UTC'")
	require.NoError(t, err)
	state := make(map[string]string)
	for table, query := range stateQueries() {
		var content *string
		err := tx.QueryRow(ctx, `SELECT string_agg(row::text, E'\n' ORDER BY row::text) FROM (`+query+`) AS row`).Scan(&content)
		require.NoError(t, err, table)
		state[table] = ""
		if content != nil {
			state[table] = *content
		}
	}
	return state
}

// count is the number that a query of one returns.
func (b *testBundle) count(ctx context.Context, t *testing.T, query string, args ...any) int64 {
	t.Helper()
	var n int64
	require.NoError(t, b.db.Pool.QueryRow(ctx, query, args...).Scan(&n))
	return n
}

// waitForLockWaiter waits until a connection to the test's database waits for a
// lock.
func (b *testBundle) waitForLockWaiter(ctx context.Context, t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return b.count(ctx, t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 1
	}, 30*time.Second, 10*time.Millisecond)
}

func (b *testBundle) requireBalance(ctx context.Context, t *testing.T, player string, balance, version int64) {
	t.Helper()
	var gotBalance, gotVersion int64
	err := b.db.Pool.QueryRow(ctx, "SELECT balance, version FROM wallet_balances WHERE player = $1", player).Scan(&gotBalance, &gotVersion)
	require.NoError(t, err)
	require.Equal(t, balance, gotBalance, "balance of %s", player)
	require.Equal(t, version, gotVersion, "version of %s", player)
}

// requireBooksInOrder checks what must hold of wallets, ledger, and events,
// whatever was applied.
func requireBooksInOrder(ctx context.Context, t testing.TB, db querier) {
	t.Helper()
	for what, query := range map[string]string{
		"ledger transaction does not balance": `SELECT txn_id::text FROM ledger_lines GROUP BY txn_id HAVING sum(amount) <> 0 OR count(*) <> 2`,
		"balance is not the sum of entries": `SELECT player FROM wallet_balances AS w WHERE w.balance <>
			(SELECT coalesce(sum(amount), 0) FROM ledger_lines AS l WHERE l.player = w.player)`,
		"version is not the number of movements": `SELECT player FROM wallet_balances AS w WHERE w.version <>
			(SELECT count(*) FROM ledger_lines AS l WHERE l.player = w.player)`,
		"events have gaps": `SELECT key FROM outbox_event GROUP BY key
			HAVING min(key_seq) <> 1 OR max(key_seq) <> count(*)`,
		"version without event": `SELECT player FROM wallet_balances AS w WHERE w.version <>
			(SELECT count(*) FROM outbox_event AS e WHERE e.key = w.player || '/' || w.currency)`,
		"event says another balance": `SELECT reference FROM (
				SELECT l.player, e.payload ->> 'balance' AS told, l.reference,
					sum(l.amount) OVER (PARTITION BY l.player ORDER BY e.key_seq) AS balance
				FROM outbox_event AS e JOIN ledger_lines AS l ON l.reference = e.payload ->> 'reference' AND l.account = 'player'
			) AS line WHERE told <> balance::text`,
		"rollups are not the settled bets": `SELECT 'sums' WHERE
			(SELECT (coalesce(sum(num_bets), 0), coalesce(sum(payout_minor), 0), coalesce(sum(stake_minor), 0), coalesce(sum(risk_minor), 0))::text FROM activity_rollup)
			<> (SELECT (count(*), coalesce(sum(payout_minor), 0), coalesce(sum(stake_minor), 0), coalesce(sum(least(abs(payout_minor - stake_minor), stake_minor)), 0))::text
				FROM bet WHERE settled_at IS NOT NULL)`,
	} {
		var found *string
		require.NoError(t, db.QueryRow(ctx, `SELECT min(x) FROM (`+query+`) AS finding (x)`).Scan(&found), what)
		if found != nil {
			require.Fail(t, what, *found)
		}
	}
}

func asLineError(err error) (*activity.LineError, bool) {
	var lineErr *activity.LineError
	ok := errors.As(err, &lineErr)
	return lineErr, ok
}

// at is an instant some minutes after the beginning of the tests' time.
func at(minutes int) time.Time {
	return time.Date(2026, 11, 2, 0, minutes, 0, 0, time.UTC)
}

func agentLine(agent, parent string, rate money.RatePPM, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeAgent, Agent: agent, Parent: parent, RollingPPM: rate, At: at(minutes)}
}

// playerLine is an active player of KRW without an agent.
func playerLine(player string, minutes int) activity.Line {
	return activity.Line{Type: activity.TypePlayer, Player: player, Currency: "KRW", Status: activity.StatusActive, At: at(minutes)}
}

func playerUnder(player, agent string, rate money.RatePPM, minutes int) activity.Line {
	line := playerLine(player, minutes)
	line.Agent, line.RollingPPM = agent, rate
	return line
}

func depositLine(id, player string, amount money.Minor, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeDeposit, ID: id, Player: player, Amount: amount, At: at(minutes)}
}

func withdrawalLine(id, player string, amount money.Minor, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeWithdrawal, ID: id, Player: player, Amount: amount, At: at(minutes)}
}

func betLine(id, player string, stake money.Minor, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeBet, ID: id, Player: player, Category: "slots", Stake: stake, At: at(minutes)}
}

func resultLine(bet string, payout money.Minor, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeResult, Bet: bet, Payout: payout, At: at(minutes)}
}

func voidLine(bet string, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeVoid, Bet: bet, At: at(minutes)}
}

func watermarkLine(source string, minutes int) activity.Line {
	return activity.Line{Type: activity.TypeWatermark, Source: source, At: at(minutes)}
}
