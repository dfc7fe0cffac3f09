package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// Recorder stores what a pass achieved, in the pass's own transaction.
type Recorder interface {
	Record(ctx context.Context, tx pgx.Tx, progress freshness.Progress) error
}

// Relay drains shards of streams to a broker.
type Relay struct {
	config    Config
	limits    *claimLimits
	pool      *pgxpool.Pool
	prover    *Prover
	publisher Publisher
	recorder  Recorder
}

// NewRelay returns a relay, or says which setting is out of bounds.
func NewRelay(pool *pgxpool.Pool, publisher Publisher, recorder Recorder, config Config) (*Relay, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure outbox relay: %w", err)
	}
	prover := newProver(publisher, config, func(ctx context.Context) ([]Stream, error) { return Streams(ctx, pool) })
	return &Relay{config: config, limits: newClaimLimits(&config), pool: pool, prover: prover, publisher: publisher, recorder: recorder}, nil
}

// Prover is what the relay knows of its broker.
func (relay *Relay) Prover() *Prover { return relay.prover }

// PassBudget is how long a pass may take: the timeout of its job.
func (relay *Relay) PassBudget() time.Duration { return relay.config.PassBudget }

// RetryDelay is how long after its given attempt an errored job should come
// back: when its events and its shard may be tried again, and a little later.
func (relay *Relay) RetryDelay(attempt int) time.Duration {
	return relay.config.retryDelay(attempt) + 200*time.Millisecond
}

// Pass is one drain of one shard, on behalf of one attempt of a job.
type Pass struct {
	Attempt  int                  // the job's, from 1
	Complete freshness.Completion // progress and the job's end, in one transaction
	Shard    int
	Stream   Stream
}

// DrainResult counts what a pass did.
type DrainResult struct {
	FirstID      int64  `json:"first_id,omitempty"` // the lowest id that was claimed
	LastID       int64  `json:"last_id,omitempty"`  // the highest
	NumDuplicate int    `json:"num_duplicate"`      // acknowledged, but known to the broker before
	NumFailed    int    `json:"num_failed"`         // sent and not acknowledged
	NumParked    int    `json:"num_parked"`         // of those, how many need a person now
	NumPublished int    `json:"num_published"`      // acknowledged
	NumSent      int    `json:"num_sent"`           // handed to the broker
	Shard        int    `json:"shard"`
	Stream       string `json:"stream"`
	Yielded      bool   `json:"yielded"` // the shard was leased, or at rest
}

// note widens the range of what was claimed.
func (result *DrainResult) note(events []Event) {
	for i := range events {
		if result.FirstID == 0 {
			result.FirstID = events[i].ID
		}
		result.FirstID = min(result.FirstID, events[i].ID)
		result.LastID = max(result.LastID, events[i].ID)
	}
}

// ErrLeaseLost says that another worker has taken the shard over. What the broker
// acknowledged was marked all the same.
var ErrLeaseLost = errors.New("the shard's lease was lost")

// Drain leases the shard of pass and publishes what is due in it, until nothing
// more is due or the pass's time is over.
//
// It returns nil only after a transaction that completed the job: everything that
// was claimed is acknowledged, or nothing was due, or the shard was not to be had
// (Yielded), or time was over and a successor was inserted. Everything else is
// an error that names the counts and the first events, and does not complete the
// job; what was acknowledged until then stays marked.
//
// A ctx that is done ends the pass at the next answer of the broker: what is in
// flight is waited for and marked, the rest is not sent.
func (relay *Relay) Drain(ctx context.Context, pass Pass) (DrainResult, error) {
	lease, err := queries.OutboxShardLease(ctx, relay.pool, &dbsqlc.OutboxShardLeaseParams{
		AwakeFor:   awakeFor,
		LeaseOwner: relay.config.WorkerID,
		LeaseTtl:   relay.config.LeaseTTL,
		Shard:      int32(pass.Shard),
		Stream:     pass.Stream.Name,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return relay.yield(ctx, pass)
	}
	if err == nil && lease.LeaseEpoch == 0 {
		err = fmt.Errorf("the lease of a free shard was not stored: %w", pgtx.ErrRowCount)
	}
	if err != nil {
		return DrainResult{}, fmt.Errorf("lease shard %d of %s: %w", pass.Shard, pass.Stream.Name, relay.fail(ctx, pass, err))
	}

	drain := &drain{
		batchLimit: relay.config.BatchSize,
		closedKeys: []string{}, // nil would be NULL, of which nothing is known
		epoch:      lease.LeaseEpoch,
		pass:       pass,
		relay:      relay,
		result:     DrainResult{Shard: pass.Shard, Stream: pass.Stream.Name},
		started:    time.Now(),
	}
	drain.limit = relay.limits.of(drain.shardName())
	if lease.BatchLimit != nil {
		drain.batchLimit = min(int(*lease.BatchLimit), relay.config.BatchSize)
	}
	if lease.InflightNum != nil {
		if err := drain.takeOver(ctx, lease); err != nil {
			return drain.result, fmt.Errorf("drain shard %d of %s: %w", pass.Shard, pass.Stream.Name, err)
		}
	}
	if err := drain.run(ctx); err != nil {
		drain.giveBack(ctx)
		return drain.result, fmt.Errorf("drain shard %d of %s: %w", pass.Shard, pass.Stream.Name, err)
	}
	return drain.result, nil
}

// fail records a pass that could not begin, and returns cause.
func (relay *Relay) fail(ctx context.Context, pass Pass, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err := pgtx.Do(ctx, relay.pool, func(tx pgx.Tx) error {
		return relay.recorder.Record(ctx, tx, freshness.Progress{Err: cause, Kind: freshness.Failure, Loop: pass.Stream.Loop()})
	})
	return errors.Join(cause, err)
}

// yield completes a job whose shard another worker drains, or which rests after
// an outage. That proves nothing, and is recorded so.
func (relay *Relay) yield(ctx context.Context, pass Pass) (DrainResult, error) {
	err := pgtx.Do(ctx, relay.pool, func(tx pgx.Tx) error {
		return pass.Complete(ctx, tx, freshness.Progress{
			Kind: freshness.Neutral,
			Loop: pass.Stream.Loop(),
		})
	})
	if err != nil {
		return DrainResult{}, fmt.Errorf("yield shard %d of %s: %w", pass.Shard, pass.Stream.Name, err)
	}
	return DrainResult{Shard: pass.Shard, Stream: pass.Stream.Name, Yielded: true}, nil
}
