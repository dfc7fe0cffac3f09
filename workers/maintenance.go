package workers

import (
	"context"
	"time"

	"github.com/riverqueue/river"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/jobs"
)

// maintenanceWorker looks after the tables.
type maintenanceWorker struct {
	river.WorkerDefaults[jobs.MaintenanceArgs]
	keeper   *outbox.Keeper
	recorder *freshness.Recorder
}

// Work does one pass.
func (worker *maintenanceWorker) Work(ctx context.Context, job *river.Job[jobs.MaintenanceArgs]) error {
	_, err := worker.keeper.Keep(ctx, freshness.Completes(worker.recorder, job))
	return outcome(err)
}

// Timeout is the time of one pass.
func (worker *maintenanceWorker) Timeout(*river.Job[jobs.MaintenanceArgs]) time.Duration {
	return worker.keeper.Budget()
}
