package workers

import (
	"context"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

// outboxArgs are the args of a publish job, of whichever stream.
type outboxArgs interface {
	river.JobArgs
	OutboxShard() int
}

// outboxWorker publishes one stream: a kind for each, so that each has its own
// queue, loop and backlog.
type outboxWorker[T outboxArgs] struct {
	river.WorkerDefaults[T]
	recorder *freshness.Recorder
	relay    *outbox.Relay
	stream   outbox.Stream
}

// Work drains the job's shard.
func (worker *outboxWorker[T]) Work(ctx context.Context, job *river.Job[T]) error {
	shard := job.Args.OutboxShard()
	if shard < 0 || shard >= worker.stream.NumShards {
		return outcome(fmt.Errorf("drain shard %d of %s: there are shards 0 to %d", shard, worker.stream.Name, worker.stream.NumShards-1))
	}
	_, err := worker.relay.Drain(ctx, outbox.Pass{
		Attempt:  job.Attempt,
		Complete: freshness.Completes(worker.recorder, job),
		Shard:    shard,
		Stream:   worker.stream,
	})
	return outcome(err)
}

// NextRetry is when the events and the shard of an errored job may be tried
// again.
func (worker *outboxWorker[T]) NextRetry(job *river.Job[T]) time.Time {
	return time.Now().Add(worker.relay.RetryDelay(job.Attempt))
}

// Timeout is the time of one pass.
func (worker *outboxWorker[T]) Timeout(*river.Job[T]) time.Duration {
	return worker.relay.PassBudget()
}
