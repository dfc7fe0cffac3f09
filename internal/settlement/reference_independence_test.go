package settlement_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRunner_Work_Independence settles the same worlds in many manners, which all make
// the same of them.
func TestRunner_Work_Independence(t *testing.T) {
	t.Parallel()

	// Of its retries, five have something to retry.
	const seed = 1242
	require.False(t, newWorld(seed).hasVainRuns(), "they try until their attempts are spent, which are many where connections are cut")
	plain := manner{batchSize: 5_000, chunkSize: 1_000, maxAttempts: 2, numClients: 1, numFiles: 1, order: 10}
	expected := newWorld(seed).replay(t.Context(), t, plain).everything(t.Context(), t)
	for name, change := range map[string]func(how *manner){
		"OneCreditInAChunk":              func(how *manner) { how.chunkSize = 1 },
		"SevenCreditsInAChunk":           func(how *manner) { how.chunkSize = 7 },
		"OneLineInATransaction":          func(how *manner) { how.batchSize, how.order = 1, 11 },
		"ManyFilesOfMixedLines":          func(how *manner) { how.batchSize, how.numFiles, how.order = 13, 9, 12 },
		"FilesThatAreImportedAtOnce":     func(how *manner) { how.batchSize, how.numFiles, how.order, how.together = 20, 4, 13, true },
		"LinesThatAreImportedAgain":      func(how *manner) { how.again, how.batchSize, how.order = true, 100, 14 },
		"ThreeClientsAtOnce":             func(how *manner) { how.chunkSize, how.numClients = 2, 3 },
		"ConnectionsThatAreCut":          func(how *manner) { how.chunkSize, how.cuts, how.maxAttempts = 3, true, 60 },
		"ConnectionsOfSeveralThatAreCut": func(how *manner) { how.chunkSize, how.cuts, how.maxAttempts, how.numClients = 1, true, 60, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			changed := plain
			change(&changed)
			found := newWorld(seed).replay(ctx, t, changed)
			for what, rows := range found.everything(ctx, t) {
				require.Equal(t, expected[what], rows, what)
			}
			if changed.cuts {
				require.Greater(t, found.count(ctx, t, "SELECT count(*) FROM settlement_event WHERE kind = 'failed'"), 10, "nothing was cut")
			}
		})
	}
}

// hasVainRuns reports whether there is a run that has nothing but refusals.
func (w *world) hasVainRuns() bool {
	for _, step := range w.steps {
		for _, period := range step.settled {
			if outcomeOf(period.owed) == "none_delivered" {
				return true
			}
		}
		for _, one := range step.amended {
			delivered := one.owed
			if one.isRetry {
				delivered = one.retried
			}
			if outcomeOf(delivered) == "none_delivered" {
				return true
			}
		}
	}
	return false
}

// everything is all that lines and settlements leave, without what may differ: ids,
// times of booking, attempts.
func (bundle *testBundle) everything(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for what, query := range map[string]string{
		"items": `SELECT programme, period, player, currency, adj, basis, gross, capped, amount, rate_ppm, tier_from, tier_value,
				disposition, reason, delivery, failure_code, failure_class, inputs, reference FROM settlement_credits`,
		"runs": `SELECT programme, period, state, outcome, evaluated, eligible, credited, failed, withheld, excluded, pending,
				eligible_amount, credited_amount, failed_amount, job_end FROM settlement_results`,
		"balances": `SELECT player, currency, balance, status, version FROM wallet_balances`,
		"ledger":   `SELECT reference, kind, account, player, currency, amount, CASE WHEN reference NOT LIKE 'settle/%' THEN at END FROM ledger_lines`,
		"events":   `SELECT key, type, payload ->> 'reference', payload ->> 'amount' FROM outbox_events`,
		"bets":     `SELECT ref, refusal, settled_at, voided_at, payout_minor FROM bet`,
	} {
		found[what] = scalar[string](ctx, t, bundle.db, fmt.Sprintf("SELECT coalesce(string_agg(row::text, E'\n' ORDER BY row::text), '') FROM (%s) AS row", query))
		require.NotEmpty(t, found[what], what)
	}
	return found
}

// cutConnections ends the session of every fifth statement by which a job changes a
// run, before it is committed: in taking it, in the calculation, where a pass begins, in
// a chunk, at the run's end. The count goes on when a transaction is rolled back.
func (bundle *testBundle) cutConnections(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.exec(ctx, t, `
		CREATE SEQUENCE cut;
		CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('cut') % 5 = 0 THEN
				PERFORM pg_terminate_backend(pg_backend_pid());
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER cut BEFORE UPDATE ON settlement_run FOR EACH ROW
			WHEN (OLD.job_id IS NOT NULL) EXECUTE FUNCTION cut()`)
}
