package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbfactory"
	"truegreen/internal/dbtest"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
	"truegreen/internal/wallet"
)

// world is a small set of books in which every law holds: runs of every end, and
// items of every fate.
type world struct {
	numRuns int
	terms   programme.Terms
	tx      pgx.Tx
}

// given is an item of a run: what the player did, and what became of the credit.
type given struct {
	activity programme.Activity
	delivery string // "" for who is to be excluded
	player   string
}

// ending is where a run is.
type ending struct {
	abortReason string
	jobEnd      string
	jobState    string // of River's job; "" if the row is gone
	outcome     string
	started     bool // its delivery began
	state       string
	waiting     bool // nothing is calculated yet
}

// cashback are terms in which every rule counts for something.
func cashback(t *testing.T) programme.Terms {
	t.Helper()
	day, err := timewindow.ParseDay("2026-11-02")
	require.NoError(t, err)
	limit := money.Minor(9_000)
	return programme.Terms{
		Basis:          programme.BasisGame,
		Cap:            &limit,
		Categories:     map[string]money.RatePPM{"live": 200_000, "slots": 1_000_000},
		Code:           "weekly",
		Currency:       "KRW",
		DefaultWeight:  50_000,
		EffectiveFrom:  day,
		InputsDeadline: 24 * time.Hour,
		Kind:           programme.Cashback,
		LessPromotions: true,
		MaxAttempts:    3,
		MinPayout:      60,
		OnPartial:      programme.OnPartialComplete,
		Period:         timewindow.Weekly,
		Shape:          programme.ShapeSlab,
		TierBy:         programme.TierByBasis,
		Tiers:          []programme.Tier{{From: 1_000, Rate: 50_000}, {From: 100_000, Rate: 70_000}},
		TimeZone:       "UTC",
	}
}

// lost is the activity of an active player who lost so much with slots, a part
// of a unit with live games, and got 7 of promotions.
func lost(amount money.Minor) programme.Activity {
	return programme.Activity{
		Categories: []programme.CategorySum{
			{Category: "bingo", Payout: 90, Stake: 50},
			{Category: "live", Payout: 2, Stake: 105},
			{Category: "slots", Payout: 1_000, Stake: amount + 1_000},
		},
		Promotions: 7,
		Status:     "active",
	}
}

func lostAs(status string, amount money.Minor) programme.Activity {
	activity := lost(amount)
	activity.Status = status
	return activity
}

// begin opens a transaction on a database of the test's own.
func begin(ctx context.Context, t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := dbtest.Database(ctx, t).Pool.Begin(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) })
	return tx
}

// healthy returns a database with a healthy world in it.
func healthy(ctx context.Context, t *testing.T) *dbtest.DB {
	t.Helper()
	db := dbtest.Database(ctx, t)
	require.NoError(t, pgtx.Do(ctx, db.Pool, func(tx pgx.Tx) error {
		newWorld(ctx, t, tx)
		return nil
	}))
	return db
}

// enter opens a transaction on a world that others use too, which what is broken
// in it never leaves. One at a time, since a broken table is a locked one.
func enter(ctx context.Context, t *testing.T, db *dbtest.DB) *world {
	t.Helper()
	tx, err := db.Pool.Begin(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) })
	w := &world{tx: tx}
	w.exec(ctx, t, "SELECT pg_advisory_xact_lock(1)")
	return w
}

