package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"truegreen/internal/freshness"
	"truegreen/internal/settlement"
	"truegreen/jobs"
)

// settlementArgs are the args of a job that works one run, of whichever kind of
// programme.
type settlementArgs interface {
	river.JobArgs
	SettlementRunID() int64
}

// settlementWorker takes runs of one kind of programme as far as they can go.
type settlementWorker[T settlementArgs] struct {
	river.WorkerDefaults[T]
	recorder *freshness.Recorder
	runner   *settlement.Runner
}

// Work takes the job's run as far as it can go.
func (worker *settlementWorker[T]) Work(ctx context.Context, job *river.Job[T]) error {
	if job.AttemptedAt == nil {
		return outcome(fmt.Errorf("work job %d: it was never attempted", job.ID))
	}
	attempt := settlement.Job{AttemptedAt: *job.AttemptedAt, ID: job.ID}
	verdict, err := worker.runner.Work(ctx, attempt, job.Args.SettlementRunID(), freshness.Completes(worker.recorder, job))
	if err != nil && verdict != nil {
		err = errors.Join(err, freshness.Report(ctx, verdict.Summary()))
	}
	return outcome(err)
}

// NextRetry is when a run may be tried again.
func (worker *settlementWorker[T]) NextRetry(job *river.Job[T]) time.Time {
	return time.Now().Add(worker.runner.RetryDelay(job.Attempt))
}

// Timeout is the time of one slice of a run.
func (worker *settlementWorker[T]) Timeout(*river.Job[T]) time.Duration {
	return worker.runner.JobTimeout()
}

// settlementTickWorker gives due periods their runs, and runs their jobs.
type settlementTickWorker struct {
	river.WorkerDefaults[jobs.SettlementTickArgs]
	budget   time.Duration
	recorder *freshness.Recorder
	runner   *settlement.Runner
}

// Work looks for what is due.
func (worker *settlementTickWorker) Work(ctx context.Context, job *river.Job[jobs.SettlementTickArgs]) error {
	_, err := worker.runner.Tick(ctx, freshness.Completes(worker.recorder, job))
	return outcome(err)
}

// Timeout is the time of one tick.
func (worker *settlementTickWorker) Timeout(*river.Job[jobs.SettlementTickArgs]) time.Duration {
	return worker.budget
}
