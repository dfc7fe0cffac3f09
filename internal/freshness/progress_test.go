package freshness_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/freshness"
)

func newRecorder(t *testing.T, workerID string) *freshness.Recorder {
	t.Helper()
	recorder, err := freshness.NewRecorder(workerID)
	require.NoError(t, err)
	return recorder
}

func TestRecorder_Record(t *testing.T) {
	t.Parallel()

	record := func(ctx context.Context, t *testing.T, tx pgx.Tx, worker string, progress freshness.Progress) {
		t.Helper()
		progress.Loop = loop
		require.NoError(t, newRecorder(t, worker).Record(ctx, tx, progress))
	}
	failure := freshness.Progress{Err: errors.New("no broker"), Kind: freshness.Failure}
	success := freshness.Progress{Kind: freshness.Success}

	t.Run("SuccessIsProof", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		record(ctx, t, tx, "w1", success)
		require.Equal(t, freshness.VerdictIdle, statusOf(ctx, t, tx, loop).Verdict)
		record(ctx, t, tx, "w1", freshness.Progress{Kind: freshness.Success, NumItems: 3})
		require.Equal(t, freshness.VerdictOK, statusOf(ctx, t, tx, loop).Verdict)
		record(ctx, t, tx, "w1", success)
		require.Equal(t, freshness.VerdictIdle, statusOf(ctx, t, tx, loop).Verdict)
	})

	t.Run("NeutralIsNeither", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		record(ctx, t, tx, "w1", failure)
		record(ctx, t, tx, "w1", freshness.Progress{Kind: freshness.Neutral})
		status := statusOf(ctx, t, tx, loop)
		require.Nil(t, status.LastSuccessAt)
		require.Equal(t, 1, status.ConsecutiveFailures)
	})

	t.Run("CountsFailuresOfTheFleetSinceItsLastSuccess", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		failures := func() int { return statusOf(ctx, t, tx, loop).ConsecutiveFailures }
		record(ctx, t, tx, "w1", failure)
		record(ctx, t, tx, "w2", failure)
		record(ctx, t, tx, "w1", failure)
		require.Equal(t, 3, failures())
		record(ctx, t, tx, "w2", success)
		require.Equal(t, 0, failures())
		record(ctx, t, tx, "w1", failure)
		require.Equal(t, 1, failures(), "those before w2's success are over")
		record(ctx, t, tx, "w1", failure)
		require.Equal(t, 2, failures())
		require.Equal(t, "no broker", *statusOf(ctx, t, tx, loop).LastError)
	})

	t.Run("CountsFailuresOfItemsAgainstTheLoopAlone", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		failure := failure
		failure.OfItems = true
		record(ctx, t, tx, "w1", failure)
		record(ctx, t, tx, "w1", failure)
		require.Equal(t, 2, statusOf(ctx, t, tx, loop).ConsecutiveFailures)
		var numOwn int
		require.NoError(t, tx.QueryRow(ctx, `SELECT consecutive_failures FROM loop_progress WHERE worker_id = 'w1'`).Scan(&numOwn))
		require.Zero(t, numOwn)
	})

	t.Run("KnowsFailuresThatTheWholeFleetHad", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		isShared := func() bool {
			rows, err := dbsqlc.New().LoopProgressListOwn(ctx, tx, &dbsqlc.LoopProgressListOwnParams{Since: time.Unix(0, 0), WorkerID: "w1"})
			require.NoError(t, err)
			require.Len(t, rows, 1)
			return rows[0].IsShared
		}
		for range 3 {
			record(ctx, t, tx, "w1", failure)
			record(ctx, t, tx, "w2", failure)
		}
		require.False(t, isShared(), "nobody has succeeded since")
		record(ctx, t, tx, "w2", success)
		require.True(t, isShared())
		record(ctx, t, tx, "w1", failure)
		record(ctx, t, tx, "w2", success)
		require.False(t, isShared(), "w2 succeeded between two failures of w1")
	})

	t.Run("KeepsWhetherTheBrokerCausedTheLastOwnFailure", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		ofBroker, ofItems := failure, failure
		ofBroker.OfBroker, ofItems.OfItems = true, true
		for _, step := range []struct {
			progress freshness.Progress
			want     bool
		}{{failure, false}, {ofBroker, true}, {ofItems, true}, {failure, false}, {ofItems, false}} {
			record(ctx, t, tx, "w1", step.progress)
			rows, err := dbsqlc.New().LoopProgressListOwn(ctx, tx, &dbsqlc.LoopProgressListOwnParams{Since: time.Unix(0, 0), WorkerID: "w1"})
			require.NoError(t, err)
			require.Equal(t, step.want, rows[0].FailedByBroker)
		}
	})

	t.Run("StoresAnyText", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		record(ctx, t, tx, "w1", freshness.Progress{Err: errors.New("a\x00b\xff" + strings.Repeat("é", 5000)), Kind: freshness.Failure})
		text := *statusOf(ctx, t, tx, loop).LastError
		require.LessOrEqual(t, len(text), 2000)
		require.True(t, strings.HasPrefix(text, "abé"))
	})

	t.Run("RefusesAnUnknownLoopAndKind", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		require.ErrorContains(t, newRecorder(t, "w1").Record(ctx, tx, freshness.Progress{Loop: loop}), "kind 0")
		err := newRecorder(t, "w1").Record(ctx, tx, freshness.Progress{Kind: freshness.Success, Loop: "nowhere"})
		require.ErrorContains(t, err, "record progress of nowhere")
	})

	t.Run("RefusesAWorkerWithoutAName", func(t *testing.T) {
		t.Parallel()

		for _, name := range []string{"", "retired", strings.Repeat("x", 201)} {
			_, err := freshness.NewRecorder(name)
			require.True(t, fault.Is(err, fault.KindInvalid), name)
		}
	})
}