// newWorld builds the books in tx.
func newWorld(ctx context.Context, t *testing.T, tx pgx.Tx) *world {
	t.Helper()
	w := &world{terms: cashback(t), tx: tx}
	for _, player := range []string{"alice", "bob", "carol", "dave", "erin", "frank", "gina", "hank"} {
		dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{Balance: 500, Code: player})
	}
	w.programme(ctx, t)

	w.run(ctx, t, ending{jobEnd: "completed", jobState: "completed", outcome: "all_delivered", started: true, state: "done"},
		given{activity: lost(40_000), delivery: "credited", player: "alice"},
		given{activity: lost(500_000), delivery: "credited", player: "bob"},
		given{activity: lost(-300), player: "carol"},
		given{activity: lostAs("self_excluded", 50_000), player: "frank"})
	w.run(ctx, t, ending{jobEnd: "completed", jobState: "completed", outcome: "partial", started: true, state: "done"},
		given{activity: lost(41_000), delivery: "credited", player: "alice"},
		given{activity: lostAs("frozen", 42_000), delivery: "failed", player: "dave"},
		given{activity: lost(43_000), delivery: "withheld", player: "erin"},
		given{activity: lost(1_100), player: "gina"},
		given{activity: lost(900), player: "hank"})
	w.run(ctx, t, ending{jobEnd: "failed", jobState: "discarded", outcome: "none_delivered", started: true, state: "done"},
		given{activity: lost(44_000), delivery: "failed", player: "dave"})
	w.run(ctx, t, ending{jobEnd: "completed", jobState: "completed", outcome: "all_withheld", started: true, state: "done"},
		given{activity: lost(45_000), delivery: "withheld", player: "erin"})
	w.run(ctx, t, ending{jobEnd: "completed", outcome: "no_eligible", state: "done"},
		given{activity: lostAs("closed", 46_000), player: "frank"})
	w.run(ctx, t, ending{jobEnd: "failed", jobState: "retryable", state: "aborted", abortReason: "inputs_deadline", waiting: true})
	w.run(ctx, t, ending{jobState: "completed", state: "aborted", abortReason: "rejected"},
		given{activity: lost(47_000), delivery: "pending", player: "bob"},
		given{activity: lost(48_000), delivery: "pending", player: "hank"})
	// The period of the rejected run, once more.
	w.numRuns--
	w.run(ctx, t, ending{jobState: "completed", state: "awaiting_approval"},
		given{activity: lost(47_000), delivery: "pending", player: "bob"})
	w.run(ctx, t, ending{jobState: "running", started: true, state: "delivering"},
		given{activity: lost(52_000), delivery: "credited", player: "alice"},
		given{activity: lost(53_000), delivery: "pending", player: "bob"},
		given{activity: lost(54_000), delivery: "pending", player: "hank"})
	w.run(ctx, t, ending{state: "waiting_inputs", waiting: true})
	return w
}

func (w *world) exec(ctx context.Context, t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := w.tx.Exec(ctx, sql, args...)
	require.NoError(t, err)
}

func (w *world) id(ctx context.Context, t *testing.T, sql string, args ...any) int64 {
	t.Helper()
	var id int64
	require.NoError(t, w.tx.QueryRow(ctx, sql, args...).Scan(&id), sql)
	return id
}

func (w *world) programme(ctx context.Context, t *testing.T) {
	t.Helper()
	rules, err := w.terms.Canonical()
	require.NoError(t, err)
	id := w.id(ctx, t, `INSERT INTO programme (code, currency, kind, period, time_zone) VALUES ($1, 'KRW', $2, 'weekly', 'UTC') RETURNING id`, w.terms.Code, w.terms.Kind)
	w.exec(ctx, t, `INSERT INTO programme_version (approved_at, approved_by, created_by, effective_from, programme_id, rules, rules_hash, version)
		VALUES (now(), 'checker', 'maker', '2026-11-02', $1, $2, 'hash', 1)`, id, rules)
}

