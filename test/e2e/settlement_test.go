package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// longPatience bounds what takes a rescue of River: its time, and up to 30 s
// until the leader looks.
const longPatience = 150 * time.Second

// cashback pays 10 % of a week's loss, at the end of each week since 2026-11-02.
const cashback = `programmes:
  - code: weekly
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: Asia/Seoul
    effective_from: 2026-11-02
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
    max_attempts: 2
`

const (
	autoApproved = "    auto_approve_below: 1000000000\n"
	settledWeek  = "2026-W45"
)

// settlementEnvironment lets ticks and attempts follow each other soon.
func (s *stack) settlementEnvironment(more ...string) []string {
	return append([]string{
		"TRUEGREEN_SETTLEMENT_BACKOFF=100ms",
		"TRUEGREEN_SETTLEMENT_INTERVAL=1s",
		"TRUEGREEN_SETTLEMENT_TICK_BUDGET=1s",
	}, more...)
}

// promote applies and approves a programme by the commands.
func (s *stack) promote(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	out, err := s.run(ctx, t, text, "programmes", "apply", "-", "--as", "author")
	require.NoError(t, err, out)
	require.Contains(t, out, "waits for approval")
	out, err = s.run(ctx, t, "", "programmes", "approve", "weekly", "1", "--as", "author")
	require.Equal(t, 1, exitCode(err), out)
	require.Contains(t, out, "somebody else must approve it")
	out, err = s.run(ctx, t, "", "programmes", "approve", "weekly", "1", "--as", "approver")
	require.NoError(t, err, out)
}

// lose imports players who each lost 1,000 in the settled week, and the feed's
// word that this is all of it.
func (s *stack) lose(ctx context.Context, t *testing.T, numPlayers int, status func(n int) string) {
	t.Helper()
	var lines strings.Builder
	for n := range numPlayers {
		fmt.Fprintf(&lines, `{"type":"player","player":"p-%04[1]d","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"%[2]s","at":"2026-11-01T15:00:00Z"}
{"type":"deposit","id":"d-%[1]d","player":"p-%04[1]d","amount":1000,"at":"2026-11-02T01:00:00Z"}
{"type":"bet","id":"b-%[1]d","player":"p-%04[1]d","category":"slots","stake":1000,"at":"2026-11-02T03:00:00Z"}
{"type":"result","bet":"b-%[1]d","payout":0,"at":"2026-11-02T03:00:05Z"}
`, n, status(n))
	}
	lines.WriteString(`{"type":"watermark","source":"bets","at":"2026-11-09T00:00:00Z"}` + "\n")
	out, err := s.run(ctx, t, lines.String(), "import", "-")
	require.NoError(t, err, out)
}

func allOf(status string) func(int) string { return func(int) string { return status } }

