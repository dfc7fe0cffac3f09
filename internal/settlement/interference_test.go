package settlement_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/dbfactory"
	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
	"truegreen/internal/wallet"
)

func TestRunner_Work_Interference(t *testing.T) {
	t.Parallel()

	t.Run("ALockedWalletAloneIsLeftToTheNextPass", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.Backoff = 300 * time.Millisecond
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 7 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		release := bundle.lockWallet(ctx, t, numbered(4)) // in the second chunk of three
		bundle.work(ctx, t)

		runID := bundle.plan(ctx, t)
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE kind = 'settlement_cashback'") > 0
		}, patience, poll)
		require.Equal(t, 6, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE delivery = 'credited'"))
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE failure_code = 'wallet_locked' AND failure_class = 'transient'"))
		release()
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, []string{"completed"}, bundle.awaitJobs(ctx, t))
		require.Contains(t, scalar[string](ctx, t, bundle.db, "SELECT min(error) FROM job_failures"), "1 of 7 credits were not delivered")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("TransientFailuresToTheEndArePartialAndDiscarded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 4 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.lockWallet(ctx, t, numbered(3))
		bundle.work(ctx, t)

		result := bundle.settle(ctx, t)
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, 3, result.Attempt)
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		require.Contains(t, bundle.credits(ctx, t, result.RunID), "p-003=100:failed/wallet_locked")
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("TimeThatIsOverIsGoneOnWithByASuccessor", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.ChunkSize = 1
		config.Slice = time.Nanosecond // the smallest that is not the default: over at once
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 3 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)

		// Each job delivers one chunk; the last finds that nothing is left.
		result := bundle.settle(ctx, t)
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		require.Equal(t, []string{"completed", "completed", "completed", "completed"}, bundle.awaitJobs(ctx, t))
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM job_failures"))
		require.Equal(t, 3, bundle.count(ctx, t, "SELECT min(max_attempts) FROM river_job WHERE kind = 'settlement_cashback'"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("TheEndOfARunThatDeliveredForLongHasAJobOfItsOwn", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.Slice = time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		// The one chunk takes more than half of the job's time.
		bundle.exec(ctx, t, `
			CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END $$;
			CREATE TRIGGER take_long AFTER INSERT ON settlement_attempt FOR EACH STATEMENT EXECUTE FUNCTION take_long()`)
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t)
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		require.Equal(t, []string{"completed", "completed"}, bundle.awaitJobs(ctx, t))
	})

	t.Run("WhoIsExcludedWhileHisWalletIsWaitedForIsNotPaid", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		at := scalar[time.Time](ctx, t, bundle.db, "SELECT as_of FROM player WHERE code = 'a'")
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		dbfactory.Apply(ctx, t, tx, activity.Line{
			At: at.Add(time.Second), Currency: "KRW", Player: "a", Status: activity.StatusSelfExcluded, Type: activity.TypePlayer,
		})
		runID := bundle.plan(ctx, t)
		bundle.work(ctx, t)
		bundle.awaitLockWaits(ctx, t, 1)
		require.NoError(t, tx.Commit(ctx))
		require.Equal(t, "all_withheld", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, "a=0", bundle.balances(ctx, t))
	})

	t.Run("CreditsInFlightAreDeductedFromTheNextBasis", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly+"    less_promotions: true\n")
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		// Another run's chunk has locked its wallets within the week, and commits
		// only now.
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		require.NoError(t, dbsqlc.New().SettlementCreditsBegin(ctx, tx))
		var lock, flush pgtx.Pipeline
		book, err := wallet.New().Lock(ctx, &lock, wallet.Owners{Players: []string{"a"}})
		require.NoError(t, err)
		require.NoError(t, lock.Send(ctx, tx))
		require.NoError(t, book.Move(book.Account("a"), wallet.Movement{
			Amount: 400, At: weekEnd().Add(-time.Second), Kind: wallet.KindCredit, Reference: "gift/1",
		}))
		require.NoError(t, book.Flush(ctx, &flush))
		require.NoError(t, flush.Send(ctx, tx))

		runID := bundle.plan(ctx, t)
		bundle.work(ctx, t)
		bundle.awaitLockWaits(ctx, t, 1)
		require.NoError(t, tx.Commit(ctx))
		bundle.await(ctx, t, runID, "done")
		require.Equal(t, "a=60:credited", bundle.credits(ctx, t, runID))
	})

	t.Run("AReferenceThatIsBookedAlreadyAbortsTheRun", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 5 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		_, err := bundle.db.Pool.Exec(ctx, "INSERT INTO ledger_txn (at, kind, reference) VALUES (now(), 'credit', 'settle/weekly/2026-W45/p-003/KRW/0')")
		require.NoError(t, err)
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t)
		require.Equal(t, "aborted", result.State)
		require.Equal(t, "invariant", result.AbortReason)
		require.Contains(t, result.AbortDetail, "ledger_txn_reference_key")
		require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
		// What was paid stays paid, and what is owed is not given up.
		require.Equal(t, "p-000=100 p-001=100 p-002=100 p-003=0 p-004=0", bundle.balances(ctx, t))
		require.Equal(t, 2, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE delivery = 'pending'"))
		_, err = bundle.service.Plan(ctx, "weekly", week, "person")
		require.ErrorContains(t, err, "was aborted after it had begun to pay")
	})

	t.Run("ACreditThatTheLedgerDoesNotHaveEndsNoRunWell", func(t *testing.T) {
		t.Parallel()

		for name, change := range map[string]string{
			"AnItemThatSomebodyMarked": "UPDATE settlement_item SET attempts = 1, credited_at = now(), delivery = 'credited' WHERE player_id = (SELECT id FROM player WHERE code = 'p-002')",
			"AnotherAmount":            "UPDATE settlement_item SET amount_minor = 99 WHERE player_id = (SELECT id FROM player WHERE code = 'p-000')",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				config := defaultConfig()
				config.ChunkSize = 1
				config.LockTimeout = 15 * time.Second
				bundle := setup(ctx, t, config)
				bundle.programme(ctx, t, weekly)
				for n := range 3 {
					bundle.loser(ctx, t, numbered(n), 1000)
				}
				bundle.watermark(ctx, t, weekEnd())
				release := bundle.lockWallet(ctx, t, numbered(1))
				runID := bundle.plan(ctx, t)
				bundle.work(ctx, t)
				bundle.awaitLockWaits(ctx, t, 1)
				bundle.exec(ctx, t, change)
				release()
				result := bundle.await(ctx, t, runID, "done", "aborted")
				require.Equal(t, "invariant", result.AbortReason, "%+v", result)
				require.Equal(t, "1 of the items that it credited are not in the ledger with their reference, player and amount", result.AbortDetail)
				require.Equal(t, []string{"discarded"}, bundle.awaitJobs(ctx, t))
			})
		}
	})

	t.Run("APassThatWasCutOffBehindItsBeginningIsGoneOnWith", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, runID := cutOff(ctx, t, 1)
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 1, result.Attempt)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("APassThatWasCutOffWhereItBeganIsBegunAnew", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, runID := cutOff(ctx, t, 0)
		result := bundle.await(ctx, t, runID, "done")
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, 2, result.Attempt)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("ASecondJobLeavesTheRunToALivingOne", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		// The run's own job waits; another one comes first.
		_, err := bundle.db.Pool.Exec(ctx, "UPDATE river_job SET scheduled_at = now() + interval '1 hour', state = 'scheduled' WHERE kind = 'settlement_cashback'")
		require.NoError(t, err)
		other := scalar[int64](ctx, t, bundle.db, `
			INSERT INTO river_job (args, kind, max_attempts, queue)
			VALUES (jsonb_build_object('run_id', $1::bigint), 'settlement_cashback', 3, 'settlement_cashback') RETURNING id`, runID)
		bundle.work(ctx, t)
		require.Eventually(t, func() bool {
			job, err := bundle.client.JobGet(ctx, other)
			require.NoError(t, err)
			return job.State == rivertype.JobStateCompleted
		}, patience, poll)
		result, err := bundle.service.Get(ctx, runID)
		require.NoError(t, err)
		require.Equal(t, "planned", result.State)
		require.Equal(t, "true", scalar[string](ctx, t, bundle.db, "SELECT metadata #>> '{output,neutral}' FROM river_job WHERE id = $1", other))
	})

	t.Run("AnEpochThatWasTakenOverWritesNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 9 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		// Another attempt takes the run just when the first chunk is committed.
		_, err := bundle.db.Pool.Exec(ctx, `
			CREATE FUNCTION take_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.epoch := NEW.epoch + 1; RETURN NEW; END $$;
			CREATE TRIGGER take_over BEFORE UPDATE ON settlement_run FOR EACH ROW
				WHEN (OLD.cursor_player_id = 0 AND NEW.cursor_player_id > 0) EXECUTE FUNCTION take_over()`)
		require.NoError(t, err)
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t) // the job's next attempt takes it back
		require.Equal(t, "all_delivered", result.Outcome)
		require.Equal(t, strings.Repeat("100 ", 9), scalar[string](ctx, t, bundle.db, "SELECT string_agg(balance || ' ', '' ORDER BY player) FROM wallet_balances"))
		require.Equal(t, 1, bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE error LIKE '%the run was taken over by another job%'"))
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("AnAttemptThatRiverGaveUpTakesAndWritesNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.watermark(ctx, t, weekEnd())
		runID := bundle.plan(ctx, t)
		jobID := scalar[int64](ctx, t, bundle.db, "SELECT job_id FROM settlement_run WHERE id = $1", runID)
		for name, statement := range map[string]string{
			"it is not running":     "SELECT 1",
			"another attempt of it": "UPDATE river_job SET state = 'running', attempted_at = now() - interval '1 minute'",
		} {
			_, err := bundle.db.Pool.Exec(ctx, statement)
			require.NoError(t, err)
			_, err = bundle.runner.Work(ctx, settlement.Job{AttemptedAt: time.Now(), ID: jobID}, runID, nil)
			require.ErrorIs(t, err, settlement.ErrRunLost, name)
			require.Equal(t, "planned 0", scalar[string](ctx, t, bundle.db, "SELECT state || ' ' || epoch FROM settlement_run"), name)
		}
		require.Equal(t, "a=0", bundle.balances(ctx, t))
	})

	t.Run("AnAttemptThatRiverGivesUpMeanwhileWritesNothingMore", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		config := defaultConfig()
		config.LockTimeout = 15 * time.Second
		bundle := setup(ctx, t, config)
		bundle.programme(ctx, t, weekly)
		for n := range 6 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		release := bundle.lockWallet(ctx, t, numbered(1))
		runID := bundle.plan(ctx, t)
		bundle.work(ctx, t)
		bundle.awaitLockWaits(ctx, t, 1)
		// The rescue of a job that only seems dead, and its next attempt.
		_, err := bundle.db.Pool.Exec(ctx, "UPDATE river_job SET attempted_at = attempted_at + interval '1 second' WHERE kind = 'settlement_cashback'")
		require.NoError(t, err)
		release()
		require.Eventually(t, func() bool {
			return bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE error LIKE '%the run was taken over by another job%'") == 1
		}, patience, poll)
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("APlayerWithoutAWalletFailsAlone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.loser(ctx, t, "a", 1000)
		bundle.loser(ctx, t, "b", 1000)
		require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "DELETE FROM wallet WHERE player_id = (SELECT id FROM player WHERE code = 'b')")
			return err
		}))
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		result := bundle.settle(ctx, t)
		require.Equal(t, "partial", result.Outcome)
		require.Equal(t, "a=100:credited b=100:failed/wallet_missing", bundle.credits(ctx, t, result.RunID))
	})

	t.Run("LiveBetsGoOnBesideADelivery", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		for n := range 30 {
			bundle.loser(ctx, t, numbered(n), 1000)
		}
		bundle.watermark(ctx, t, weekEnd())
		bundle.work(ctx, t)
		runID := bundle.plan(ctx, t)
		for n := range 30 {
			bundle.apply(ctx, t, activity.Line{
				Amount: 7, At: dbfactory.Epoch().AddDate(0, 0, 20), ID: "late-" + numbered(n), Player: numbered(29 - n), Type: activity.TypeDeposit,
			})
		}
		require.Equal(t, "all_delivered", bundle.await(ctx, t, runID, "done").Outcome)
		require.Equal(t, 30, bundle.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE balance = 107"))
		bundle.requireTrueBooks(ctx, t)
	})
}

// cutOff kills a delivery, as far as a test of one process can: after so many
// chunks of one credit each, out of three. It then lets another attempt go on.
func cutOff(ctx context.Context, t *testing.T, numChunks int) (*testBundle, int64) {
	t.Helper()
	config := defaultConfig()
	config.ChunkSize = 1
	config.LockTimeout = 15 * time.Second
	bundle := setup(ctx, t, config)
	bundle.programme(ctx, t, weekly)
	for n := range 3 {
		bundle.loser(ctx, t, numbered(n), 1000)
	}
	bundle.watermark(ctx, t, weekEnd())
	release := bundle.lockWallet(ctx, t, numbered(numChunks))
	runID := bundle.plan(ctx, t)
	require.NoError(t, bundle.client.Start(ctx))
	bundle.awaitLockWaits(ctx, t, 1)
	require.NoError(t, bundle.client.StopAndCancel(ctx))
	release()
	// A process that stops well says that the pass is to be gone on with; one that
	// was killed does not.
	_, err := bundle.db.Pool.Exec(ctx, "UPDATE settlement_run SET is_sliced = false")
	require.NoError(t, err)
	bundle.work(ctx, t)
	return bundle, runID
}
