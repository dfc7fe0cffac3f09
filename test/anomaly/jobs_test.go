package anomaly_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
	"truegreen/workers"
)

const (
	patience = time.Minute

	// workQueue is where the one job of a trial is put, so that jobs which it
	// inserts are left alone.
	workQueue = "anomaly"

	// maxAgain is how many further attempts may finish the work.
	maxAgain = 12
)

// jobCase is an operation that one attempt of a job is.
type jobCase struct {
	kind       string
	publisher  outbox.Publisher // nil for the trial's own
	outbox     outbox.Config
	prepare    func(ctx context.Context, t *testing.T, trial *trial) // before each run; may be nil
	settlement settlement.Config
}

// operation makes a case of a job. What it lacks are setup and state.
func (job jobCase) operation(name string) *operation {
	return &operation{
		covers: []string{"job " + job.kind},
		finish: job.finish,
		name:   name,
		run: func(ctx context.Context, t *testing.T, trial *trial) outcome {
			id := scalar[int64](ctx, t, trial.db, "SELECT min(id) FROM river_job WHERE kind = $1 AND finalized_at IS NULL", job.kind)
			return job.work(ctx, t, trial, id)
		},
	}
}

// registerLoops does what a worker does at its start.
func registerLoops(ctx context.Context, t *testing.T, db *dbtest.DB) {
	t.Helper()
	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
}

// work runs one attempt of a job, by a real client whose own connections do not
// pass the proxy.
func (job jobCase) work(ctx context.Context, t *testing.T, trial *trial, id int64) outcome {
	t.Helper()
	ctx = context.WithoutCancel(ctx) // River's jobs are cancelled by stopping the client
	if job.prepare != nil {
		job.prepare(ctx, t, trial)
	}
	client := job.client(ctx, t, trial)
	exec(ctx, t, trial.db, "UPDATE river_job SET queue = $2, scheduled_at = now(), state = 'available' WHERE id = $1", id, workQueue)
	ended, unsubscribe := client.Subscribe(river.EventKindJobCancelled, river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobSnoozed)
	defer unsubscribe()
	stopped := make(chan struct{})
	trial.cancel = func() {
		go func() {
			defer close(stopped)
			_ = client.StopAndCancel(ctx)
		}()
	}
	require.NoError(t, client.Start(ctx))
	select {
	case <-ended:
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the job did not come to an end")
	}
	require.NoError(t, client.StopAndCancel(ctx))

	var got outcome
	var state string
	err := trial.db.Pool.QueryRow(ctx, `
		SELECT job.state::text, coalesce(job.errors[cardinality(job.errors)] ->> 'error', ''),
			EXISTS (SELECT FROM worker_freshness WHERE kind = job.kind AND last_success_at IS NOT NULL)
		FROM river_job AS job WHERE job.id = $1`, id).Scan(&state, &got.err, &got.succeeded)
	require.NoError(t, err)
	require.NotContains(t, []string{"cancelled", "running"}, state, "a failed attempt is an errored one")
	if state == "completed" {
		got.err = ""
	}
	got.unfinished = state != "completed" && got.err == ""
	return got
}

// client makes the services with connections through the proxy, and a client
// that works the queue of the trial.
func (job jobCase) client(ctx context.Context, t *testing.T, trial *trial) *river.Client[pgx.Tx] {
	t.Helper()
	pool := throughProxy(ctx, t, trial)
	recorder, err := freshness.NewRecorder("worker-1")
	require.NoError(t, err)
	config := job.outbox
	config.Linger, config.WorkerID = 4*time.Millisecond, "worker-1"
	publisher := job.publisher
	if publisher == nil {
		publisher = trial.broker
	}
	relay, err := outbox.NewRelay(pool, publisher, recorder, config)
	require.NoError(t, err)
	keeper, err := outbox.NewKeeper(pool, recorder, outbox.KeeperConfig{})
	require.NoError(t, err)
	streams, err := outbox.Streams(ctx, trial.db.Pool)
	require.NoError(t, err)
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: silent()})
	require.NoError(t, err)
	service, err := settlement.New(pool, inserter, job.settlement)
	require.NoError(t, err)
	registered, err := workers.Register(workers.Services{
		Keeper: keeper, Recorder: recorder, Relay: relay, Runner: settlement.NewRunner(service, recorder, silent()),
		Streams: streams, TickBudget: patience,
	})
	require.NoError(t, err)
	client, err := river.NewClient(riverpgxv5.New(trial.db.Pool), &river.Config{
		CancelledJobRetentionPeriod: -1,
		DiscardedJobRetentionPeriod: -1,
		FetchCooldown:               time.Millisecond,
		FetchPollInterval:           20 * time.Millisecond,
		Logger:                      silent(),
		Queues:                      map[string]river.QueueConfig{workQueue: {MaxWorkers: 1}},
		Workers:                     registered,
	})
	require.NoError(t, err)
	return client
}

// throughProxy is a pool whose connections pass the trial's proxy.
func throughProxy(ctx context.Context, t *testing.T, trial *trial) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(trial.proxy.URL())
	require.NoError(t, err)
	config.MaxConns = 6
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// finish runs undisturbed attempts, and lets the time pass that they wait for,
// until no job of the kind is left.
func (job jobCase) finish(ctx context.Context, t *testing.T, trial *trial) {
	t.Helper()
	trial.proxy.Arm(anomalyNone)
	if trial.link != nil {
		trial.link.lose(0, false)
	}
	for range maxAgain {
		// As a tick gives another job to a run whose job has failed for good.
		exec(ctx, t, trial.db, `
			UPDATE river_job SET finalized_at = NULL, max_attempts = max_attempts + 1, state = 'available'
			WHERE state = 'discarded' AND id IN (SELECT job_id FROM settlement_run WHERE state NOT IN ('aborted', 'done'))`)
		exec(ctx, t, trial.db, "UPDATE outbox_shard SET backoff_until = NULL WHERE backoff_until IS NOT NULL")
		exec(ctx, t, trial.db, "UPDATE outbox_shard SET lease_expires_at = clock_timestamp() WHERE lease_owner IS NOT NULL")
		exec(ctx, t, trial.db, "UPDATE outbox_delivery SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")
		id := scalar[*int64](ctx, t, trial.db, "SELECT min(id) FROM river_job WHERE kind = $1 AND finalized_at IS NULL", job.kind)
		if id == nil {
			return
		}
		job.work(ctx, t, trial, *id)
	}
	t.Fatalf("%d attempts have not finished the work; the last one: %s", maxAgain, scalar[string](ctx, t, trial.db,
		"SELECT string_agg(concat_ws(' ', id, state, errors[cardinality(errors)] ->> 'error'), '; ') FROM river_job WHERE kind = $1", job.kind))
}
