package freshness_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/pgconnect"
	"truegreen/migrations"
)

// monitorBundle is a monitor of one process that works the queue of one loop, on
// a database whose loops have all just succeeded. Its tick is 100 ms.
type monitorBundle struct {
	db      *dbtest.DB
	monitor *freshness.Monitor
	process *freshness.Process
	rows    rows
	stop    context.CancelFunc // ends Run
}

func setupMonitor(ctx context.Context, t *testing.T, change func(bundle *monitorBundle, config *freshness.MonitorConfig)) *monitorBundle {
	t.Helper()
	process, err := freshness.NewProcess(freshness.ProcessConfig{Queues: []freshness.ProcessQueue{
		{MaxWorkers: 2, Name: loop, Timeout: time.Minute},
	}})
	require.NoError(t, err)
	return setupMonitorOf(ctx, t, process, change)
}

func setupMonitorOf(
	ctx context.Context, t *testing.T, process *freshness.Process,
	change func(bundle *monitorBundle, config *freshness.MonitorConfig),
) *monitorBundle {
	t.Helper()
	db := dbtest.Database(ctx, t)
	registry := registered(ctx, t, db.Pool)
	bundle := &monitorBundle{db: db, process: process, rows: rows{ctx: ctx, db: db.Pool, t: t}}
	for _, each := range registry.Loops() {
		bundle.rows.succeeded(each.Name, "other", time.Second)
	}
	latest, err := migrations.Latest()
	require.NoError(t, err)
	config := freshness.MonitorConfig{
		Database:      parseDatabase(t, db.URL),
		SchemaVersion: latest,
		Tick:          100 * time.Millisecond,
		Version:       "v1",
		WorkerID:      "w1",
	}
	if change != nil {
		change(bundle, &config)
	}
	bundle.monitor, err = freshness.NewMonitor(process, config)
	require.NoError(t, err)

	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		bundle.monitor.Run(runCtx)
	}()
	bundle.stop = func() {
		stop()
		<-ended
	}
	t.Cleanup(bundle.stop)
	return bundle
}

func parseDatabase(t *testing.T, url string) *pgconnect.Database {
	t.Helper()
	database, err := pgconnect.Parse(url)
	require.NoError(t, err)
	return database
}

// fetching plays River, which fetches from the queue all the time.
func fetching(ctx context.Context, bundle *monitorBundle) {
	bundle.process.RiverStarted()
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			bundle.process.MetricEmit(ctx, &rivertype.HookMetricEmitParams{
				Metric: &rivertype.JobGetAvailableCountMetric{Queue: loop},
			})
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

func (bundle *monitorBundle) ready(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return bundle.monitor.Ready().OK }, "the process gets ready")
}

// unready waits for a reason.
func (bundle *monitorBundle) unready(t *testing.T, code freshness.Code) freshness.Answer {
	t.Helper()
	var answer freshness.Answer
	eventually(t, func() bool {
		answer = bundle.monitor.Ready()
		return !answer.OK && slices.Contains(codes(answer.Reasons), code)
	}, "the process gets unready for "+string(code))
	return answer
}

