package settlement_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/settlement"
)

// TestRunner_Work_Swallowed: the database may keep a statement from its rows without an
// error. Whatever table it is, the run must not look like one that paid.
func TestRunner_Work_Swallowed(t *testing.T) {
	t.Parallel()

	t.Run("Control", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle, runID, work := setupSwallow(ctx, t)
		require.NoError(t, work())
		result, err := bundle.service.Get(ctx, runID)
		require.NoError(t, err)
		require.Equal(t, "all_delivered", result.Outcome)
	})

	for _, tc := range []struct{ table, event string }{
		{"ledger_entry", "INSERT"},
		{"ledger_txn", "INSERT"},
		{"loop_progress", "INSERT"},
		{"outbox_delivery", "INSERT"},
		{"outbox_event", "INSERT"},
		{"settlement_attempt", "INSERT"},
		{"settlement_event", "INSERT"},
		{"settlement_item", "INSERT"},
		{"settlement_item", "UPDATE"},
		{"settlement_run", "UPDATE"},
		{"wallet", "UPDATE"},
	} {
		for _, way := range dbtest.Ways {
			if way == "rule" && tc.table == "settlement_item" && tc.event == "INSERT" {
				continue // they are copied into it, and rules are not asked about that
			}
			t.Run(tc.table+"_"+tc.event+"_"+way, func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				bundle, runID, work := setupSwallow(ctx, t)
				dbtest.Swallow(ctx, t, bundle.db.Pool, way, tc.table, tc.event)

				require.Error(t, work())
				result, err := bundle.service.Get(ctx, runID)
				require.NoError(t, err)
				require.NotEqual(t, "all_delivered", result.Outcome)
				require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM settlement_credits WHERE delivery = 'credited'"))
			})
		}
	}
}

// setupSwallow returns a run that pays four players when it is worked.
func setupSwallow(ctx context.Context, t *testing.T) (bundle *testBundle, runID int64, work func() error) {
	t.Helper()
	bundle = setup(ctx, t, quickConfig())
	bundle.programme(ctx, t, weekly)
	for n := range 4 {
		bundle.loser(ctx, t, numbered(n), 1000)
	}
	bundle.watermark(ctx, t, weekEnd())
	runID = bundle.plan(ctx, t)
	recorder, err := freshness.NewRecorder("test")
	require.NoError(t, err)
	var job settlement.Job
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `
		UPDATE river_job SET attempt = 1, attempted_at = now(), state = 'running' WHERE kind = 'settlement_cashback' RETURNING id, attempted_at
	`).Scan(&job.ID, &job.AttemptedAt))
	return bundle, runID, func() error {
		_, err := bundle.runner.Work(ctx, job, runID, recorder.Record)
		return err
	}
}
