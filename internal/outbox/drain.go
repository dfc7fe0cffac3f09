package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
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

	// nap is how long a pass that found nothing waits before it looks again.
	nap = 3 * time.Millisecond

	// maxNamedFailures is how many events an error names.
	maxNamedFailures = 3
)

// drain is one pass that holds a lease.
type drain struct {
	afterID  int64 // ids up to here were seen in this round
	epoch    int64
	failures []string // the first few, in words
	outage   error    // why no further event can be sent now
	pass     Pass
	relay    *Relay
	result   DrainResult
	rewind   bool // an event of this pass did not go: nothing may pass it by
	started  time.Time
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

// claim reads the next due events, oldest first.
func (drain *drain) claim(ctx context.Context, db dbsqlc.DBTX) ([]Event, error) {
	// Once an event did not go, its key's later ones must not be claimed without it:
	// it lies below what was seen, and its own delay may be over within the pass.
	if drain.rewind {
		drain.afterID = 0
	}
	rows, err := queries.OutboxEventClaim(ctx, db, &dbsqlc.OutboxEventClaimParams{
		AfterID:         drain.afterID,
		MaxEvents:       int32(drain.relay.config.BatchSize),
		ParkedRowsBlock: drain.pass.Stream.ParkedBlocks,
		Shard:           int32(drain.pass.Shard),
		Stream:          drain.pass.Stream.Name,
	})
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = Event{
			CreatedAt: row.CreatedAt,
			EventID:   row.EventID,
			ID:        row.ID,
			Key:       row.Key,
			KeySeq:    row.KeySeq,
			Payload:   row.Payload,
			Stream:    drain.pass.Stream.Name,
			Type:      row.Type,
		}
		if len(row.Headers) > len(noHeaders) {
			if err := json.Unmarshal(row.Headers, &events[i].Headers); err != nil {
				return nil, fmt.Errorf("read headers of event %d: %w", row.ID, err)
			}
		}
		drain.afterID = row.ID
	}
	return events, nil
}

