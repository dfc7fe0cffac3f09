package anomaly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbtest"
	"truegreen/internal/settlement"
	"truegreen/jobs"
)

// run is a case of a job that works a run over these books.
func run(name string, job jobCase, prepare func(ctx context.Context, t *testing.T, b *books)) *operation {
	op := job.operation(name)
	op.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) { prepare(ctx, t, openBooks(ctx, t, db)) }
	op.state = moneyState
	return op
}

// ready are books whose week can be settled.
func ready(text string, codes ...string) func(ctx context.Context, t *testing.T, b *books) {
	return func(ctx context.Context, t *testing.T, b *books) {
		b.programme(ctx, t, text)
		b.losers(ctx, t, codes...)
		b.watermarks(ctx, t)
		b.plan(ctx, t)
	}
}

// partial are books of a week that was settled, but for b, whose wallet is frozen.
func partial(ctx context.Context, t *testing.T, b *books) {
	b.programme(ctx, t, terms("max_attempts: 4", "max_attempts: 2"))
	b.losers(ctx, t, "a", "b", "c")
	b.status(ctx, t, activity.StatusFrozen, "b")
	b.watermarks(ctx, t)
	b.plan(ctx, t)
	b.settle(ctx, t)
	require.Equal(t, "partial", scalar[string](ctx, t, b.db, "SELECT outcome FROM settlement_results"))
}

func settlementOperations() []*operation {
	cashback := settling(jobs.SettlementCashbackArgs{}.Kind())
	sliced := cashback
	sliced.settlement.Slice = time.Nanosecond
	ended := run("ended_by_a_person", cashback, func(ctx context.Context, t *testing.T, b *books) {
		ready(weekly, "a")(ctx, t, b)
		exec(ctx, t, b.db, "UPDATE river_job SET state = 'running', attempted_at = now(), attempt = 1 WHERE kind = 'settlement_cashback'")
		_, err := b.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "wrong", RunID: 1})
		require.NoError(t, err)
	})
	ended.state = func(ctx context.Context, t *testing.T, trial *trial) string {
		return moneyState(ctx, t, trial) + scalar[string](ctx, t, trial.db, "SELECT CASE WHEN state = 'completed' THEN ' completed' ELSE ' open' END FROM river_job WHERE kind = 'settlement_cashback'")
	}
	const rate = "tiers: [{from: 0, rate_ppm: 100000}]"
	return []*operation{
		run("cashback", cashback, ready(weekly, "a", "b", "c", "d", "e")),
		run("rebate", settling(jobs.SettlementRebateArgs{}.Kind()),
			ready(terms("kind: cashback", "kind: rebate", "basis: game", "basis: stake\n    categories: {slots: 500000}"), "a", "b")),
		run("lossback", settling(jobs.SettlementLossbackArgs{}.Kind()),
			ready(terms("kind: cashback", "kind: lossback\n    window: 24h", "    basis: game\n", ""), "a", "b")),
		run("less_promotions", cashback, ready(terms(rate, rate+"\n    less_promotions: true"), "a", "b")),
		run("sliced", sliced, ready(weekly, "a", "b", "c")),
		run("nobody_eligible", cashback, ready(terms(rate, "tiers: [{from: 5000, rate_ppm: 100000}]"), "a")),
		run("awaits_approval", cashback, ready(terms("    auto_approve_below: 1000000000\n", ""), "a")),
		run("over_budget", cashback, ready(terms(rate, rate+"\n    budget: {window: monthly, limit: 50}"), "a")),
		run("waits_for_inputs", cashback, func(ctx context.Context, t *testing.T, b *books) {
			b.programme(ctx, t, weekly)
			b.losers(ctx, t, "a")
			b.plan(ctx, t)
		}),
		run("dead_feed", cashback, func(ctx context.Context, t *testing.T, b *books) {
			b.programme(ctx, t, weekly)
			b.losers(ctx, t, "a")
			b.plan(ctx, t)
			exec(ctx, t, b.db, "UPDATE settlement_run SET inputs_deadline_at = now() - interval '1 second'")
		}),
		run("partial", cashback, func(ctx context.Context, t *testing.T, b *books) {
			b.programme(ctx, t, terms("max_attempts: 4", "max_attempts: 2"))
			b.losers(ctx, t, "a", "b", "c")
			b.status(ctx, t, activity.StatusFrozen, "b")
			b.watermarks(ctx, t)
			b.plan(ctx, t)
		}),
		run("none_delivered", cashback, func(ctx context.Context, t *testing.T, b *books) {
			b.programme(ctx, t, terms("max_attempts: 4", "max_attempts: 2"))
			b.losers(ctx, t, "a")
			b.status(ctx, t, activity.StatusFrozen, "a")
			b.watermarks(ctx, t)
			b.plan(ctx, t)
		}),
		run("retry", cashback, func(ctx context.Context, t *testing.T, b *books) {
			partial(ctx, t, b)
			b.status(ctx, t, activity.StatusActive, "b")
			_, err := b.service.Retry(ctx, settlement.Decision{By: "operator", Reason: "thawed", RunID: 1})
			require.NoError(t, err)
		}),
		run("adjustment", cashback, func(ctx context.Context, t *testing.T, b *books) {
			ready(weekly, "a", "b")(ctx, t, b)
			b.settle(ctx, t)
			b.late(ctx, t, "a", 500)
			_, err := b.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: "weekly", Key: week, Reason: "late bets"})
			require.NoError(t, err)
		}),
		ended, ticking(),
	}
}