func TestReadLoops_Deletion(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	tx, rows := txBundle(ctx, t)
	require.NoError(t, newRecorder(t, "w1").Record(ctx, tx, freshness.Progress{Kind: freshness.Success, Loop: loop, NumItems: 1}))
	rows.job(loop, "completed", time.Second, 0, `{}`)
	before := statusOf(ctx, t, tx, loop)

	rows.exec(`DELETE FROM river_job`)
	after := statusOf(ctx, t, tx, loop)
	require.Equal(t, freshness.VerdictOK, after.Verdict, "the proof is not River's rows")
	require.Equal(t, before.LastSuccessAt, after.LastSuccessAt)
}

// TestWorkerHeartbeatRetire says what is kept of workers that are gone.
func TestWorkerHeartbeatRetire(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	tx, rows := txBundle(ctx, t)
	queries := dbsqlc.New()
	retire := func() int {
		var before, after int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM worker_heartbeat`).Scan(&before))
		numKept, err := queries.WorkerHeartbeatRetire(ctx, tx, &dbsqlc.WorkerHeartbeatRetireParams{RetireAfter: time.Hour})
		require.NoError(t, err)
		require.Zero(t, numKept)
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM worker_heartbeat`).Scan(&after))
		return before - after
	}
	workers := func() (names []string) {
		found, err := tx.Query(ctx, `SELECT worker_id FROM loop_progress WHERE loop = $1 ORDER BY worker_id`, loop)
		require.NoError(t, err)
		names, err = pgx.CollectRows(found, pgx.RowTo[string])
		require.NoError(t, err)
		return names
	}
	for worker, age := range map[string]time.Duration{"dead1": 2 * time.Hour, "dead2": 3 * time.Hour, "alive": time.Second} {
		rows.exec(`INSERT INTO worker_heartbeat (worker_id, queues, version, seen_at) VALUES ($1, '{}', 'v1', clock_timestamp() - $2::interval)`, worker, age)
	}
	rows.succeeded(loop, "dead1", 30*time.Second)
	rows.succeeded(loop, "dead2", 4*time.Hour)
	rows.succeeded(loop, "alive", 5*time.Hour)
	rows.succeeded("outbox_agent", "dead2", 3*time.Hour)
	lastSuccess := *statusOf(ctx, t, tx, loop).LastSuccessAt

	require.Equal(t, 2, retire())
	require.Equal(t, []string{"alive", "retired"}, workers())
	require.Equal(t, lastSuccess, *statusOf(ctx, t, tx, loop).LastSuccessAt)
	require.NotNil(t, statusOf(ctx, t, tx, "outbox_agent").LastSuccessAt)
	require.Equal(t, 0, retire())

	// One that died later, and succeeded earlier, takes nothing back.
	rows.exec(`UPDATE worker_heartbeat SET seen_at = clock_timestamp() - interval '61 min'`)
	require.Equal(t, 1, retire())
	require.Equal(t, []string{"retired"}, workers())
	require.Equal(t, lastSuccess, *statusOf(ctx, t, tx, loop).LastSuccessAt)

	known, err := freshness.ReadWorkers(ctx, tx)
	require.NoError(t, err)
	require.Empty(t, known)
}