// settle runs the command of a newcomer: start the run, or find it, and wait.
func (s *stack) settle(ctx context.Context, t *testing.T) (out string, code int) {
	t.Helper()
	out, err := s.run(ctx, t, "", "settlement", "run", "weekly", settledWeek, "--wait", "--as", "person")
	return out, exitCode(err)
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// requireTrueBooks asks all audits by the command.
func (s *stack) requireTrueBooks(ctx context.Context, t *testing.T) {
	t.Helper()
	out, err := s.run(ctx, t, "", "audit")
	require.NoError(t, err, out)
	require.Contains(t, out, "no findings")
}

func (s *stack) text(ctx context.Context, t *testing.T, query string, args ...any) string {
	t.Helper()
	var text string
	require.NoError(t, s.database.Pool.QueryRow(ctx, query, args...).Scan(&text))
	return text
}

// waitText waits until a query's one text is as wanted.
func (s *stack) waitText(ctx context.Context, t *testing.T, wanted, query string, args ...any) {
	t.Helper()
	last := ""
	require.Eventually(t, func() bool {
		last = s.text(ctx, t, query, args...)
		return last == wanted
	}, patience, poll, "%s is to be %q", query, wanted)
}

// jobsOfRun are the states of the jobs of a run, in order.
const jobsOfRun = `
	SELECT coalesce(string_agg(state::text, ' ' ORDER BY id), '') FROM river_job
	WHERE kind = 'settlement_cashback' AND args ->> 'run_id' = (SELECT max(run_id) FROM settlement_results WHERE period = '2026-W45')::text`

func TestSettlement(t *testing.T) {
	t.Parallel()

	t.Run("AllDelivered", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.promote(ctx, t, cashback)
		s.lose(ctx, t, 40, allOf("active"))
		worker := s.startWorker(t, s.settlementEnvironment()...)

		out, code := s.settle(ctx, t)
		require.Equal(t, 5, code, out)
		require.Contains(t, out, "settlement approve")
		runID := s.text(ctx, t, "SELECT run_id::text FROM settlement_results WHERE period = $1", settledWeek)
		out, err := s.run(ctx, t, "", "settlement", "approve", runID, "--as", "approver")
		require.NoError(t, err, out)
		out, code = s.settle(ctx, t)
		require.Equal(t, 0, code, out)
		require.Contains(t, out, "all_delivered")
		s.waitText(ctx, t, "completed completed", jobsOfRun)
		require.Equal(t, 40, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))
		s.waitPublished(ctx, t)
		s.checkDelivery(ctx, t)
		require.Equal(t, 40, s.count(ctx, t, "SELECT count(*) FROM outbox_events WHERE type = 'wallet.credited.v1' AND broker_ref IS NOT NULL"))
		require.Equal(t, "all_delivered", worker.logs.verdict(settledWeek, "outcome"))
		require.Equal(t, "INFO", worker.logs.verdict(settledWeek, "level"))
		worker.waitReady(t)

		// Once more by everybody: the command, and River's own retry of the job.
		out, code = s.settle(ctx, t)
		require.Equal(t, 0, code, out)
		_, err = s.database.Pool.Exec(ctx, `
			UPDATE river_job SET state = 'available', finalized_at = NULL, max_attempts = attempt + 1, scheduled_at = now()
			WHERE kind = 'settlement_cashback'`)
		require.NoError(t, err)
		s.waitText(ctx, t, "completed completed", jobsOfRun)
		require.Equal(t, 40, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))
		s.requireTrueBooks(ctx, t)
	})

	t.Run("NoEligible", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.promote(ctx, t, cashback)
		worker := s.startWorker(t, s.settlementEnvironment()...)

		// Nobody played, or the feed is dead: nobody knows yet.
		out, code := s.settle(ctx, t)
		require.Equal(t, 5, code, out)
		require.Contains(t, out, "the watermarks of bets to reach 2026-11-08T15:00:00Z")
		out, err := s.run(ctx, t, `{"type":"watermark","source":"bets","at":"2026-11-08T15:00:00Z"}`+"\n", "import", "-")
		require.NoError(t, err, out)
		s.waitText(ctx, t, "no_eligible", "SELECT coalesce(outcome, state) FROM settlement_results WHERE period = $1", settledWeek)
		out, code = s.settle(ctx, t)
		require.Equal(t, 0, code, out)
		require.Contains(t, out, "no_eligible")
		s.waitText(ctx, t, "completed completed", jobsOfRun)
		require.Equal(t, "INFO", worker.logs.verdict(settledWeek, "level"))
		s.requireTrueBooks(ctx, t)
	})

	t.Run("ADeadFeedIsAborted", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.promote(ctx, t, cashback+"    inputs_deadline: 2s\n")
		worker := s.startWorker(t, s.settlementEnvironment()...)
		s.waitText(ctx, t, "aborted", "SELECT coalesce(max(state) FILTER (WHERE period = $1), '') FROM settlement_results", settledWeek)
		out, code := s.settle(ctx, t)
		require.Contains(t, []int{4, 5}, code, out) // a person's start is a new run, which waits again
		s.waitText(ctx, t, "inputs_deadline", "SELECT min(abort_reason) FROM settlement_results WHERE period = $1", settledWeek)
		require.Equal(t, "ERROR", worker.logs.verdict(settledWeek, "level"))
		require.Eventually(t, func() bool {
			return s.count(ctx, t, "SELECT count(*) FROM river_job WHERE kind = 'settlement_cashback' AND state = 'discarded'") > 0
		}, patience, poll)
		// Advisory: it alarms, and turns no worker red.
		s.waitText(ctx, t, "failing", "SELECT verdict FROM worker_freshness WHERE loop = 'settlement_cashback'")
		worker.waitReady(t)
	})

	t.Run("AllEligibleFail", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.promote(ctx, t, cashback+autoApproved)
		s.lose(ctx, t, 20, allOf("frozen"))
		worker := s.startWorker(t, s.settlementEnvironment()...)
		out, code := s.settle(ctx, t)
		require.Equal(t, 2, code, out)
		require.Contains(t, out, "none_delivered")
		s.waitText(ctx, t, "discarded", jobsOfRun)
		require.Equal(t, 2, s.count(ctx, t, "SELECT count(*) FROM job_failures WHERE error LIKE '%none of 20 credits was delivered: 20 × wallet_frozen (permanent)%'"))
		require.Equal(t, "ERROR", worker.logs.verdict(settledWeek, "level"))
		require.Equal(t, 20, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 0"))
		require.Zero(t, s.count(ctx, t, "SELECT count(*) FROM outbox_event WHERE type = 'wallet.credited.v1'"))
		s.requireTrueBooks(ctx, t)
	})

	t.Run("Mixed", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.promote(ctx, t, cashback+autoApproved)
		s.lose(ctx, t, 20, func(n int) string {
			if n%4 == 0 {
				return "frozen"
			}
			return "active"
		})
		worker := s.startWorker(t, s.settlementEnvironment()...)
		out, code := s.settle(ctx, t)
		require.Equal(t, 3, code, out)
		require.Contains(t, out, "partial")
		s.waitText(ctx, t, "completed", jobsOfRun)
		require.Equal(t, "ERROR", worker.logs.verdict(settledWeek, "level"))
		require.Equal(t, "5 × wallet_frozen (permanent)", worker.logs.verdict(settledWeek, "reasons"))
		require.Equal(t, "15 5", s.text(ctx, t, "SELECT credited || ' ' || failed FROM settlement_results WHERE period = $1", settledWeek))
		require.Equal(t, "5", s.text(ctx, t, "SELECT metadata #>> '{output,result,num_failed}' FROM river_job WHERE kind = 'settlement_cashback' AND args ->> 'run_id' = (SELECT run_id::text FROM settlement_results WHERE period = $1)", settledWeek))
		// Busy, while other weeks are settled that a tick has found meanwhile.
		s.waitText(ctx, t, "degraded", "SELECT verdict FROM worker_freshness WHERE loop = 'settlement_cashback'")
		s.requireTrueBooks(ctx, t)

		// The accounts are thawed, and what is left is delivered. A tick gives other weeks
		// their runs meanwhile.
		s.thaw(ctx, t, 20)
		regular := s.text(ctx, t, "SELECT run_id::text FROM settlement_results WHERE period = $1", settledWeek)
		out, err := s.run(ctx, t, "", "settlement", "retry", regular, "--as", "operator", "--reason", "thawed")
		require.NoError(t, err, out)
		require.Regexp(t, `retried by run \d+ \(retry of run `+regular+`\) of weekly 2026-W45: approved`, out)
		s.waitText(ctx, t, "all_delivered", "SELECT coalesce(outcome, state) FROM settlement_results WHERE run_kind = 'retry'")
		s.waitText(ctx, t, "idle", "SELECT verdict FROM worker_freshness WHERE loop = 'settlement_cashback'")
		require.Equal(t, 20, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))
		out, code = s.settle(ctx, t)
		require.Equal(t, 3, code, "what became of the run itself: %s", out)
		s.requireTrueBooks(ctx, t)

		// A bet that came late adds to the week.
		out, err = s.run(ctx, t, `{"type":"bet","id":"late","player":"p-0003","category":"slots","stake":60,"at":"2026-11-03T03:00:00Z"}
{"type":"result","bet":"late","payout":0,"at":"2026-11-03T03:00:05Z"}
`, "import", "-")
		require.NoError(t, err, out)
		out, err = s.run(ctx, t, "", "settlement", "preview", "weekly", settledWeek)
		require.NoError(t, err, out)
		require.Contains(t, out, "preview of an adjustment of weekly 2026-W45 (cashback, version 1): 20 evaluated, 1 eligible, 19 excluded; eligible 6 KRW")
		out, err = s.run(ctx, t, "", "settlement", "adjust", "weekly", settledWeek, "--wait", "--as", "operator")
		require.NoError(t, err, out)
		require.Regexp(t, `run \d+ \(adjustment\) of weekly 2026-W45: done/all_delivered`, out)
		require.Equal(t, "46", s.text(ctx, t, "SELECT balance::text FROM wallet_balances WHERE player = 'p-0003'"))
		out, err = s.run(ctx, t, "", "settlement", "explain", "weekly", settledWeek, "p-0003")
		require.NoError(t, err, out)
		require.Contains(t, out, "before: 100 was owed already; 106 - 100 = 6")
		s.waitPublished(ctx, t)
		s.checkDelivery(ctx, t)
		s.requireTrueBooks(ctx, t)
	})
}

