package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

const (
	// awakeFor is how long appends may rely on a leaseholder that last said so.
	awakeFor = time.Second

	// awakeGrace is left between giving that promise back and the last look: an
	// append that read the promise has committed by then, if it is short. For
	// longer ones there is the sweep.
	awakeGrace = 10 * time.Millisecond

	// markTimeout bounds the transaction that stores a batch's outcomes, also
	// when the pass itself is to stop.
	markTimeout = 5 * time.Second

	// nap is how long a pass waits before it looks again after it found nothing, or so
	// little that a batch would cost more than its events.
	nap = 3 * time.Millisecond

	// longNap is how long it waits after a batch that was small, but of several events:
	// where more come than latency is worth, fewer batches leave more to appends.
	longNap = 10 * time.Millisecond

	// severalEvents is from how many events on the wait is a longer one, and smallBatch
	// from how many on there is none: the next batch is claimed at once.
	severalEvents = 6
	smallBatch    = 100

	// maxNamedFailures is how many events an error names.
	maxNamedFailures = 3
)

// drain is one pass that holds a lease.
type drain struct {
	afterPlace int64    // places up to here were seen in this round
	batchLimit int      // below the batch size while the shard recovers from crashes
	claimed    claimed  // the last claim
	closedKeys []string // keys of which an event failed: the next pass's
	epoch      int64
	failures   []string // the first few, in words
	lastBatch  int      // how many events the last batch had
	inFlight   bool     // events were handed to the broker, and what became of them is not stored
	leaseEnd   time.Time
	limit      claimLimit
	outage     error // why no further event can be sent now
	pass       Pass
	relay      *Relay
	result     DrainResult
	seen       horizon
	started    time.Time
	unmarked   error // outcomes that the database did not keep
}

func (drain *drain) run(ctx context.Context) error {
	events, err := drain.claim(ctx, drain.relay.pool)
	if err != nil {
		return err
	}
	for {
		if len(events) == 0 {
			events, err = drain.lookAgain(ctx)
			if err != nil && ctx.Err() != nil {
				return drain.interrupt(ctx)
			}
			if err != nil {
				return err
			}
			if len(events) == 0 {
				return drain.finish(ctx, false)
			}
		}

		if err = drain.read(ctx, events); err != nil && ctx.Err() != nil {
			return drain.interrupt(ctx)
		}
		if err != nil {
			return err
		}
		events, err = drain.publish(ctx, events)
		switch {
		case err != nil:
			return err
		case drain.outage != nil:
			return drain.failure()
		case ctx.Err() != nil:
			return drain.interrupt(ctx)
		case time.Since(drain.started) > drain.relay.config.drainTime():
			return drain.finish(ctx, true)
		}
	}
}

// publish sends events, stores what became of each, and claims the next ones in
// the same transaction, unless few are likely to be there.
func (drain *drain) publish(ctx context.Context, events []Event) ([]Event, error) {
	if err := drain.assureLease(ctx); err != nil {
		return nil, err
	}
	drain.lastBatch = len(events)
	drain.result.note(events)
	drain.inFlight = true
	// A pass that is to stop still waits for the answers to this batch.
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain.relay.config.AckTimeout)
	outcomes := drain.relay.publisher.Publish(sendCtx, events)
	cancel()
	if len(outcomes) != len(events) {
		return nil, fmt.Errorf("publish: the broker's adapter returned %d outcomes for %d events", len(outcomes), len(events))
	}
	drain.checkPermanent(ctx, events, outcomes)
	settled := drain.settle(events, outcomes)
	drain.adapt(&settled)
	if len(settled.acknowledged.Ids) > 0 {
		drain.relay.prover.acknowledged(drain.pass.Stream)
	}
	if len(settled.failed.Ids) == 0 {
		// A shard that recovers from crashes comes back to whole batches by doubling.
		drain.batchLimit = min(2*drain.batchLimit, drain.relay.config.BatchSize)
	}
	next, leaseLost, err := drain.store(ctx, settled, ctx.Err() == nil && drain.expectsMore(len(events)))
	if err != nil {
		return nil, fmt.Errorf("mark %d acknowledged and %d failed events, first id %d: %w",
			len(settled.acknowledged.Ids), len(settled.failed.Ids), events[0].ID, err)
	}
	drain.inFlight = false
	if drain.unmarked != nil {
		return nil, drain.unmarked
	}
	drain.result.NumPublished += len(settled.acknowledged.Ids)
	if leaseLost {
		return nil, ErrLeaseLost
	}
	return next, nil
}