func TestMonitor_Ready(t *testing.T) {
	t.Parallel()

	t.Run("GreenWhenItsLoopsMove", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		require.False(t, bundle.monitor.Startup().OK, "River does not run yet")
		require.True(t, bundle.monitor.Live().OK)
		fetching(ctx, bundle)
		bundle.ready(t)
		require.True(t, bundle.monitor.Startup().OK)

		var answer map[string]any
		encoded, err := json.Marshal(bundle.monitor.Ready())
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(encoded, &answer))
		require.Equal(t, "ready", answer["status"])
		require.Equal(t, "w1", answer["worker"])
		require.Equal(t, []any{}, answer["reasons"])
		require.Contains(t, []any{"ok", "slow"}, answer["db"])
		require.NotNil(t, answer["snapshot_age"])
	})

	t.Run("RedWithAStalledLoopAndGreenAfterItsNextSuccess", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)

		bundle.rows.baseline(loop, time.Hour)
		bundle.rows.succeeded(loop, "other", time.Hour)
		answer := bundle.unready(t, freshness.CodeLoopStalled)
		require.Equal(t, loop, answer.Reasons[0].Loop)
		require.Equal(t, "1m0s", answer.Reasons[0].Thresholds["red_after"])
		require.Equal(t, "docs/runbooks/loop-stalled.md", answer.Reasons[0].Runbook)

		bundle.rows.succeeded(loop, "other", 0)
		bundle.ready(t)
	})

	t.Run("RedWhenItFailsItselfAndOthersDoNot", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)
		bundle.rows.failed(loop, "w1", 3, 0)
		bundle.rows.succeeded(loop, "other", 0)
		answer := bundle.unready(t, freshness.CodeOwnFailures)
		require.Contains(t, answer.Reasons[0].Message, "no broker")
	})

	t.Run("FailuresOfAnEarlierProcessOfItsNameDoNotCount", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, func(bundle *monitorBundle, _ *freshness.MonitorConfig) {
			bundle.rows.failed(loop, "w1", 9, time.Second)
		})
		fetching(ctx, bundle)
		bundle.ready(t)
	})

	t.Run("RedAtOnceWhileDraining", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)
		bundle.monitor.Drain()
		answer := bundle.monitor.Ready()
		require.False(t, answer.OK)
		require.Equal(t, freshness.CodeDraining, answer.Reasons[0].Code)
		require.True(t, bundle.monitor.Live().OK)
	})

	t.Run("RedWhenNobodyJudges", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)
		bundle.stop()
		bundle.unready(t, freshness.CodeSnapshotStale)
		eventually(t, func() bool { return !bundle.monitor.Live().OK }, "a process that judges nothing wants a restart")
	})

	t.Run("APauseMadeAndEndedInRiverMovesTheBaseline", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)
		bundle.rows.exec(`INSERT INTO river_queue (name, paused_at) VALUES ($1, now())`, loop)
		bundle.rows.baseline(loop, time.Hour)
		bundle.rows.succeeded(loop, "other", time.Hour)
		eventually(t, func() bool {
			return slices.Equal([]freshness.Code{freshness.CodePaused}, codes(bundle.monitor.Ready().Info))
		}, "the pause is seen")

		bundle.rows.exec(`UPDATE river_queue SET paused_at = NULL`)
		eventually(t, func() bool {
			var moved bool
			err := bundle.db.Pool.QueryRow(ctx, `
				SELECT baseline_at > now() - interval '1 min' FROM loop_contract WHERE loop = $1
			`, loop).Scan(&moved)
			return err == nil && moved
		}, "the age counts from the resume")
	})
}

func TestMonitor_Database(t *testing.T) {
	t.Parallel()

	t.Run("AnswersFromMemoryWhileTheDatabaseHangs", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		var between *proxy
		bundle := setupMonitor(ctx, t, func(bundle *monitorBundle, config *freshness.MonitorConfig) {
			var through string
			between, through = newProxy(t, bundle.db.URL)
			config.Database = parseDatabase(t, through)
		})
		fetching(ctx, bundle)
		bundle.ready(t)

		between.freeze(true)
		answer := bundle.unready(t, freshness.CodeDBUnreachable)
		require.Equal(t, freshness.DBUnreachable, answer.DB)
		require.True(t, bundle.monitor.Live().OK, "an outage must not restart the process")
		require.True(t, bundle.monitor.Startup().OK)

		// One answer that asked the database would take longer than all of these.
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			for range 10_000 {
				bundle.monitor.Ready()
				bundle.monitor.Live()
				bundle.monitor.Startup()
			}
		}()
		select {
		case <-answered:
		case <-time.After(20 * time.Second):
			require.Fail(t, "an answer waited for the database")
		}

		between.freeze(false)
		bundle.rows.succeeded(loop, "other", 0)
		bundle.ready(t)
	})

	t.Run("TellsALockedTableFromALostDatabase", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)

		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `LOCK TABLE outbox_delivery IN ACCESS EXCLUSIVE MODE`)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(ctx) }()
		eventually(t, func() bool {
			answer := bundle.monitor.Ready()
			return slices.Contains(codes(answer.Reasons), freshness.CodeSnapshotStale) && answer.DB == freshness.DBSlow
		}, "the loops are unknown, and the database is there")
		require.NoError(t, tx.Rollback(ctx))
		bundle.ready(t)
	})

	t.Run("LeavesAReadOnlyServerForOneThatWrites", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		var database string
		var pool *pgxpool.Pool
		isReadOnly := func() (is bool) {
			require.NoError(t, pool.QueryRow(ctx, `SELECT current_setting('transaction_read_only')::boolean`).Scan(&is))
			return is
		}
		bundle := setupMonitor(ctx, t, func(bundle *monitorBundle, config *freshness.MonitorConfig) {
			database = pgx.Identifier{bundle.db.Pool.Config().ConnConfig.Database}.Sanitize()
			bundle.rows.exec(`ALTER DATABASE ` + database + ` SET default_transaction_read_only = on`)
			var err error
			pool, err = pgxpool.New(ctx, bundle.db.URL)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			require.True(t, isReadOnly())
			config.Pools = map[string]freshness.PoolStat{"services": pool}
		})
		fetching(ctx, bundle)
		answer := bundle.unready(t, freshness.CodeDBReadOnly)
		require.Equal(t, freshness.DBReadOnly, answer.DB)

		// Connections keep the setting that they were made with, and restarting all
		// processes at once for it is what nobody wants.
		bundle.rows.exec(`ALTER DATABASE ` + database + ` RESET default_transaction_read_only`)
		eventually(t, func() bool {
			require.True(t, bundle.monitor.Live().OK)
			return bundle.monitor.Ready().OK
		}, "the process gets ready")
		require.False(t, isReadOnly(), "the pools were reset")
	})

	t.Run("RefusesASchemaOlderThanItNeeds", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, func(_ *monitorBundle, config *freshness.MonitorConfig) {
			config.SchemaVersion = 90_000
		})
		fetching(ctx, bundle)
		bundle.unready(t, freshness.CodeSchemaMismatch)
		require.False(t, bundle.monitor.Startup().OK)
	})

	t.Run("RefusesASchemaThatRefusesIt", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, nil)
		fetching(ctx, bundle)
		bundle.ready(t)
		bundle.rows.exec(`UPDATE schema_requirement SET min_binary = 90000`)
		bundle.unready(t, freshness.CodeSchemaMismatch)
		require.True(t, bundle.monitor.Startup().OK, "it had started")
	})

	t.Run("RefusesADatabaseWithoutSchema", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, func(_ *monitorBundle, config *freshness.MonitorConfig) {
			config.Database = parseDatabase(t, dbtest.Empty(ctx, t).URL)
		})
		fetching(ctx, bundle)
		answer := bundle.unready(t, freshness.CodeSchemaMismatch)
		require.Equal(t, "0", answer.Reasons[0].Observed["database_has"])
	})
}