// run adds a run of the next week with its items, and brings it to its end.
func (w *world) run(ctx context.Context, t *testing.T, end ending, items ...given) {
	t.Helper()
	start := dbfactory.Epoch().AddDate(0, 0, 7*w.numRuns)
	year, week := start.ISOWeek()
	w.numRuns++
	w.exec(ctx, t, `INSERT INTO settlement_period (due_at, ends_at, key, programme_id, starts_at)
		SELECT $3, $3, $1, programme.id, $2 FROM programme WHERE code = 'weekly' ON CONFLICT (programme_id, key) DO NOTHING`,
		fmt.Sprintf("%d-W%02d", year, week), start, start.AddDate(0, 0, 7))
	runID := w.id(ctx, t, `INSERT INTO settlement_run (created_by, currency, inputs_deadline_at, kind, max_attempts, period_ends_at, period_id, version_id)
		SELECT 'maker', 'KRW', $1, 'regular', 3, period.ends_at, period.id, version.id
		FROM settlement_period AS period CROSS JOIN programme_version AS version WHERE period.starts_at = $1 RETURNING id`, start)
	for _, item := range items {
		w.item(ctx, t, runID, item)
	}
	jobID := int64(1_000_000) + runID
	if end.jobState != "" {
		w.exec(ctx, t, `INSERT INTO river_job (id, args, kind, max_attempts, queue, state, finalized_at)
			SELECT $1, jsonb_build_object('run_id', $2::bigint), 'settlement_cashback', 3, 'settlement_cashback', state, CASE WHEN state IN ('completed', 'discarded', 'cancelled') THEN now() END
			FROM CAST($3 AS river_job_state) AS state`, jobID, runID, end.jobState)
	}
	w.exec(ctx, t, `
		UPDATE settlement_run AS run SET
			abort_reason = nullif($2, ''), approved_at = now(), approved_by = 'checker', job_end = nullif($3, ''), job_id = $4, outcome = nullif($5, ''), state = $6,
			started_at = CASE WHEN $7 THEN now() END, finished_at = CASE WHEN $6 IN ('done', 'aborted') THEN now() END,
			calculated_at = CASE WHEN NOT $8 THEN now() END, inputs_at = CASE WHEN NOT $8 THEN run.period_ends_at END,
			eligible_minor = CASE WHEN NOT $8 THEN counted.eligible_minor END, num_eligible = CASE WHEN NOT $8 THEN counted.num_eligible END,
			num_evaluated = CASE WHEN NOT $8 THEN counted.num_items END, num_excluded = CASE WHEN NOT $8 THEN counted.num_items - counted.num_eligible END,
			credited_minor = CASE WHEN $6 = 'done' THEN counted.credited_minor END, failed_minor = CASE WHEN $6 = 'done' THEN counted.failed_minor END,
			num_credited = CASE WHEN $6 = 'done' THEN counted.num_credited END, num_failed = CASE WHEN $6 = 'done' THEN counted.num_failed END,
			num_withheld = CASE WHEN $6 = 'done' THEN counted.num_withheld END, num_pending = CASE WHEN $6 = 'done' THEN 0 END
		FROM (
			SELECT count(*) AS num_items, count(delivery) AS num_eligible, coalesce(sum(amount_minor), 0) AS eligible_minor,
				count(*) FILTER (WHERE delivery = 'credited') AS num_credited, coalesce(sum(amount_minor) FILTER (WHERE delivery = 'credited'), 0) AS credited_minor,
				count(*) FILTER (WHERE delivery = 'failed') AS num_failed, coalesce(sum(amount_minor) FILTER (WHERE delivery = 'failed'), 0) AS failed_minor,
				count(*) FILTER (WHERE delivery = 'withheld') AS num_withheld
			FROM settlement_item WHERE run_id = $1
		) AS counted
		WHERE run.id = $1`, runID, end.abortReason, end.jobEnd, jobID, end.outcome, end.state, end.started, end.waiting)
	if end.state == "aborted" {
		w.exec(ctx, t, `UPDATE settlement_item SET voided_at = now() WHERE run_id = $1`, runID)
	}
}

// item adds an item as the calculation would, and delivers it.
func (w *world) item(ctx context.Context, t *testing.T, runID int64, item given) int64 {
	t.Helper()
	owed, err := w.terms.Entitle(item.activity)
	require.NoError(t, err)
	require.Equal(t, item.delivery == "", owed.Reason != "", "%s: %+v", item.player, owed)
	inputs, err := json.Marshal(w.inputs(item.activity))
	require.NoError(t, err)

	pending := ""
	if item.delivery != "" {
		pending = "pending"
	}
	id := w.id(ctx, t, `
		INSERT INTO settlement_item (amount_minor, basis_minor, capped_minor, currency, delivery, disposition, gross_minor, inputs, period_id, player_id, rate_ppm, reason, run_id, tier_from, tier_value)
		SELECT $1, $2, $3, 'KRW', nullif($4, ''), CASE $4 WHEN '' THEN 'excluded' ELSE 'eligible' END, $5, $6, run.period_id, player.id, $7, nullif($8, ''), run.id, $9, $10
		FROM settlement_run AS run CROSS JOIN player WHERE run.id = $11 AND player.code = $12 RETURNING id`,
		int64(owed.Amount), numeric(owed.Basis, -6), int64(owed.Capped), pending, int64(owed.Gross),
		inputs, int64(owed.Rate), string(owed.Reason), owed.TierFrom, numeric(owed.TierValue, 0), runID, item.player)
	return w.deliver(ctx, t, id, item, owed.Amount)
}

// inputs are an activity as an item keeps it: what the terms do not need is left
// out, but for promotions.
func (w *world) inputs(activity programme.Activity) map[string]any {
	categories := []map[string]string{}
	for _, sum := range activity.Categories {
		one := map[string]string{"category": sum.Category, "payout": minor(sum.Payout), "stake": minor(sum.Stake)}
		if w.terms.Basis == programme.BasisRisk {
			one["risk"] = minor(sum.Risk)
		}
		categories = append(categories, one)
	}
	inputs := map[string]any{"categories": categories, "promotions": minor(activity.Promotions), "status": activity.Status}
	if w.terms.Basis == programme.BasisCash {
		inputs["cash"] = map[string]string{
			"closing": minor(activity.Cash.Closing), "deposits": minor(activity.Cash.Deposits),
			"opening": minor(activity.Cash.Opening), "withdrawals": minor(activity.Cash.Withdrawals),
		}
	}
	if w.terms.Kind == programme.Lossback {
		inputs["first_deposit"] = map[string]string{"amount": minor(activity.FirstDeposit), "at": "2026-11-02T01:00:00Z"}
	}
	return inputs
}