// publish sends events, stores what became of each, and claims the next ones in
// the same transaction.
func (drain *drain) publish(ctx context.Context, events []Event) ([]Event, error) {
	// A pass that is to stop still waits for the answers to this batch.
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain.relay.config.AckTimeout)
	outcomes := drain.relay.publisher.Publish(sendCtx, events)
	cancel()
	if len(outcomes) != len(events) {
		return nil, fmt.Errorf("publish: the broker's adapter returned %d outcomes for %d events", len(outcomes), len(events))
	}
	settled := drain.settle(events, outcomes)
	if len(settled.acknowledged.Ids) < len(events) {
		drain.rewind = true
	}

	// What the broker acknowledged is stored even if the pass is to stop now.
	markCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	var next []Event
	var leaseLost bool
	err := pgtx.Do(markCtx, drain.relay.pool, func(tx pgx.Tx) error {
		var err error
		leaseLost, err = drain.mark(markCtx, tx, settled)
		if err != nil || leaseLost || drain.outage != nil || ctx.Err() != nil {
			return err
		}
		next, err = drain.claim(markCtx, tx)
		return err
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

// lookAgain waits a little for new events. Before it gives up it takes back the
// promise that appends need no job, and looks once more after a grace.
func (drain *drain) lookAgain(ctx context.Context) ([]Event, error) {
	// Ids may commit out of their order, so each round starts from the first.
	for waited := time.Duration(0); waited < drain.relay.config.Linger; waited += nap {
		drain.afterID = 0
		events, err := drain.claim(ctx, drain.relay.pool)
		if err != nil || len(events) > 0 {
			return events, err
		}
		if err := wait(ctx, nap); err != nil {
			break
		}
	}
	if err := drain.renew(ctx, drain.relay.pool, false); err != nil {
		return nil, err
	}
	if err := wait(ctx, awakeGrace); err != nil {
		return nil, err
	}
	drain.afterID = 0
	events, err := drain.claim(ctx, drain.relay.pool)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	return events, drain.renew(ctx, drain.relay.pool, true)
}

// renew extends the lease, and promises appends to find their events, or not.
func (drain *drain) renew(ctx context.Context, db dbsqlc.DBTX, awake bool) error {
	numRows, err := queries.OutboxShardRenew(ctx, db, &dbsqlc.OutboxShardRenewParams{
		Awake:      awake,
		AwakeFor:   awakeFor,
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

// finish gives the lease back and completes the job, in one transaction; if
// events failed, it does not complete the job, and returns an error that names
// them.
func (drain *drain) finish(ctx context.Context, hasMore bool) error {
	err := pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error {
		if err := drain.release(ctx, tx); err != nil {
			return err
		}
		progress, err := drain.progress(ctx, tx)
		if err != nil {
			return err
		}
		if drain.result.NumFailed > 0 {
			return drain.relay.recorder.Record(ctx, tx, progress)
		}
		if hasMore {
			if err := drain.wake(ctx, tx); err != nil {
				return err
			}
		}
		return drain.pass.Complete(ctx, tx, progress)
	})
	switch {
	case err != nil:
		return fmt.Errorf("finish: %w", err)
	case drain.result.NumFailed > 0:
		return drain.failure()
	case hasMore:
		return nil
	}
	return drain.wakeIfDue(ctx)
}

// progress is what the whole pass may claim: success if it moved something, or if
// nothing of the stream is due anywhere. Another shard that holds due events
// proves or fails by its own passes.
func (drain *drain) progress(ctx context.Context, tx pgx.Tx) (freshness.Progress, error) {
	progress := freshness.Progress{Kind: freshness.Success, Loop: drain.pass.Stream.Loop(), NumItems: drain.result.NumPublished}
	switch {
	case drain.result.NumPublished > 0:
		return progress, nil
	case drain.result.NumFailed > 0:
		progress.Kind, progress.Err = freshness.Failure, drain.failure()
		return progress, nil
	}
	hasDue, err := queries.LoopHasDue(ctx, tx, &dbsqlc.LoopHasDueParams{Loop: progress.Loop})
	if err != nil {
		return progress, fmt.Errorf("look for due events of the stream: %w", err)
	}
	if hasDue {
		progress.Kind = freshness.Neutral
	}
	return progress, nil
}

// interrupt gives the shard to the next worker at once.
func (drain *drain) interrupt(ctx context.Context) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err := pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error { return drain.release(ctx, tx) })
	return errors.Join(fmt.Errorf("interrupted after %d acknowledged events: %w", drain.result.NumPublished, cause), err)
}

func (drain *drain) release(ctx context.Context, tx pgx.Tx) error {
	numRows, err := queries.OutboxShardRelease(ctx, tx, &dbsqlc.OutboxShardReleaseParams{
		LeaseEpoch: drain.epoch,
		Shard:      int32(drain.pass.Shard),
		Stream:     drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	if numRows == 0 {
		return ErrLeaseLost
	}
	return nil
}

// wakeIfDue looks once more after the lease was given back: a job that came for
// an event in between found the shard leased, and yielded.
func (drain *drain) wakeIfDue(ctx context.Context) error {
	drain.afterID = 0
	events, err := drain.claim(ctx, drain.relay.pool)
	if err != nil || len(events) == 0 {
		// The job is completed; what this look would have found is the sweep's.
		return nil //nolint:nilerr // see above
	}
	_ = drain.wake(ctx, drain.relay.pool)
	return nil
}

func (drain *drain) wake(ctx context.Context, db dbsqlc.DBTX) error {
	_, err := queries.OutboxShardWake(ctx, db, &dbsqlc.OutboxShardWakeParams{
		Shard:  int32(drain.pass.Shard),
		Stream: drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("insert successor: %w", err)
	}
	return nil
}

// failure says what was not delivered, in one line.
func (drain *drain) failure() error {
	text := fmt.Sprintf("%d events not delivered, %d acknowledged", drain.result.NumFailed, drain.result.NumPublished)
	if len(drain.failures) > 0 {
		text += ": " + strings.Join(drain.failures, "; ")
	}
	if drain.outage != nil {
		return fmt.Errorf("%s: %w", text, drain.outage)
	}
	return errors.New(text)
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
