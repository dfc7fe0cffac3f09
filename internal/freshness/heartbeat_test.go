package freshness_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
	"truegreen/migrations"
)

// another is a second monitor with the same worker id, which has not run. Its tick makes
// an id free after 30 s.
func (bundle *monitorBundle) another(t *testing.T) *freshness.Monitor {
	t.Helper()
	latest, err := migrations.Latest()
	require.NoError(t, err)
	process, err := freshness.NewProcess(freshness.ProcessConfig{})
	require.NoError(t, err)
	monitor, err := freshness.NewMonitor(process, freshness.MonitorConfig{
		Database: parseDatabase(t, bundle.db.URL), SchemaVersion: latest, Version: "v2", WorkerID: "w1",
	})
	require.NoError(t, err)
	return monitor
}

// heartbeat is the row of w1.
func (bundle *monitorBundle) heartbeat(ctx context.Context, t *testing.T) (status freshness.WorkerStatus) {
	t.Helper()
	workers, err := freshness.ReadWorkers(ctx, bundle.db.Pool)
	require.NoError(t, err)
	for _, worker := range workers {
		if worker.WorkerID == "w1" {
			status = worker
		}
	}
	return status
}

func TestMonitor_Stop(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setupMonitor(ctx, t, nil)
	fetching(ctx, bundle)
	bundle.ready(t)
	eventually(t, func() bool { return bundle.heartbeat(ctx, t).ReadyAt != nil }, "the process is seen ready")
	require.Nil(t, bundle.heartbeat(ctx, t).StoppedAt)

	bundle.stop()
	last := bundle.heartbeat(ctx, t)
	require.NotNil(t, last.StoppedAt)
	require.Equal(t, last.SeenAt, *last.StoppedAt)
	require.True(t, last.ReadyAt.Before(last.SeenAt), "a stopped process is not ready")
	require.Equal(t, []string{"draining"}, last.Reasons)

	// Its id is free at once.
	require.NoError(t, bundle.another(t).Begin(ctx))
	require.Nil(t, bundle.heartbeat(ctx, t).StoppedAt)
	require.Nil(t, bundle.heartbeat(ctx, t).ReadyAt)
}

func TestMonitor_Begin(t *testing.T) {
	t.Parallel()

	t.Run("RefusesTheIDOfALiveProcess", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		eventually(t, func() bool { return bundle.heartbeat(ctx, t).WorkerID == "w1" }, "the first process is seen")
		before := bundle.heartbeat(ctx, t)

		err := bundle.another(t).Begin(ctx)
		var taken *freshness.TakenError
		require.ErrorAs(t, err, &taken)
		require.ErrorContains(t, err, `worker id "w1" belongs to another process, which started at `)
		require.ErrorContains(t, err, "free once the other process has stopped, or was not seen for 30s")
		require.True(t, before.StartedAt.Equal(taken.StartedAt))
		require.Equal(t, "v1", bundle.heartbeat(ctx, t).Version, "the row stays the first one's")
	})

	t.Run("TakesTheIDOfAProcessThatDied", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		bundle.ended(ctx, t)
		for age, isFree := range map[time.Duration]bool{25 * time.Second: false, 31 * time.Second: true} {
			bundle.rows.exec(`UPDATE worker_heartbeat SET seen_at = clock_timestamp() - $1::interval, stopped_at = NULL, started_at = '2026-01-01'`, age)
			err := bundle.another(t).Begin(ctx)
			if isFree {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
		}
	})

	t.Run("TakesTheIDOfAProcessWhoseClockWasAhead", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		bundle.ended(ctx, t)
		bundle.rows.exec(`UPDATE worker_heartbeat SET seen_at = clock_timestamp() + interval '10 minutes', stopped_at = NULL`)
		require.NoError(t, bundle.another(t).Begin(ctx))
	})
}

// ended stops the monitor once its heartbeat is there.
func (bundle *monitorBundle) ended(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return bundle.heartbeat(ctx, t).WorkerID == "w1" }, "the process is seen")
	bundle.stop()
}

func TestMonitor_WorkerIDTaken(t *testing.T) {
	t.Parallel()

	t.Run("TurnsTheLoserRedAndLetsItHaveAFreeID", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)

		// The other one started while this one was frozen, and beats.
		var answer freshness.Answer
		eventually(t, func() bool {
			bundle.rows.exec(`UPDATE worker_heartbeat SET started_at = '2026-01-01', seen_at = clock_timestamp(), version = 'v2'`)
			answer = bundle.monitor.Ready()
			return !answer.OK
		}, "the loser is unready")
		require.Equal(t, freshness.CodeWorkerIDTaken, answer.Reasons[0].Code)
		require.Contains(t, answer.Reasons[0].Message, `worker id "w1" belongs to another process`)
		require.True(t, bundle.monitor.Live().OK)

		bundle.rows.exec(`UPDATE worker_heartbeat SET stopped_at = clock_timestamp()`)
		bundle.ready(t)
		require.Equal(t, "v1", bundle.heartbeat(ctx, t).Version)
	})

	t.Run("IsNotWhatASwallowedBeatIsCalled", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, func(bundle *monitorBundle, _ *freshness.MonitorConfig) {
			bundle.rows.exec(`CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
			bundle.rows.exec(`CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON worker_heartbeat FOR EACH ROW EXECUTE FUNCTION swallow()`)
		})
		require.ErrorContains(t, bundle.another(t).Begin(ctx), "stored no heartbeat of worker w1")
	})
}