// thaw makes all players active.
func (s *stack) thaw(ctx context.Context, t *testing.T, numPlayers int) {
	t.Helper()
	var lines strings.Builder
	for n := range numPlayers {
		fmt.Fprintf(&lines, `{"type":"player","player":"p-%04d","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"active","at":"2026-11-10T00:00:00Z"}
`, n)
	}
	out, err := s.run(ctx, t, lines.String(), "import", "-")
	require.NoError(t, err, out)
}

// TestSettlement_Kill kills a worker in the middle of a delivery while a second
// one runs. What it had paid stays paid, once; the rest is paid by the other.
func TestSettlement_Kill(t *testing.T) {
	t.Parallel()

	const numPlayers = 1500
	ctx := t.Context()
	s := setup(ctx, t)
	s.promote(ctx, t, cashback+autoApproved)
	s.lose(ctx, t, numPlayers, allOf("active"))
	environment := s.settlementEnvironment(
		"TRUEGREEN_MAINTENANCE_BUDGET=15s", "TRUEGREEN_RESCUE_AFTER=18s", "TRUEGREEN_SETTLEMENT_CHUNK=5", "TRUEGREEN_SETTLEMENT_SLICE=2s",
	)
	victim := s.startWorker(t, environment...)
	credited := func() int {
		return s.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE delivery = 'credited'")
	}
	require.Eventually(t, func() bool { return credited() > 0 }, patience, 5*time.Millisecond)
	victim.stop(t, syscall.SIGKILL)
	paidBefore := credited()
	require.Less(t, paidBefore, numPlayers, "the kill came too late to prove anything")
	require.Equal(t, paidBefore, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))

	survivors := []*process{s.startWorker(t, environment...), s.startWorker(t, environment...)}
	require.Eventually(t, func() bool {
		return s.text(ctx, t, "SELECT coalesce(outcome, state) FROM settlement_results WHERE period = $1", settledWeek) == "all_delivered"
	}, longPatience, 50*time.Millisecond)
	require.Equal(t, numPlayers, s.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 100"))
	require.Equal(t, numPlayers, s.count(ctx, t, "SELECT count(*) FROM settlement_attempt WHERE result = 'credited'"))
	// The pass had come forward, so it was gone on with.
	require.Equal(t, 1, s.count(ctx, t, "SELECT attempt FROM settlement_results WHERE period = $1", settledWeek))
	for _, survivor := range survivors {
		survivor.waitReady(t)
	}
	s.waitPublished(ctx, t)
	s.checkDelivery(ctx, t)
	s.requireTrueBooks(ctx, t)
}