func TestMonitor_Heartbeat(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setupMonitor(ctx, t, nil)
	beat := func() (status freshness.WorkerStatus) {
		workers, err := freshness.ReadWorkers(ctx, bundle.db.Pool)
		require.NoError(t, err)
		if len(workers) == 1 {
			return workers[0]
		}
		return status
	}
	eventually(t, func() bool { return beat().WorkerID == "w1" }, "the process is seen before it is ready")
	require.Nil(t, beat().ReadyAt)
	require.Equal(t, []string{"starting"}, beat().Reasons)
	require.Equal(t, []string{loop}, beat().Queues)
	require.Equal(t, "v1", beat().Version)

	fetching(ctx, bundle)
	bundle.ready(t)
	eventually(t, func() bool { return beat().ReadyAt != nil && len(beat().Reasons) == 0 }, "the process is seen ready")

	bundle.monitor.Drain()
	eventually(t, func() bool { return slices.Equal(beat().Reasons, []string{"draining"}) }, "the process is seen draining")
	last := beat()
	eventually(t, func() bool { return beat().SeenAt.After(last.SeenAt) }, "seen_at moves on")
	require.Equal(t, last.ReadyAt, beat().ReadyAt, "ready_at does not")
}

// TestMonitor_River watches a real client.
func TestMonitor_River(t *testing.T) {
	t.Parallel()

	t.Run("SeesThatNothingIsFetched", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setupMonitor(ctx, t, func(_ *monitorBundle, config *freshness.MonitorConfig) {
			config.FetchPoll = 50 * time.Millisecond
		})
		client := startRiver(ctx, t, bundle.db, bundle.process, func(context.Context, *river.Job[passArgs]) error { return nil })
		bundle.ready(t)
		require.NoError(t, client.StopAndCancel(ctx))
		answer := bundle.unready(t, freshness.CodeFetchStalled)
		require.Equal(t, loop, answer.Reasons[0].Queue)
	})

	t.Run("SeesThatEverySlotIsStuck", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		process, err := freshness.NewProcess(freshness.ProcessConfig{Queues: []freshness.ProcessQueue{
			{MaxWorkers: 2, Name: loop, Timeout: 200 * time.Millisecond},
		}})
		require.NoError(t, err)
		bundle := setupMonitorOf(ctx, t, process, func(_ *monitorBundle, config *freshness.MonitorConfig) {
			config.FetchPoll = 50 * time.Millisecond
		})
		release := make(chan struct{})
		client := startRiver(ctx, t, bundle.db, bundle.process, func(context.Context, *river.Job[passArgs]) error {
			// Deaf to its context, as a hung driver is.
			<-release
			panic("stuck jobs may end by a panic")
		})
		bundle.ready(t)
		for n := range 2 {
			_, err := client.Insert(ctx, passArgs{N: n}, nil)
			require.NoError(t, err)
		}
		bundle.unready(t, freshness.CodeSlotsStuck)
		eventually(t, func() bool {
			live := bundle.monitor.Live()
			return !live.OK && live.Reasons[0].Code == freshness.CodeSlotsStuck
		}, "slots that stay stuck want a restart")

		close(release)
		eventually(t, func() bool { return bundle.monitor.Live().OK }, "slots that were given back do not")
	})
}
