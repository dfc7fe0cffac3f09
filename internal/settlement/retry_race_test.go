package settlement_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/settlement"
)

// gate lets every session wait that inserts into a table, until it is opened.
func (bundle *testBundle) gate(ctx context.Context, t *testing.T, table string) (open func()) {
	t.Helper()
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	bundle.exec(ctx, t, fmt.Sprintf(`
		CREATE FUNCTION gate_of_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM pg_advisory_xact_lock_shared(hashtext('%[1]s'));
			RETURN NEW;
		END $$;
		CREATE TRIGGER gate BEFORE INSERT ON %[1]s FOR EACH ROW EXECUTE FUNCTION gate_of_%[1]s()`, table))
	_, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", table)
	require.NoError(t, err)
	open = func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }
	t.Cleanup(open)
	return open
}

// besideARetry delivers, by a retry of a run, what b is owed, while another retry of the
// run is just asked for; frozen are those besides b whom the run could not pay. It
// returns when b has his credit and the other is about to be added, with the retry that
// paid him; add lets the other go on.
func besideARetry(ctx context.Context, t *testing.T, frozen ...string) (bundle *testBundle, first settlement.Result, add func() (settlement.Result, error)) {
	t.Helper()
	config := defaultConfig()
	config.LockTimeout = 15 * time.Second
	bundle = setup(ctx, t, config)
	bundle.programme(ctx, t, weekly)
	for _, code := range []string{"a", "b", "c"} {
		bundle.loser(ctx, t, code, 1000)
	}
	for _, code := range append(frozen, "b") {
		bundle.status(ctx, t, code, activity.StatusFrozen)
	}
	bundle.watermark(ctx, t, weekEnd())
	bundle.work(ctx, t)
	parent := bundle.settle(ctx, t)
	require.Equal(t, "partial", parent.Outcome)
	bundle.status(ctx, t, "b", activity.StatusActive)

	ask := settlement.Decision{By: "operator", Reason: "again", RunID: parent.RunID}
	pay := bundle.gate(ctx, t, "settlement_attempt")
	first, err := bundle.service.Retry(ctx, ask)
	require.NoError(t, err)
	bundle.awaitLockWaits(ctx, t, 1)
	open := bundle.gate(ctx, t, "settlement_run")
	var second settlement.Result
	asked := make(chan error, 1)
	go func() {
		var err error
		second, err = bundle.service.Retry(ctx, ask)
		asked <- err
	}()
	bundle.awaitLockWaits(ctx, t, 2)
	pay()
	require.Eventually(t, func() bool {
		return bundle.count(ctx, t, "SELECT count(*) FROM wallet_balances WHERE player = 'b' AND balance = 100") == 1
	}, patience, poll)
	return bundle, first, func() (settlement.Result, error) {
		open()
		err := <-asked
		return second, err
	}
}

func TestService_Retry_BesideAnother(t *testing.T) {
	t.Parallel()

	t.Run("IsToAttemptWhatTheOtherHasLeft", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, first, add := besideARetry(ctx, t, "c")
		_, err := bundle.service.Cancel(ctx, settlement.Decision{By: "operator", Reason: "enough", RunID: first.RunID})
		require.NoError(t, err)
		second, err := add()
		require.NoError(t, err)
		require.Equal(t, []int64{1, 100}, []int64{*second.Eligible, *second.EligibleAmount})
		require.Equal(t, "none_delivered", bundle.await(ctx, t, second.RunID, "done").Outcome)
		bundle.requireTrueBooks(ctx, t)
	})

	t.Run("IsRefusedAndHindersNoEnd", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, first, add := besideARetry(ctx, t)
		bundle.awaitLockWaits(ctx, t, 2)
		_, err := add()
		require.ErrorContains(t, err, "retry run 1: run 2 does it already, and is delivering")
		first = bundle.await(ctx, t, first.RunID, "done")
		require.Equal(t, "all_delivered", first.Outcome)
		require.Equal(t, 1, first.Attempt)
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM job_failures WHERE job_id = (SELECT job_id FROM settlement_run WHERE id = $1)", first.RunID))
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_run WHERE outcome = 'partial' AND acknowledged_at IS NULL"))
		bundle.requireTrueBooks(ctx, t)
	})
}
