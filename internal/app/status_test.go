package app_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

const cashback = `programmes:
  - code: weekly
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: Asia/Seoul
    effective_from: 2026-11-02
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
`

// healthy lets the database look as if a worker ran and were ready.
func (bundle *testBundle) healthy(ctx context.Context, t *testing.T) {
	t.Helper()
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	bundle.falsify(ctx, t, "INSERT INTO worker_heartbeat (worker_id, queues, ready_at, seen_at, version) VALUES ('w', '{}', now() + interval '1 minute', now(), 'v1')")
}

// falsify changes what the database's triggers keep as it is, too.
func (bundle *testBundle) falsify(ctx context.Context, t *testing.T, statements ...string) {
	t.Helper()
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		for _, statement := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
			_, err := tx.Exec(ctx, statement)
			require.NoError(t, err, statement)
		}
		return nil
	}))
}

// status runs the command and returns its exit code and what it said.
func (bundle *testBundle) status(ctx context.Context, t *testing.T) (int, cli.StatusReport) {
	t.Helper()
	code := bundle.run(ctx, "status", "--json")
	var report cli.StatusReport
	require.NoError(t, json.Unmarshal(bundle.out.Bytes(), &report), bundle.errOut.String())
	return code, report
}

func TestActions_Status(t *testing.T) {
	t.Parallel()

	t.Run("AlarmsAreReasons", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.healthy(ctx, t)
		code, report := bundle.status(ctx, t)
		require.Equal(t, cli.ExitGood, code, report.Reasons)

		bundle.in = cashback
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "programmes", "apply", "-", "--as", "author"), bundle.errOut.String())
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "programmes", "approve", "weekly", "1", "--as", "approver"), bundle.errOut.String())
		bundle.run(ctx, "settlement", "run", "weekly", "2026-W45", "--as", "person")
		code, report = bundle.status(ctx, t)
		require.Equal(t, cli.ExitGood, code, report.Reasons)
		require.Empty(t, report.Alarms)

		// A run that ends nowhere, which turns its loop late, and weeks that no tick
		// plans: the first is told once.
		bundle.falsify(ctx, t,
			"UPDATE programme_version SET approved_at = now() - interval '30 days'",
			"UPDATE settlement_run SET able_since = now() - interval '40 minutes'",
			"UPDATE loop_contract SET baseline_at = now() - interval '5 days' WHERE scheduled",
		)
		code, report = bundle.status(ctx, t)
		require.Equal(t, cli.ExitDegraded, code)
		var overdue *cli.AlarmStatus
		for i := range report.Alarms {
			if report.Alarms[i].Alarm == "run_overdue" {
				overdue = &report.Alarms[i]
			}
		}
		require.NotNil(t, overdue)
		require.Equal(t, "docs/runbooks/settlement-run-overdue.md", overdue.Runbook)
		require.Equal(t, "truegreen settlement show 1", overdue.Do)
		for _, loop := range report.Loops {
			require.Equal(t, loop.Name == "settlement_cashback", loop.Verdict == "late", "%+v", loop)
		}
		reasons := strings.Join(report.Reasons, "\n")
		require.Regexp(t, `(?m)^page: run 1 of weekly 2026-W45: run_overdue for 40m\d*s? \(truegreen settlement show 1\): is planned, attempt 0 of \d+; job \d+ is available$`, reasons)
		require.Regexp(t, `(?m)^page: (?:period 2026-W46 of weekly: period_without_run for \w+ \(truegreen settlement run weekly 2026-W46\)|\d+ × period_without_run, the oldest for \w+ \(truegreen settlement run weekly 2026-W46; truegreen status --json has the others\).*): due by version 1, and no tick has given it a run$`, reasons)
		require.NotContains(t, reasons, "loop settlement_cashback")

		// What is paused is said, whatever stands.
		bundle.falsify(ctx, t, "UPDATE loop_contract SET paused_at = now(), paused_by = 'ana', pause_reason = 'x' WHERE loop = 'settlement_cashback'")
		_, report = bundle.status(ctx, t)
		require.Contains(t, report.Reasons, "loop settlement_cashback is paused")
	})

	t.Run("ManyAreCounted", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.healthy(ctx, t)
		bundle.in = strings.NewReplacer("period: weekly", "period: daily", "2026-11-02", "2026-01-01").Replace(cashback)
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "programmes", "apply", "-", "--as", "author"), bundle.errOut.String())
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "programmes", "approve", "weekly", "1", "--as", "approver"), bundle.errOut.String())
		bundle.falsify(ctx, t, "UPDATE programme_version SET approved_at = now() - interval '30 days'")
		code, report := bundle.status(ctx, t)
		require.Equal(t, cli.ExitDegraded, code)
		require.Len(t, report.Alarms, 100)
		require.Greater(t, report.NumMoreAlarms, 200)
		require.Len(t, report.Reasons, 2)
		require.Contains(t, report.Reasons[0], "page: 100 × period_without_run, the oldest for ")
		require.Regexp(t, `^\d+ more alarms of settlements than can be listed: SELECT`, report.Reasons[1])
	})

	t.Run("IsBadWhenAlarmsCannotBeRead", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.healthy(ctx, t)
		bundle.falsify(ctx, t, "ALTER VIEW settlement_alarms RENAME TO hidden")
		code, report := bundle.status(ctx, t)
		require.Equal(t, cli.ExitBad, code)
		require.Contains(t, report.Reasons[0], "not all alarms of settlements are known: look for alarms of settlements: ")
		require.NotEmpty(t, report.Loops)
	})
}

// TestActions_Status_LockedTable locks a table of the outbox, and still gets to see all
// that does not need it.
func TestActions_Status_LockedTable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t)
	bundle.healthy(ctx, t)
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, `LOCK TABLE outbox_delivery IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)

	code, report := bundle.status(ctx, t)
	require.Equal(t, 2, code)
	verdicts := make(map[string]string)
	for _, loop := range report.Loops {
		verdicts[loop.Name] = loop.Verdict
	}
	require.Equal(t, "unknown", verdicts["outbox_wallet"])
	require.Equal(t, "starting", verdicts["settlement_tick"])
	require.Len(t, report.Workers, 1)
	reasons := strings.Join(report.Reasons, "\n")
	require.Contains(t, reasons, "loop outbox_wallet is unknown: ")
	require.Contains(t, reasons, "outbox streams not read: ")
}
