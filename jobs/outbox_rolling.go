package jobs

import "github.com/riverqueue/river"

// OutboxRollingArgs asks for one shard of the rolling outbox to be drained.
//
// Inserted by: outbox_append, in the transaction of the event, and the sweep.
// Unique by:   nothing; the shard's lease lets one worker drain it at a time.
// Twice:       harmless; the second finds the shard leased, or nothing due.
type OutboxRollingArgs struct {
	// Shard is outbox_shard.shard, from 0.
	Shard int `json:"shard"`
}

// Kind names the job on the wire.
func (OutboxRollingArgs) Kind() string { return "outbox_rolling" }

// InsertOpts are the queue and the number of attempts.
func (OutboxRollingArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: OutboxMaxAttempts, Queue: QueueOutboxRolling}
}

// OutboxShard is the shard to drain.
func (args OutboxRollingArgs) OutboxShard() int { return args.Shard }
