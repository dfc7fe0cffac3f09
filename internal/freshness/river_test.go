package freshness_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
)

// passArgs are jobs of a loop, for workers of the test's own.
type passArgs struct {
	N int `json:"n"`
}

func (passArgs) Kind() string { return loop }

func (passArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: 20, Queue: loop}
}

type passWorker struct {
	river.WorkerDefaults[passArgs]
	work func(ctx context.Context, job *river.Job[passArgs]) error
}

func (worker *passWorker) Work(ctx context.Context, job *river.Job[passArgs]) error {
	return worker.work(ctx, job)
}

func (*passWorker) NextRetry(*river.Job[passArgs]) time.Time {
	return time.Now().Add(100 * time.Millisecond)
}

func (*passWorker) Timeout(*river.Job[passArgs]) time.Duration { return time.Minute }

// startRiver starts a real client that works the queue of the loop, two jobs at a
// time, until the test ends. process may be nil.
func startRiver(
	ctx context.Context, t *testing.T, db *dbtest.DB, process *freshness.Process,
	work func(ctx context.Context, job *river.Job[passArgs]) error,
) *river.Client[pgx.Tx] {
	t.Helper()
	workers := river.NewWorkers()
	river.AddWorker(workers, &passWorker{work: work})
	config := &river.Config{
		FetchCooldown:     10 * time.Millisecond,
		FetchPollInterval: 50 * time.Millisecond,
		Logger:            slog.New(slog.DiscardHandler),
		Queues:            map[string]river.QueueConfig{loop: {MaxWorkers: 2}},
		Workers:           workers,
	}
	if process != nil {
		config.Plugins = []rivertype.Plugin{process}
	}
	client, err := river.NewClient(riverpgxv5.New(db.Pool), config)
	require.NoError(t, err)
	require.NoError(t, client.Start(context.WithoutCancel(ctx)))
	if process != nil {
		process.RiverStarted()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.StopAndCancel(ctx)
	})
	return client
}

// eventually waits for condition, which may ask the database.
func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, 30*time.Second, 20*time.Millisecond, what)
}
