package e2e_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWorker_Heartbeat(t *testing.T) {
	t.Parallel()

	t.Run("ACleanStopIsSeenAtOnce", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t, "TRUEGREEN_WORKER_ID=first")
		worker.waitReady(t)
		s.requireStatus(ctx, t, 0, "first")
		worker.stop(t, syscall.SIGTERM)

		out, err := s.run(ctx, t, "", "status")
		require.Equal(t, 2, exitCode(err), out)
		require.Contains(t, out, "no worker is ready")
		require.NotContains(t, out, "first")
		require.Equal(t, 1, s.count(ctx, t, `SELECT count(*) FROM worker_heartbeats WHERE stopped_at = seen_at AND ready_at < seen_at`))
	})

	t.Run("OneIDIsNotForTwo", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		// An id is free after six ticks of silence, which no load here may cause.
		const tick = "5s"
		worker := s.startWorker(t, "TRUEGREEN_WORKER_ID=same", "TRUEGREEN_TICK="+tick)
		worker.waitReady(t)

		second := []string{"worker", "--worker-id", "same", "--tick", tick}
		out, err := s.run(ctx, t, "", second...)
		require.Equal(t, 1, exitCode(err), out)
		for _, part := range []string{"TRUEGREEN_WORKER_ID", `worker id "same" belongs to another process`, "not seen for 30s"} {
			require.Contains(t, out, part)
		}

		// A process that died keeps its id until it has been silent for so long. Whoever
		// restarts it may do so at once.
		worker.stop(t, syscall.SIGKILL)
		_, err = s.database.Pool.Exec(ctx, `UPDATE worker_heartbeat SET seen_at = clock_timestamp() - interval '25 s'`)
		require.NoError(t, err)
		s.startWorker(t, "TRUEGREEN_WORKER_ID=same", "TRUEGREEN_TICK="+tick).waitReady(t)
	})
}
