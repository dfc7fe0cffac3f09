package outbox

import (
	"context"
	"encoding/json"
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
	closedKeys []string // keys of which an event failed: the next pass's
	epoch      int64
	failures   []string // the first few, in words
	lastBatch  int      // how many events the last batch had
	leaseEnd   time.Time
	outage     error // why no further event can be sent now
	pass       Pass
	relay      *Relay
	result     DrainResult
	seen       horizon
	started    time.Time
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

// claim reads the next due events, in the order of their places, and notes them
// as in flight.
func (drain *drain) claim(ctx context.Context, db dbsqlc.DBTX) ([]Event, error) {
	for {
		asked := time.Now()
		rows, err := queries.OutboxDeliveryClaim(ctx, db, &dbsqlc.OutboxDeliveryClaimParams{
			AfterPlace:      drain.afterPlace,
			ClosedKeys:      drain.closedKeys,
			LeaseEpoch:      drain.epoch,
			LeaseTtl:        drain.relay.config.LeaseTTL,
			MaxEvents:       int32(drain.batchLimit),
			ParkedRowsBlock: drain.pass.Stream.ParkedBlocks,
			SafePlace:       drain.seen.safePlace,
			Shard:           int32(drain.pass.Shard),
			Stream:          drain.pass.Stream.Name,
		})
		if err != nil {
			return nil, fmt.Errorf("claim events: %w", err)
		}
		if len(rows) == 0 {
			return nil, nil
		}
		drain.leaseEnd = asked.Add(drain.relay.config.LeaseTTL)
		drain.seen.note(rows[len(rows)-1])
		if rows[0].IsLate {
			drain.afterPlace = 0
			continue
		}
		drain.afterPlace = rows[len(rows)-1].Place
		events := make([]Event, len(rows))
		for i, row := range rows {
			if events[i], err = drain.event(row); err != nil {
				return nil, err
			}
		}
		return events, nil
	}
}

func (drain *drain) event(row *dbsqlc.OutboxDeliveryClaimRow) (Event, error) {
	event := Event{
		CreatedAt: row.CreatedAt,
		EventID:   row.EventID,
		ID:        row.ID,
		Key:       row.Key,
		KeySeq:    row.KeySeq,
		MaybeSent: row.Attempts > 0,
		Payload:   row.Payload,
		Stream:    drain.pass.Stream.Name,
		Type:      row.Type,
	}
	if len(row.Headers) > len(noHeaders) {
		if err := json.Unmarshal(row.Headers, &event.Headers); err != nil {
			return Event{}, fmt.Errorf("read headers of event %d: %w", row.ID, err)
		}
	}
	return event, nil
}

// publish sends events, stores what became of each, and claims the next ones in
// the same transaction, unless few are likely to be there.
func (drain *drain) publish(ctx context.Context, events []Event) ([]Event, error) {
	if err := drain.assureLease(ctx); err != nil {
		return nil, err
	}
	drain.lastBatch = len(events)
	drain.result.note(events)
	// A pass that is to stop still waits for the answers to this batch.
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain.relay.config.AckTimeout)
	outcomes := drain.relay.publisher.Publish(sendCtx, events)
	cancel()
	if len(outcomes) != len(events) {
		return nil, fmt.Errorf("publish: the broker's adapter returned %d outcomes for %d events", len(outcomes), len(events))
	}
	drain.checkPermanent(ctx, events, outcomes)
	settled := drain.settle(events, outcomes)
	if len(settled.acknowledged.Ids) > 0 {
		drain.relay.prover.acknowledged(drain.pass.Stream)
	}
	if len(settled.failed.Ids) == 0 {
		// A shard that recovers from crashes comes back to whole batches by doubling.
		drain.batchLimit = min(2*drain.batchLimit, drain.relay.config.BatchSize)
	}

	// What the broker acknowledged is stored even if the pass is to stop now.
	markCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	var next []Event
	var leaseLost bool
	err := pgtx.Do(markCtx, drain.relay.pool, func(tx pgx.Tx) error {
		var err error
		leaseLost, err = drain.mark(markCtx, tx, settled)
		if err != nil {
			return err
		}
		if !leaseLost && drain.outage == nil && ctx.Err() == nil && len(events) >= min(smallBatch, drain.batchLimit) {
			if next, err = drain.claim(markCtx, tx); err != nil {
				return err
			}
		}
		return drain.record(markCtx, tx, settled, leaseLost)
	})
	if err != nil {
		return nil, fmt.Errorf("mark %d acknowledged and %d failed events, first id %d: %w",
			len(settled.acknowledged.Ids), len(settled.failed.Ids), events[0].ID, err)
	}
	drain.result.NumPublished += len(settled.acknowledged.Ids)
	if leaseLost {
		return nil, ErrLeaseLost
	}
	return next, nil
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
