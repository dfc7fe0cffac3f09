package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

// run adds a settlement run that could go on for so long; set is what else is
// known of it.
func (rows rows) run(able time.Duration, set string) {
	rows.exec(`
		INSERT INTO programme (code, currency, kind, period, time_zone) VALUES ('p', 'KRW', 'cashback', 'daily', 'UTC') ON CONFLICT DO NOTHING`)
	rows.exec(`
		INSERT INTO programme_version (created_by, effective_from, programme_id, rules, rules_hash, version)
		SELECT 'maker', '2026-01-01', id, '{}', '', 1 FROM programme ON CONFLICT DO NOTHING`)
	rows.exec(`
		INSERT INTO settlement_period (due_at, ends_at, key, programme_id, starts_at)
		SELECT day + interval '1 day', day + interval '1 day', to_char(day, 'YYYY-MM-DD'), programme.id, day
		FROM programme, (SELECT timestamptz '2026-01-01T00:00Z' + count(*) * interval '1 day' AS day FROM settlement_period) AS next`)
	rows.exec(`
		INSERT INTO settlement_run (able_since, created_by, currency, inputs_deadline_at, kind, max_attempts, period_ends_at, period_id, version_id)
		SELECT clock_timestamp() - $1::interval, 'maker', 'KRW', clock_timestamp() + interval '1 day', 'regular', 3, period.ends_at, period.id, version.id
		FROM programme_version AS version, (SELECT * FROM settlement_period ORDER BY id DESC LIMIT 1) AS period`, able)
	if set != "" {
		rows.exec(`UPDATE settlement_run SET ` + set + ` WHERE id = (SELECT max(id) FROM settlement_run)`)
	}
}

const (
	scheduled = "settlement_cashback" // late after 31 min, red after 61 min

	calculated = `calculated_at = now(), inputs_at = period_ends_at, eligible_minor = 2, num_eligible = 2, num_evaluated = 2, num_excluded = 0, `
	partial    = calculated + `state = 'done', outcome = 'partial', finished_at = now(), credited_minor = 1, failed_minor = 1,
		num_credited = 1, num_failed = 1, num_pending = 0, num_withheld = 0`
	none = calculated + `state = 'done', outcome = 'none_delivered', finished_at = now(), credited_minor = 0, failed_minor = 2,
		num_credited = 0, num_failed = 2, num_pending = 0, num_withheld = 0`
	aborted      = `state = 'aborted', abort_reason = 'inputs_deadline', abort_detail = 'late', finished_at = now()`
	acknowledged = `, acknowledged_at = now(), acknowledged_by = 'kim', acknowledge_reason = 'known'`
)

// TestReadLoops_Scheduled is about a loop that works only when something falls
// due: its age is that of what is due, never that of its last success.
func TestReadLoops_Scheduled(t *testing.T) {
	t.Parallel()

	minutes := func(n int) time.Duration { return time.Duration(n) * time.Minute }
	for _, test := range []struct {
		name    string
		arrange func(rows rows)
		verdict freshness.Verdict
	}{
		{"NothingIsDueThoughItNeverSucceeded", func(rows) {}, freshness.VerdictIdle},
		{"NothingIsDueSinceALongTime", func(rows rows) { rows.succeeded(scheduled, "w1", 90*24*time.Hour) }, freshness.VerdictIdle},
		{"ARunIsDue", func(rows rows) { rows.run(minutes(30), "") }, freshness.VerdictOK},
		{"ARunIsLate", func(rows rows) { rows.run(minutes(32), "") }, freshness.VerdictLate},
		{"ARunIsLateWhileJobsComplete", func(rows rows) {
			rows.run(minutes(59), "")
			rows.job(scheduled, "completed", time.Second, 0, `{}`)
		}, freshness.VerdictLate},
		{"ARunIsLateAndFails", func(rows rows) {
			rows.run(minutes(32), "")
			rows.failed(scheduled, "w1", 3, time.Second)
		}, freshness.VerdictFailing},
		{"ARunIsDueAndAllThatEverRanFailed", func(rows rows) {
			rows.run(minutes(1), "")
			rows.failed(scheduled, "w1", 3, time.Second)
		}, freshness.VerdictFailing},
		{"NothingIsDueAndAllThatEverRanFailed", func(rows rows) { rows.failed(scheduled, "w1", 3, time.Second) }, freshness.VerdictIdle},
		{"ARunStands", func(rows rows) { rows.run(minutes(62), "") }, freshness.VerdictStalled},
		{"ARunStandsThoughAnotherSucceeded", func(rows rows) {
			rows.run(minutes(62), "")
			rows.succeeded(scheduled, "w1", time.Second)
		}, freshness.VerdictStalled},
		{"ItWasResumedALittleAgo", func(rows rows) {
			rows.baseline(scheduled, minutes(5))
			rows.run(minutes(62), "")
		}, freshness.VerdictOK},
		{"ItIsPaused", func(rows rows) {
			rows.run(minutes(62), "")
			rows.exec(`UPDATE loop_contract SET paused_at = now(), paused_by = 'kim', pause_reason = 'move' WHERE loop = $1`, scheduled)
		}, freshness.VerdictPaused},
		{"ARunWaitsForItsInputs", func(rows rows) { rows.run(minutes(62), "state = 'waiting_inputs'") }, freshness.VerdictIdle},
		{"ARunWaitedTooLongALittleAgo", func(rows rows) {
			rows.run(minutes(62), "state = 'waiting_inputs', inputs_deadline_at = now() - interval '1 s'")
		}, freshness.VerdictOK},
		{"ARunWaitedTooLongSinceLong", func(rows rows) {
			rows.run(minutes(99), "state = 'waiting_inputs', inputs_deadline_at = now() - interval '62 minutes'")
		}, freshness.VerdictStalled},
		{"ARunAwaitsApproval", func(rows rows) {
			rows.run(minutes(62), calculated+"state = 'awaiting_approval'")
		}, freshness.VerdictIdle},
		{"PartialIsDegraded", func(rows rows) { rows.run(0, partial) }, freshness.VerdictDegraded},
		{"PartialIsKnown", func(rows rows) { rows.run(0, partial+acknowledged) }, freshness.VerdictIdle},
		{"NoneDeliveredIsFailing", func(rows rows) { rows.run(0, none) }, freshness.VerdictFailing},
		{"NoneDeliveredIsKnown", func(rows rows) { rows.run(0, none+acknowledged) }, freshness.VerdictIdle},
		{"AbortedIsFailing", func(rows rows) { rows.run(0, aborted) }, freshness.VerdictFailing},
		{"AbortedIsKnown", func(rows rows) { rows.run(0, aborted+acknowledged) }, freshness.VerdictIdle},
		{"FailingComesBeforeDegraded", func(rows rows) {
			rows.run(0, partial)
			rows.run(0, none)
		}, freshness.VerdictFailing},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx, rows := txBundle(ctx, t)
			rows.baseline(scheduled, 100*24*time.Hour)
			test.arrange(rows)
			status := statusOf(ctx, t, tx, scheduled)
			require.Equal(t, test.verdict, status.Verdict)
			require.False(t, status.Required)
		})
	}
}