// store stores the outcomes of one batch, also if the pass is to stop now, and claims the
// next events with them if it may. A claim that fails is given up, and the outcomes are
// stored without it: the broker's acknowledgements must not be rolled back for it.
func (drain *drain) store(ctx context.Context, marks settled, mayClaim bool) (next []Event, leaseLost bool, err error) {
	before, numFailures := drain.result, len(drain.failures)
	markCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err = pgtx.Do(markCtx, drain.relay.pool, func(tx pgx.Tx) error {
		var err error
		leaseLost, err = drain.mark(markCtx, tx, marks)
		if err != nil {
			return err
		}
		if mayClaim && !leaseLost && drain.outage == nil && drain.unmarked == nil {
			if next, err = drain.claim(markCtx, tx); err != nil {
				return err
			}
		}
		return drain.record(markCtx, tx, marks, leaseLost)
	})
	if errors.Is(err, errClaim) {
		drain.result, drain.failures, drain.unmarked = before, drain.failures[:numFailures], nil
		return drain.store(ctx, marks, false)
	}
	return next, leaseLost, err
}

// assureLease leaves enough of the lease for one batch: nobody else must come to its
// events while they may still be on their way. The lease counts from the claim, whose
// transaction may have taken its time to commit, and the process may have been frozen.
func (drain *drain) assureLease(ctx context.Context) error {
	config := drain.relay.config
	reserve := (config.LeaseTTL - config.AckTimeout) / 4
	if time.Until(drain.leaseEnd) >= config.AckTimeout+reserve {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	asked := time.Now()
	numRows, err := queries.OutboxShardExtend(ctx, drain.relay.pool, &dbsqlc.OutboxShardExtendParams{
		AwakeFor:   awakeFor,
		LeaseEpoch: drain.epoch,
		LeaseTtl:   config.LeaseTTL,
		Shard:      int32(drain.pass.Shard),
		Stream:     drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("extend lease: %w", err)
	}
	if numRows == 0 {
		return ErrLeaseLost
	}
	drain.leaseEnd = asked.Add(config.LeaseTTL)
	if time.Until(drain.leaseEnd) >= config.AckTimeout+reserve {
		return nil
	}
	// Nothing was sent, and so nothing is in flight.
	if err := drain.renew(ctx, drain.relay.pool, false); err != nil {
		return err
	}
	return fmt.Errorf("the database took %s to extend a lease of %s: nothing of the batch was sent", time.Since(asked), config.LeaseTTL)
}

// lookAgain waits a little for new events. Before it gives up it takes back the
// promise that appends need no job, and looks once more after a grace.
func (drain *drain) lookAgain(ctx context.Context) ([]Event, error) {
	if drain.lastBatch >= severalEvents {
		_ = wait(ctx, longNap-nap) // that it is to stop shows below
	}
	pause := nap
	for waited := time.Duration(0); waited < drain.relay.config.Linger; waited += pause {
		if err := wait(ctx, pause); err != nil {
			break
		}
		// Also at the places of transactions that took them early and may commit late.
		hasNew, err := queries.OutboxDeliveryHasNew(ctx, drain.relay.pool, &dbsqlc.OutboxDeliveryHasNewParams{
			SafePlace: drain.seen.safePlace,
			Shard:     int32(drain.pass.Shard),
			Stream:    drain.pass.Stream.Name,
		})
		if err != nil {
			return nil, fmt.Errorf("look for new events: %w", err)
		}
		if hasNew {
			events, err := drain.claim(ctx, drain.relay.pool)
			if err != nil || len(events) > 0 {
				return events, err
			}
			// What is there waits behind events that are held. It may be much, and each
			// claim passes by all of it.
			pause *= 2
		}
	}
	if err := drain.renew(ctx, drain.relay.pool, false); err != nil {
		return nil, err
	}
	if err := wait(ctx, awakeGrace); err != nil {
		return nil, err
	}
	drain.afterPlace = 0
	events, err := drain.claim(ctx, drain.relay.pool)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	// Appends may rely on this pass again, once what it found is sent.
	return events, nil
}

// renew extends the lease, and promises appends to find their events, or not.
func (drain *drain) renew(ctx context.Context, db dbsqlc.DBTX, awake bool) error {
	numRows, err := queries.OutboxShardRenew(ctx, db, &dbsqlc.OutboxShardRenewParams{
		Awake:      awake,
		AwakeFor:   awakeFor,
		BatchLimit: drain.storedLimit(),
		LeaseEpoch: drain.epoch,
		LeaseTtl:   drain.relay.config.LeaseTTL,
		Shard:      int32(drain.pass.Shard),
		Stream:     drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	if numRows == 0 {
		return ErrLeaseLost
	}
	return nil
}

// storedLimit is the bound of a batch that the next leaseholder must keep; nil for
// none.
func (drain *drain) storedLimit() *int32 {
	if drain.batchLimit >= drain.relay.config.BatchSize {
		return nil
	}
	limit := int32(drain.batchLimit)
	return &limit
}

func wait(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case <-timer.C:
		return nil
	}
}
