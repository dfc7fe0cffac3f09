package workers

import (
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/settlement"
	"truegreen/jobs"
)

// Services are what the workers call.
type Services struct {
	Keeper   *outbox.Keeper
	Recorder *freshness.Recorder
	Relay    *outbox.Relay
	Runner   *settlement.Runner
	Streams  []outbox.Stream
	// TickBudget is how long one settlement tick may take.
	TickBudget time.Duration
}

// Register returns a worker for every kind of job that there is. Every process
// registers all of them, whichever queues it works: a leader discards stuck jobs
// of a kind that it does not know.
func Register(services Services) (*river.Workers, error) {
	workers := river.NewWorkers()
	// What this system runs:
	registered := errors.Join(
		add(workers, &maintenanceWorker{keeper: services.Keeper, recorder: services.Recorder}),
		addOutbox[jobs.OutboxAgentArgs](workers, services, outbox.StreamAgent),
		addOutbox[jobs.OutboxRollingArgs](workers, services, outbox.StreamRolling),
		addOutbox[jobs.OutboxWalletArgs](workers, services, outbox.StreamWallet),
		add(workers, &settlementWorker[jobs.SettlementCashbackArgs]{recorder: services.Recorder, runner: services.Runner}),
		add(workers, &settlementWorker[jobs.SettlementLossbackArgs]{recorder: services.Recorder, runner: services.Runner}),
		add(workers, &settlementWorker[jobs.SettlementRebateArgs]{recorder: services.Recorder, runner: services.Runner}),
		add(workers, &settlementTickWorker{budget: services.TickBudget, recorder: services.Recorder, runner: services.Runner}),
	)
	if registered != nil {
		return nil, registered
	}
	return workers, nil
}

func add[T river.JobArgs](workers *river.Workers, worker river.Worker[T]) error {
	if err := river.AddWorkerSafely(workers, worker); err != nil {
		return fmt.Errorf("register worker: %w", err)
	}
	return nil
}

func addOutbox[T outboxArgs](workers *river.Workers, services Services, name string) error {
	for _, stream := range services.Streams {
		if stream.Name == name {
			return add(workers, &outboxWorker[T]{recorder: services.Recorder, relay: services.Relay, stream: stream})
		}
	}
	return fmt.Errorf("register workers: the database does not know outbox stream %s", name)
}

// maxRuns is how many settlement runs of one kind of programme one process works
// side by side.
const maxRuns = 3

// Intervals are how often River's leader inserts each job that goes by the clock.
type Intervals struct {
	Maintenance    time.Duration
	SettlementTick time.Duration
}

// PeriodicJobs returns what River's leader inserts by the clock. Every process
// registers it, since any may lead. A tick that is lost costs no more than the
// time to the next: ticks ask the database what is due.
func PeriodicJobs(intervals Intervals) []*river.PeriodicJob {
	return []*river.PeriodicJob{
		periodic(intervals.Maintenance, jobs.MaintenanceArgs{}),
		periodic(intervals.SettlementTick, jobs.SettlementTickArgs{}),
	}
}

func periodic(interval time.Duration, args river.JobArgs) *river.PeriodicJob {
	return river.NewPeriodicJob(
		river.PeriodicInterval(interval),
		func() (river.JobArgs, *river.InsertOpts) { return args, nil },
		&river.PeriodicJobOpts{ID: args.Kind(), RunOnStart: true},
	)
}

// Queues returns how many jobs of each queue one process works at once. queues
// are the names of those that it should work.
func Queues(streams []outbox.Stream, queues []string) map[string]river.QueueConfig {
	configs := make(map[string]river.QueueConfig, len(queues))
	for _, queue := range queues {
		switch queue {
		case jobs.QueueMaintenance:
			configs[queue] = river.QueueConfig{MaxWorkers: 1}
		case jobs.QueueSettlementCashback, jobs.QueueSettlementLossback, jobs.QueueSettlementRebate:
			configs[queue] = river.QueueConfig{MaxWorkers: maxRuns}
		case jobs.QueueSettlementTick:
			// A tick that waits for another's locks must not keep the next from trying.
			configs[queue] = river.QueueConfig{MaxWorkers: 2}
		}
	}
	for _, stream := range streams {
		for _, queue := range queues {
			if stream.Queue == queue {
				// One drain per shard, and as many again that find their shard leased:
				// they must not wait behind the drains.
				configs[queue] = river.QueueConfig{MaxWorkers: 2 * stream.NumShards}
			}
		}
	}
	return configs
}
