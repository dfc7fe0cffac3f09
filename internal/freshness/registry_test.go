package freshness_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/fault"
	"truegreen/internal/freshness"
)

func TestNew(t *testing.T) {
	t.Parallel()

	base := func() freshness.Loop {
		return freshness.Loop{
			Budget: 10 * time.Second, Interval: 5 * time.Second, JobKind: "a", Name: "a", Queue: "a",
		}
	}
	t.Run("DerivesThresholds", func(t *testing.T) {
		t.Parallel()

		registry, err := freshness.New(freshness.Config{Loops: []freshness.Loop{base()}})
		require.NoError(t, err)
		require.Equal(t, 45*time.Second, registry.Loops()[0].LateAfter)
		require.Equal(t, 60*time.Second, registry.Loops()[0].RedAfter)
	})

	refused := map[string]struct {
		change func(*freshness.Loop)
		text   string
	}{
		"LessThanTwoPassesToRed": {
			func(loop *freshness.Loop) { loop.RedAfter = 59 * time.Second },
			"loop a: RedAfter must be at least 1m0s, which is 2 × (Interval + Budget) + Slack, got 59s",
		},
		"LateBelowOnePass": {
			func(loop *freshness.Loop) { loop.LateAfter = 14 * time.Second },
			"loop a: LateAfter must be from 15s",
		},
		"LateAboveRed": {
			func(loop *freshness.Loop) { loop.LateAfter = 61 * time.Second },
			"loop a: LateAfter must be from 15s",
		},
		"NoInterval": {
			func(loop *freshness.Loop) { loop.Interval = 0 },
			"Interval and Budget must be above 0",
		},
		"BadName": {
			func(loop *freshness.Loop) { loop.Name = "A" },
			`got "A"`,
		},
	}
	for name, test := range refused {
		t.Run("Refuses"+name, func(t *testing.T) {
			t.Parallel()

			loop := base()
			test.change(&loop)
			_, err := freshness.New(freshness.Config{Loops: []freshness.Loop{loop}})
			require.ErrorContains(t, err, test.text)
		})
	}

	t.Run("RefusesTwoLoopsOfOneQueue", func(t *testing.T) {
		t.Parallel()

		other := base()
		other.Name, other.JobKind = "b", "b"
		_, err := freshness.New(freshness.Config{Loops: []freshness.Loop{base(), other}})
		require.ErrorContains(t, err, `loop b: Queue must be its own, got "a", which loop a has`)
	})
}

func TestRegistry_Register(t *testing.T) {
	t.Parallel()

	t.Run("KeepsBaselineAndPause", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, rows := txBundle(ctx, t)
		rows.exec(`UPDATE loop_contract SET paused_at = now(), paused_by = 'kim', pause_reason = 'move' WHERE loop = $1`, loop)
		before := statusOf(ctx, t, tx, loop)

		registered(ctx, t, tx)
		require.Equal(t, before.BaselineAt, statusOf(ctx, t, tx, loop).BaselineAt)
		require.True(t, statusOf(ctx, t, tx, loop).Paused)
	})

	t.Run("StoresNewThresholds", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		loops := freshness.DefaultLoops()
		loops[0].RedAfter = 2 * time.Minute
		registry, err := freshness.New(freshness.Config{Loops: loops})
		require.NoError(t, err)
		require.NoError(t, registry.Register(ctx, tx))
		require.Equal(t, 2*time.Minute, statusOf(ctx, t, tx, loop).RedAfter)
	})

	t.Run("MissesALoopThatNeverRan", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		loops, err := freshness.ReadLoops(ctx, tx)
		require.NoError(t, err)
		var seen []string
		for _, status := range loops {
			seen = append(seen, status.Loop+" "+string(status.Verdict))
		}
		require.Equal(t, []string{
			"outbox_wallet stalled", "outbox_rolling stalled", "outbox_agent stalled", "settlement_tick stalled",
			"settlement_rebate idle", "settlement_cashback idle", "settlement_lossback idle", "maintenance stalled",
		}, seen)
	})
}

func TestPause(t *testing.T) {
	t.Parallel()

	client := func(t *testing.T) *river.Client[pgx.Tx] {
		t.Helper()
		client, err := river.NewClient(riverpgxv5.New(nil), &river.Config{})
		require.NoError(t, err)
		return client
	}
	decision := freshness.Decision{By: "kim", Loop: loop, Reason: "broker moves"}

	t.Run("PausesLoopAndQueueAndResumesBoth", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		queuePaused := func() (paused bool) {
			require.NoError(t, tx.QueryRow(ctx, `SELECT paused_at IS NOT NULL FROM river_queue WHERE name = $1`, loop).Scan(&paused))
			return paused
		}
		require.NoError(t, freshness.Pause(ctx, tx, client(t), decision))
		status := statusOf(ctx, t, tx, loop)
		require.Equal(t, freshness.VerdictPaused, status.Verdict)
		require.Equal(t, "kim", *status.PausedBy)
		require.True(t, queuePaused())

		require.NoError(t, freshness.Resume(ctx, tx, client(t), decision))
		after := statusOf(ctx, t, tx, loop)
		require.False(t, after.Paused)
		require.False(t, queuePaused())
		require.True(t, after.BaselineAt.After(status.BaselineAt), "a resume moves the baseline")
		require.Equal(t, freshness.VerdictStarting, after.Verdict)
	})

	t.Run("ResumeOfALoopThatRunsMovesNothing", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		require.NoError(t, freshness.Resume(ctx, tx, client(t), decision))
		require.Equal(t, freshness.VerdictStalled, statusOf(ctx, t, tx, loop).Verdict)
	})

	t.Run("WantsNameReasonAndLoop", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, _ := txBundle(ctx, t)
		require.True(t, fault.Is(freshness.Pause(ctx, tx, client(t), freshness.Decision{By: "kim", Loop: loop}), fault.KindInvalid))
		require.True(t, fault.Is(freshness.Resume(ctx, tx, client(t), freshness.Decision{Loop: loop}), fault.KindInvalid))
		nowhere := freshness.Decision{By: "kim", Loop: "nowhere", Reason: "x"}
		require.True(t, fault.Is(freshness.Pause(ctx, tx, client(t), nowhere), fault.KindNotFound))
		require.True(t, fault.Is(freshness.Resume(ctx, tx, client(t), nowhere), fault.KindNotFound))
	})
}

// TestPause_RunningClient shows that a client that works the queue obeys.
func TestPause_RunningClient(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Database(ctx, t)
	registered(ctx, t, db.Pool)
	worked := make(chan int64, 10)
	client := startRiver(ctx, t, db, nil, func(_ context.Context, job *river.Job[passArgs]) error {
		worked <- job.ID
		return nil
	})
	decide := func(act func(tx pgx.Tx) error) {
		tx, err := db.Pool.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, act(tx))
		require.NoError(t, tx.Commit(ctx))
	}
	decision := freshness.Decision{By: "kim", Loop: loop, Reason: "broker moves"}

	decide(func(tx pgx.Tx) error { return freshness.Pause(ctx, tx, client, decision) })
	require.Eventually(t, func() bool {
		queue, err := client.QueueGet(ctx, loop)
		return err == nil && queue.PausedAt != nil
	}, 10*time.Second, 10*time.Millisecond)
	decide(func(tx pgx.Tx) error { return freshness.Resume(ctx, tx, client, decision) })
	_, err := client.Insert(ctx, passArgs{}, nil)
	require.NoError(t, err)
	select {
	case <-worked:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the queue was not resumed")
	}
}
