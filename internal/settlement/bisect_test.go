package settlement_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRunner_Work_Bisects lets transactions fail for reasons that nobody expects: a
// constraint that somebody added, a connection that is cut.
func TestRunner_Work_Bisects(t *testing.T) {
	t.Parallel()

	// Every loser is credited 100.
	const poison = "ALTER TABLE wallet ADD CONSTRAINT poison CHECK (balance_minor <> 100 OR player_id NOT IN "

	t.Run("PoisonedItemsStandAloneAndAllOthersAreCredited", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 8
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 21 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.exec(ctx, t, poison+bundle.ids(ctx, t, numbered(2), numbered(3), numbered(20))+")")
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, 1, result.Attempt, "another pass would change nothing")
		require.Equal(t, int64(18), *result.Credited)
		require.Equal(t, 3, bundle.count(ctx, t, "SELECT count(*) FROM settlement_item WHERE failure_class = 'poison' AND failure_code = 'sqlstate_23514'"))
		require.Equal(t, 21, bundle.count(ctx, t, "SELECT count(*) FROM settlement_attempt"))
		require.Positive(t, bundle.logs.count("level=ERROR msg=\"settlement chunk failed for an unknown reason\""))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("NothingOfAChunkIsSystemic", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 4
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 12 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.exec(ctx, t, poison+bundle.ids(ctx, t, numbered(4), numbered(5), numbered(6), numbered(7))+")")
		bundle.work(ctx, t)

		runID := bundle.plan(ctx, t)
		result := bundle.await(ctx, t, runID, "aborted")
		require.Equal(t, "systemic", result.AbortReason)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Equal(t, 4, bundle.count(ctx, t, "SELECT count(*) FROM settlement_item WHERE delivery = 'credited'"), "what was paid stays paid")
		require.Equal(t, 4, bundle.count(ctx, t, "SELECT count(*) FROM settlement_item WHERE delivery = 'pending'"), "what comes after it is not tried")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("AFullDiskIsNoItemsFault", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, strings.Replace(weekly, "max_attempts: 3", "max_attempts: 20", 1))
		for n := range 5 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.exec(ctx, t, `CREATE FUNCTION fill_disk() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN RAISE EXCEPTION ''could not extend file'' USING ERRCODE = ''53100''; END'`)
		bundle.exec(ctx, t, "CREATE TRIGGER fill_disk BEFORE UPDATE ON wallet FOR EACH ROW EXECUTE FUNCTION fill_disk()")
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE error LIKE '%credit a chunk: ERROR: could not extend file%'") > 0
		}, patience, poll)
		bundle.exec(ctx, t, "DROP TRIGGER fill_disk ON wallet")
		result := bundle.await(ctx, t, runID, "done", "aborted")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_attempt WHERE result = 'failed'"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("MoreFailuresThanBadItemsCanMakeAreSystemic", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 1 // of which none can be found to have nothing else
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 205 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.exec(ctx, t, "ALTER TABLE wallet ADD CONSTRAINT poison CHECK (balance_minor <> 100)")
		bundle.work(ctx, t)

		result := bundle.await(ctx, t, bundle.plan(ctx, t), "aborted")
		require.Equal(t, "systemic", result.AbortReason)
		require.Contains(t, result.AbortDetail, "201 transactions of one job failed")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ABookingThatLeavesSomethingOutAbortsTheRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 5 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		// A trigger of somebody's that swallows the change of one wallet, in the second chunk.
		bundle.exec(ctx, t, `CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
		bundle.exec(ctx, t, `CREATE TRIGGER swallow BEFORE UPDATE ON wallet FOR EACH ROW WHEN (NEW.player_id IN `+bundle.ids(ctx, t, numbered(3))+`) EXECUTE FUNCTION swallow()`)
		bundle.work(ctx, t)
		result := bundle.await(ctx, t, bundle.plan(ctx, t), "aborted")
		require.Equal(t, "invariant", result.AbortReason)
		require.Contains(t, result.AbortDetail, "of 2 claimed items 2 were credited with 200, but 1 wallets were moved")
		require.Equal(t, 3, bundle.count(ctx, t, "SELECT count(*) FROM ledger_txn WHERE kind = 'credit'"), "the chunk is rolled back whole")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("AConnectionThatIsCutInAChunkCreditsNobodyTwice", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.LockTimeout = patience / 2
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 7 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		release := bundle.lockWallet(ctx, t, numbered(4)) // in the second chunk of three
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		bundle.awaitLockWaits(ctx, t, 1)
		bundle.exec(ctx, t, `
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%settlement_credit_chunk%'`)
		release()
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, int64(700), *result.CreditedAmount)
		bundle.requireTrueBooks(ctx, t)
	})
}