// TestSettlement_Tick makes the scheduler run without succeeding, and vanish.
func TestSettlement_Tick(t *testing.T) {
	t.Parallel()

	for name, broken := range map[string]struct{ breakIt, mendIt, code string }{
		"FailingTurnsSettlementRed": {
			`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more periods'; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON settlement_period FOR EACH ROW EXECUTE FUNCTION refuse()`,
			"DROP TRIGGER refuse ON settlement_period",
			"loop_failing",
		},
		"VanishingTurnsSettlementRed": {
			`CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE river_job SET scheduled_at = scheduled_at + interval '1 day', state = 'scheduled' WHERE id = NEW.id; RETURN NULL; END $$;
			CREATE TRIGGER swallow AFTER INSERT ON river_job FOR EACH ROW WHEN (NEW.kind = 'settlement_tick') EXECUTE FUNCTION swallow()`,
			"DROP TRIGGER swallow ON river_job",
			"loop_stalled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := setup(ctx, t)
			settling := s.startWorker(t, s.settlementEnvironment("TRUEGREEN_LOOPS=settlement")...)
			publishing := s.startWorker(t, s.settlementEnvironment("TRUEGREEN_LOOPS=outbox")...)
			settling.waitReady(t)
			publishing.waitReady(t)

			_, err := s.database.Pool.Exec(ctx, broken.breakIt)
			require.NoError(t, err)
			s.promote(ctx, t, cashback)
			// A slow machine may be red before, because it cannot read the loops in time.
			settling.waitFor(t, "/readyz", "red", func(a answer) bool {
				return a.Code == http.StatusServiceUnavailable && a.has(broken.code, "settlement_tick")
			})
			require.Equal(t, http.StatusOK, settling.probe(t, "/livez").Code)
			require.Equal(t, http.StatusOK, publishing.probe(t, "/readyz").Code)

			_, err = s.database.Pool.Exec(ctx, broken.mendIt)
			require.NoError(t, err)
			settling.waitReady(t)
			s.waitText(ctx, t, "true", "SELECT (count(*) > 0)::text FROM settlement_results")
		})
	}
}

// verdict returns an attribute of the line that tells how the run of a period
// ended.
func (b *logBuffer) verdict(period, attribute string) string {
	for line := range strings.Lines(b.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "settlement ended" && entry["period"] == period {
			switch value := entry[attribute].(type) {
			case float64:
				return strconv.FormatFloat(value, 'f', -1, 64)
			default:
				return fmt.Sprint(value)
			}
		}
	}
	return ""
}
