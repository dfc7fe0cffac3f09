package freshness_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
)

// TestReadLoops_LockedTable locks a table of one service, as ALTER TABLE in a forgotten
// transaction does: only the loops of that service are unknown.
func TestReadLoops_LockedTable(t *testing.T) {
	t.Parallel()
	for table, service := range map[string]string{
		"outbox_delivery": "outbox",
		"outbox_shard":    "outbox",
		"programme":       "settlement",
		"settlement_run":  "settlement",
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			db := dbtest.Database(ctx, t)
			for _, each := range registered(ctx, t, db.Pool).Loops() {
				rows{ctx: ctx, db: db.Pool, t: t}.succeeded(each.Name, "other", 0)
			}
			before, err := freshness.ReadLoops(ctx, db.Pool)
			require.NoError(t, err)

			lock(ctx, t, db, table)
			after, err := freshness.ReadLoops(ctx, db.Pool)
			require.NoError(t, err)
			require.Len(t, after, len(before))
			numUnknown := 0
			for i, loop := range after {
				require.Equal(t, before[i].Loop, loop.Loop)
				require.Equal(t, before[i].Required, loop.Required)
				require.Equal(t, before[i].Queue, loop.Queue)
				if serviceOf(loop.Loop) != service {
					require.Equal(t, before[i].Verdict, loop.Verdict, loop.Loop)
					continue
				}
				numUnknown++
				require.Equal(t, freshness.VerdictUnknown, loop.Verdict, loop.Loop)
				require.Contains(t, *loop.LastError, service)
				require.Contains(t, *loop.LastError, "statement timeout")
			}
			require.Positive(t, numUnknown)
		})
	}
}

func serviceOf(name string) string {
	switch name {
	case "outbox_wallet", "outbox_rolling", "outbox_agent":
		return "outbox"
	case "settlement_rebate", "settlement_cashback", "settlement_lossback":
		return "settlement"
	default:
		return ""
	}
}

// lock holds a table until the test ends.
func lock(ctx context.Context, t *testing.T, db *dbtest.DB, table string) (release func()) {
	t.Helper()
	tx, err := db.Pool.Begin(ctx)
	require.NoError(t, err)
	release = func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }
	t.Cleanup(release)
	_, err = tx.Exec(ctx, `LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	return release
}

// TestMonitor_LockedTableOfAnotherService has a worker of the outbox stay ready while a
// table of settlement is locked, for longer than a snapshot may grow old.
func TestMonitor_LockedTableOfAnotherService(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setupMonitor(ctx, t, nil)
	fetching(ctx, bundle)
	bundle.ready(t)

	var lockedAt time.Time
	lock(ctx, t, bundle.db, "programme")
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&lockedAt))
	eventually(t, func() bool {
		bundle.rows.succeeded(loop, "other", 0)
		var beatsOn bool
		err := bundle.db.Pool.QueryRow(ctx, `SELECT seen_at > $1::timestamptz + interval '3 s' FROM worker_heartbeat`, lockedAt).Scan(&beatsOn)
		return err == nil && beatsOn && bundle.monitor.Ready().OK
	}, "the worker is ready three times as long after the lock as a snapshot may grow old")
}

// TestMonitor_LockedTable has a worker turn red for the loop that it cannot
// read, by name, and green again.
func TestMonitor_LockedTable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setupMonitor(ctx, t, nil)
	fetching(ctx, bundle)
	bundle.ready(t)

	release := lock(ctx, t, bundle.db, "outbox_delivery")
	answer := bundle.unready(t, freshness.CodeSnapshotStale)
	require.Equal(t, loop, answer.Reasons[0].Loop)
	require.Contains(t, answer.Reasons[0].Message, "could not be read")
	release()
	bundle.ready(t)
}
