package e2e_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const outboxRolling = "outbox_rolling"

func isRed(loop string, codes ...string) func(answer) bool {
	return func(a answer) bool {
		for _, code := range codes {
			if a.Code == http.StatusServiceUnavailable && a.has(code, loop) {
				return true
			}
		}
		return false
	}
}

func isGreen(a answer) bool { return a.Code == http.StatusOK }

func TestWorker_Readiness(t *testing.T) {
	t.Parallel()

	t.Run("IsGreenWithNothingToDoAndPublishesWhatComes", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)

		s.appendEvent(ctx, t, "a-1")
		require.Eventually(t, func() bool {
			return s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published' AND broker_ref = 'TRUEGREEN_ROLLING/1'`) == 1
		}, patience, 10*time.Millisecond)
		require.Equal(t, http.StatusOK, worker.probe(t, "/livez").Code)
		require.Equal(t, http.StatusOK, worker.probe(t, "/startupz").Code)
		require.Equal(t, http.StatusOK, worker.probe(t, "/readyz").Code)
		worker.stop(t, syscall.SIGTERM)
		require.Equal(t, 0, worker.command.ProcessState.ExitCode(), worker.logs.String())
	})

	t.Run("TurnsRedWhileTheBrokerIsStoppedAndGreenAgain", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)

		s.broker.Stop()
		s.appendEvent(ctx, t, "a-1")
		red := worker.waitFor(t, "/readyz", "red for the loop", isRed(outboxRolling, "loop_failing", "loop_stalled"))
		require.NotEmpty(t, red.Reasons[0].Runbook)
		require.NotEmpty(t, red.Reasons[0].Message)
		require.Equal(t, http.StatusOK, worker.probe(t, "/livez").Code, "an outage elsewhere must not restart the process")

		// The loop runs all the while: jobs are worked and fail, and the row says
		// why. The outage is not held against the row.
		before := s.count(ctx, t, `SELECT count(*) FROM job_failures WHERE kind = 'outbox_rolling'`)
		require.Eventually(t, func() bool {
			return s.count(ctx, t, `SELECT count(*) FROM job_failures WHERE kind = 'outbox_rolling'`) > before
		}, patience, 20*time.Millisecond)
		require.Equal(t, 1, s.count(ctx, t, `
			SELECT count(*) FROM outbox_events
			WHERE state = 'pending' AND attempts > 0 AND failures = 0 AND last_error_class = 'infrastructure' AND parked_at IS NULL`))

		s.restartBroker(t)
		worker.waitFor(t, "/readyz", "green again", isGreen)
		require.Equal(t, 1, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published' AND failures = 0`))
		require.Len(t, s.messages(ctx, t, "TRUEGREEN_ROLLING"), 1)
	})

	t.Run("TurnsRedWhileTheBrokerAcceptsAndNeverAcknowledges", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		valve := newValve(t, hostOf(t, s.broker.URL()))
		s.brokerURL = "nats://" + valve.addr
		worker := s.startWorker(t)
		worker.waitReady(t)

		valve.set(true, toClient)
		s.appendEvent(ctx, t, "a-1")
		worker.waitFor(t, "/readyz", "red for the loop", isRed(outboxRolling, "loop_failing", "loop_stalled"))
		require.Equal(t, 0, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE published_at IS NOT NULL`))
		require.NotEmpty(t, s.messages(ctx, t, "TRUEGREEN_ROLLING"), "the broker has it, only its answer is missing")

		valve.set(false, toClient)
		worker.waitFor(t, "/readyz", "green again", isGreen)
		require.Equal(t, 1, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published' AND failures = 0`))
		require.Len(t, s.messages(ctx, t, "TRUEGREEN_ROLLING"), 1, "repeats must be known by their id")
	})

	t.Run("TurnsRedForOneStuckShardWhileTheOthersMove", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)

		stuck, moving := s.keyOfShard(ctx, t, 1), s.keyOfShard(ctx, t, 2)
		tx, err := s.database.Pool.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `SELECT FROM outbox_shard WHERE stream = 'rolling' AND shard = 1 FOR UPDATE`)
		require.NoError(t, err)

		s.appendEvent(ctx, t, stuck)
		red := worker.waitFor(t, "/readyz", "red for the loop", func(a answer) bool {
			s.appendEvent(ctx, t, moving)
			return isRed(outboxRolling, "lag_no_progress", "loop_stalled")(a)
		})
		require.Contains(t, red.Reasons[0].Message, "1", "the shard is named")
		require.Positive(t, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published' AND key = $1`, moving))
		require.Zero(t, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published' AND key = $1`, stuck))

		require.NoError(t, tx.Rollback(ctx))
		worker.waitFor(t, "/readyz", "green again", isGreen)
		require.Zero(t, s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state <> 'published' AND key = $1`, stuck))
	})

	t.Run("AnswersFromTheSnapshotWhileTheDatabaseHangs", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		valve := newValve(t, hostOf(t, s.database.URL))
		s.dbURL = strings.Replace(s.database.URL, hostOf(t, s.database.URL), valve.addr, 1)
		worker := s.startWorker(t)
		worker.waitReady(t)

		valve.set(true, toServer, toClient)
		worker.waitFor(t, "/readyz", "red for the database", func(a answer) bool {
			return isRed("", "db_unreachable")(a)
		})
		require.Equal(t, http.StatusOK, worker.probe(t, "/livez").Code)

		valve.set(false, toServer, toClient)
		worker.waitFor(t, "/readyz", "green again", isGreen)
		s.appendEvent(ctx, t, "a-1")
		require.Eventually(t, func() bool {
			return s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state = 'published'`) == 1
		}, patience, 10*time.Millisecond)
	})

	t.Run("StartsUnreadyWithoutABrokerAndTurnsGreenWhenItComes", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.broker.Stop()
		s.appendEvent(ctx, t, "a-1")
		worker := s.startWorker(t)
		worker.waitFor(t, "/startupz", "up", isGreen)
		worker.waitFor(t, "/readyz", "red for the loop", isRed(outboxRolling, "loop_failing", "loop_stalled", "starting"))

		s.restartBroker(t)
		worker.waitFor(t, "/readyz", "green", isGreen)
		require.Len(t, s.messages(ctx, t, "TRUEGREEN_ROLLING"), 1)
	})

	t.Run("HealthcheckSaysWhatTheProbeSays", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)
		for _, check := range []string{"ready", "live", "startup"} {
			out, err := s.run(ctx, t, "", "healthcheck", "--check="+check, "--url", worker.url)
			require.NoError(t, err, out)
		}
		worker.stop(t, syscall.SIGTERM)
		_, err := s.run(ctx, t, "", "healthcheck", "--check=live", "--url", worker.url)
		require.Error(t, err)
	})
}
