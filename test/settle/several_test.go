package settle_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSettlement_SeveralAtOnce has two processes and two ticks at the same runs.
func TestSettlement_SeveralAtOnce(t *testing.T) {
	t.Parallel()

	t.Run("TwoTicksAndTwoProcessesDoTheWorkOfOne", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		for seed := range uint64(times(1)) {
			w := setup(ctx, t, seed, 40)
			// Both ticks wait for a programme before either has looked for periods.
			tx, err := w.db.Pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
			_, err = tx.Exec(ctx, "SELECT FROM programme FOR UPDATE")
			require.NoError(t, err)
			first, second := w.start(t, order{ChunkSize: 1, OneTick: true}), w.start(t, order{ChunkSize: 2, IsSliced: true, OneTick: true})
			first.waitFor(t, reportReady)
			second.waitFor(t, reportReady)
			require.Eventually(t, func() bool {
				w.tick(ctx, t, 2)
				return w.count(ctx, t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 2
			}, patience, poll)
			require.NoError(t, tx.Rollback(ctx))

			w.await(ctx, t, "all is to be settled", func() bool { return w.isSettled(ctx, t) })
			first.stop(t)
			second.stop(t)
			require.Equal(t, w.count(ctx, t, "SELECT count(DISTINCT period_id) FROM settlement_run"), w.count(ctx, t, "SELECT count(*) FROM settlement_run"))
			require.Equal(t, 2, w.count(ctx, t, `
				SELECT count(DISTINCT worker) FROM river_job CROSS JOIN unnest(attempted_by) AS worker WHERE kind LIKE 'settlement_%'`))
			w.requireSettled(ctx, t)
		}
	})
}

// TestSettlement_ThoughtDead stops a process, lets another one take over and stop in
// its turn, and lets the first go on: it must find that nothing is its own any more.
func TestSettlement_ThoughtDead(t *testing.T) {
	t.Parallel()

	taken := place{momentCommitted, "SettlementRunTake"}
	chunk := place{momentCommitted, "SettlementItemCredit"}
	for name, tc := range map[string]struct {
		at, other place
		chunkSize int // 1 if 0
		isRetried bool
		nth       int
	}{
		"WithARunThatIsTaken":         {at: taken, nth: 3, other: place{momentCommitted, "SettlementRunApprove"}},
		"WithACalculationThatIsBegun": {at: place{momentCommitted, "SettlementRunCalculating"}, nth: 3, other: place{momentCommitted, "SettlementRunBeginPass"}},
		"WithinACalculation":          {at: place{momentAfter, statementItems}, nth: 3, other: place{momentCommitted, "SettlementRunCalculating"}},
		"BehindACalculation":          {at: place{momentCommitted, "SettlementRunApprove"}, nth: 3, other: chunk},
		"WithAPassThatIsBegun":        {at: place{momentCommitted, "SettlementRunBeginPass"}, nth: 3, other: chunk},
		"BetweenTwoChunks":            {at: chunk, nth: 5, other: chunk},
		"WithinAChunk":                {at: place{momentAfter, "SettlementItemCredit"}, nth: 5, other: chunk},
		"BehindTheLastChunk":          {at: chunk, chunkSize: 100, nth: 6, other: chunk}, // each run has one, and an empty one
		"BehindARetrysLastChunk":      {at: chunk, chunkSize: 100, isRetried: true, nth: 6, other: chunk},
		"BeforeTheEnd":                {at: place{momentBefore, "SettlementRunFinish"}, nth: 1, other: taken},
	} {
		t.Run(name+"WritesNothing", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), 24)
			if tc.isRetried {
				w.settleInPart(ctx, t)
			}
			chunkSize := max(1, tc.chunkSize)
			frozen := w.freeze(ctx, t, order{ChunkSize: chunkSize, Nth: tc.nth, Place: tc.at})
			w.bury(ctx, t)
			other := w.freeze(ctx, t, order{ChunkSize: chunkSize, Nth: 1, Place: tc.other})

			w.holdJobs(ctx, t)
			before := w.everything(ctx, t)
			frozen.goOn(t)
			frozen.stop(t)
			require.True(t, frozen.hasSaid(reportTried), "it did not try to go on with its run, so nothing was shown")
			t.Logf("the first that it tried is %s", frozen.said(reportTried).Statement)
			require.Equal(t, before, w.everything(ctx, t))
			w.requireTrueBooks(ctx, t)

			w.releaseJobs(ctx, t)
			other.goOn(t)
			w.await(ctx, t, "all is to be settled", func() bool { return w.isSettled(ctx, t) || other.hasExited() })
			other.stop(t)
			w.requireSettled(ctx, t)
		})
	}
}

// freeze lets a process stop as ordered, and waits until the database has ended what
// it had begun.
func (w *world) freeze(ctx context.Context, t *testing.T, o order) *process {
	t.Helper()
	o.Act = actFreeze
	p := w.start(t, o)
	w.await(ctx, t, "a process is to stop", func() bool { return p.hasSaid(reportFrozen) || p.hasExited() })
	p.waitFor(t, reportFrozen)
	require.Eventually(t, func() bool { return p.isStopped(t) }, patience, poll)
	require.Eventually(t, func() bool {
		return w.count(ctx, t, `
			SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`) == 0
	}, patience, poll)
	return p
}

// holdJobs keeps all jobs that nobody has from everybody, also those that are given up
// from now on: a process that was thought dead would have them by right, and River takes
// its failure for that of the attempt that runs.
func (w *world) holdJobs(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, statement := range []string{
		`CREATE FUNCTION hold_job() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.scheduled_at := now() + interval '1 hour';
			NEW.state := 'scheduled';
			RETURN NEW;
		END $$`,
		"CREATE TRIGGER hold_job BEFORE UPDATE ON river_job FOR EACH ROW WHEN (NEW.state IN ('available', 'retryable')) EXECUTE FUNCTION hold_job()",
		"UPDATE river_job SET state = state WHERE state IN ('available', 'retryable')",
	} {
		w.exec(ctx, t, statement)
	}
}

func (w *world) releaseJobs(ctx context.Context, t *testing.T) {
	t.Helper()
	w.exec(ctx, t, "DROP TRIGGER hold_job ON river_job")
	w.exec(ctx, t, "UPDATE river_job SET scheduled_at = now(), state = 'available' WHERE state = 'scheduled'")
}

// everything is all that the settlements of the month have written. What failed is history that anybody
// may add to, and River's own rows are River's: it takes the failure of an attempt that
// it gave up for that of the one that runs.
func (w *world) everything(ctx context.Context, t *testing.T) string {
	t.Helper()
	return w.text(ctx, t, `
		WITH settled AS (SELECT run_id FROM settlement_results WHERE period = '`+period()+`')
		SELECT string_agg(line, E'\n' ORDER BY line) FROM (
			SELECT 'run ' || run::text AS line FROM settlement_run AS run WHERE run.id IN (SELECT run_id FROM settled)
			UNION ALL SELECT 'item ' || item::text FROM settlement_item AS item
			UNION ALL SELECT 'attempt ' || attempt::text FROM settlement_attempt AS attempt
			UNION ALL SELECT 'event ' || event::text FROM settlement_event AS event WHERE event.kind <> 'failed' AND event.run_id IN (SELECT run_id FROM settled)
			UNION ALL SELECT 'wallet ' || wallet::text FROM wallet
			UNION ALL SELECT 'entry ' || entry::text FROM ledger_entry AS entry
			UNION ALL SELECT 'txn ' || txn::text FROM ledger_txn AS txn
			UNION ALL SELECT 'told ' || told.id FROM outbox_event AS told
		) AS written`)
}
