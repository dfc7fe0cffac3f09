package workers

import (
	"errors"
	"fmt"

	"github.com/riverqueue/river"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/jobs"
)

// Services are what the workers call.
type Services struct {
	Recorder *freshness.Recorder
	Relay    *outbox.Relay
	Streams  []outbox.Stream
}

// Register returns a worker for every kind of job that there is. Every process
// registers all of them, whichever queues it works: a leader discards stuck jobs
// of a kind that it does not know.
func Register(services Services) (*river.Workers, error) {
	workers := river.NewWorkers()
	// What this system runs:
	return workers, errors.Join(
		addOutbox[jobs.OutboxAgentArgs](workers, services, outbox.StreamAgent),
		addOutbox[jobs.OutboxRollingArgs](workers, services, outbox.StreamRolling),
		addOutbox[jobs.OutboxWalletArgs](workers, services, outbox.StreamWallet),
	)
}

func addOutbox[T outboxArgs](workers *river.Workers, services Services, name string) error {
	for _, stream := range services.Streams {
		if stream.Name == name {
			worker := &outboxWorker[T]{recorder: services.Recorder, relay: services.Relay, stream: stream}
			if err := river.AddWorkerSafely(workers, worker); err != nil {
				return fmt.Errorf("register worker of outbox stream %s: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("register workers: the database does not know outbox stream %s", name)
}

// Queues returns how many jobs of each queue one process works at once. queues
// are the names of those that it should work.
func Queues(streams []outbox.Stream, queues []string) map[string]river.QueueConfig {
	configs := make(map[string]river.QueueConfig, len(queues))
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