// ticking plans what is due, and gives a run that lost its job another.
func ticking() *operation {
	job := jobCase{kind: jobs.SettlementTickArgs{}.Kind()}
	op := run("tick", job, func(ctx context.Context, t *testing.T, b *books) {
		// Two weeks are over, whenever this runs; more would only take longer.
		monday := scalar[string](ctx, t, b.db, "SELECT (date_trunc('week', now() AT TIME ZONE 'Asia/Seoul') - interval '14 days')::date::text")
		b.programme(ctx, t, terms("2026-11-02", monday))
		first := scalar[string](ctx, t, b.db, "SELECT to_char($1::date, 'IYYY-\"W\"IW')", monday)
		_, err := b.service.Plan(ctx, "weekly", first, "person")
		require.NoError(t, err)
		exec(ctx, t, b.db, "DELETE FROM river_job")
		exec(ctx, t, b.db, "INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{}', 'settlement_tick', 25, 'settlement_tick')")
	})
	op.state = func(ctx context.Context, t *testing.T, trial *trial) string {
		return scalar[string](ctx, t, trial.db, `
			SELECT concat_ws(' / ',
				(SELECT string_agg(run.state || ' ' || (job.id IS NOT NULL), ', ' ORDER BY run.id)
				FROM (SELECT * FROM settlement_run ORDER BY id LIMIT 2) AS run LEFT JOIN river_job AS job ON job.id = run.job_id))`)
	}
	return op
}

// watching looks for alarms, of each kind of source.
func watching() *operation {
	return &operation{
		covers: []string{"probe watchdog"},
		name:   "watchdog",
		setup: func(ctx context.Context, t *testing.T, db *dbtest.DB) {
			b := openBooks(ctx, t, db)
			partial(ctx, t, b)
			exec(ctx, t, db, "SET session_replication_role = replica; UPDATE programme_version SET approved_at = now() - interval '2 days'; RESET session_replication_role")
		},
		run: func(ctx context.Context, t *testing.T, trial *trial) outcome {
			service := newService(t, throughProxy(ctx, t, trial), settlement.Config{})
			report, err := settlement.NewWatchdog(service, silent(), settlement.WatchdogConfig{}).Look(ctx)
			got := outcomeOf(err)
			var lines []string
			for i := range report.Alarms {
				alarm := &report.Alarms[i]
				lines = append(lines, strings.Join([]string{string(alarm.Kind), alarm.Programme, alarm.Period}, " "))
			}
			got.output = strings.Join(lines, "\n")
			return got
		},
	}
}

func TestSettlement(t *testing.T) {
	t.Parallel()
	loopAll(t, settlementOperations())
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	loopAll(t, []*operation{watching()})
}