func (w *world) deliver(ctx context.Context, t *testing.T, id int64, item given, amount money.Minor) int64 {
	t.Helper()
	class := map[string]string{"failed": "permanent"}[item.delivery]
	switch item.delivery {
	case "credited":
		w.credit(ctx, t, id, item.player, amount)
		w.exec(ctx, t, `UPDATE settlement_item SET attempts = 1, credited_at = now(), delivery = 'credited' WHERE id = $1`, id)
	case "failed", "withheld":
		w.exec(ctx, t, `UPDATE settlement_item SET attempts = 1, delivery = $2, failure_class = nullif($3, ''), failure_code = 'wallet' WHERE id = $1`, id, item.delivery, class)
	default:
		return id
	}
	w.exec(ctx, t, `INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, job_id, result) SELECT id, run_id, 1, nullif($3, ''), 1, $2 FROM settlement_item WHERE id = $1`,
		id, item.delivery, class)
	return id
}

func (w *world) credit(ctx context.Context, t *testing.T, itemID int64, player string, amount money.Minor) {
	t.Helper()
	var reference string
	err := w.tx.QueryRow(ctx, `
		SELECT settlement_reference('weekly', period.key, $2, item.currency, item.adj)
		FROM settlement_item AS item JOIN settlement_period AS period ON period.id = item.period_id WHERE item.id = $1`, itemID, player).Scan(&reference)
	require.NoError(t, err)
	var pipeline pgtx.Pipeline
	book, err := wallet.New().Lock(ctx, &pipeline, wallet.Owners{Players: []string{player}})
	require.NoError(t, err)
	require.NoError(t, pipeline.Send(ctx, w.tx))
	require.NoError(t, book.Move(book.Account(player), wallet.Movement{Amount: amount, Kind: wallet.KindCredit, Reference: reference}))
	var flush pgtx.Pipeline
	require.NoError(t, book.Flush(ctx, &flush))
	require.NoError(t, flush.Send(ctx, w.tx))
}

func minor(amount money.Minor) string { return strconv.FormatInt(int64(amount), 10) }

func numeric(value *big.Int, exponent int32) pgtype.Numeric {
	return pgtype.Numeric{Exp: exponent, Int: value, Valid: true}
}

// fill puts ids in the place of names: {run partial}, {item partial/dave},
// {player alice}, {account alice} or {account house}, {txn partial/alice} of the
// ledger and its {ref partial/alice}. A run goes by its outcome, or else by its
// state; inputs_deadline is that aborted run.
func (w *world) fill(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	named := regexp.MustCompile(`\{(run|item|txn|ref|player|account) (\w+)(?:/(\w+))?\}`)
	const run = `(SELECT id FROM settlement_run WHERE coalesce(outcome, CASE abort_reason WHEN 'inputs_deadline' THEN abort_reason END, state) = $1)`
	const item = `settlement_item AS item JOIN player ON player.id = item.player_id AND player.code = $2 WHERE item.run_id = ` + run
	return named.ReplaceAllStringFunc(text, func(name string) string {
		parts := named.FindStringSubmatch(name)
		var found string
		query, args := "", []any{parts[2], parts[3]}
		switch parts[1] {
		case "run":
			query, args = run, args[:1]
		case "item":
			query = "SELECT item.id FROM " + item
		case "ref", "txn":
			column := map[string]string{"ref": "txn.reference", "txn": "txn.id"}[parts[1]]
			query = "SELECT " + column + " FROM ledger_txn AS txn WHERE txn.reference = (SELECT credit.reference FROM settlement_credits AS credit WHERE credit.player = $2 AND credit.run_id = " + run + ")"
		case "player":
			query, args = "SELECT id FROM player WHERE code = $1", args[:1]
		case "account":
			query, args = "SELECT account.id FROM ledger_account AS account LEFT JOIN player ON player.id = account.player_id WHERE coalesce(player.code, account.kind) = $1", args[:1]
		}
		require.NoError(t, w.tx.QueryRow(ctx, "SELECT ("+query+")::text", args...).Scan(&found), name)
		return found
	})
}
