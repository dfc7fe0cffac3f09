package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// finish gives the lease back and completes the job, in one transaction; if
// events failed, it does not complete the job, and returns an error that names
// them.
func (drain *drain) finish(ctx context.Context, hasMore bool) error {
	if drain.result.NumPublished+drain.result.NumFailed == 0 {
		// Nothing showed whether the broker takes events, so it is asked.
		if err := drain.relay.prover.Prove(ctx, drain.pass.Stream); err != nil {
			return drain.unproven(ctx, err)
		}
	}
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
	if drain.result.NumSent > 0 {
		// For whoever compares it with what became of that.
		progress.Result = drain.result
	}
	switch {
	case drain.result.NumPublished > 0:
		return progress, nil
	case drain.result.NumFailed > 0:
		progress.Kind, progress.Err, progress.OfItems = freshness.Failure, drain.failure(), true
		return progress, nil
	}
	hasDue, err := queries.OutboxLoopHasDue(ctx, tx, &dbsqlc.OutboxLoopHasDueParams{Loop: progress.Loop})
	if err != nil {
		return progress, fmt.Errorf("look for due events of the stream: %w", err)
	}
	if hasDue {
		progress.Kind = freshness.Neutral
	}
	return progress, nil
}

// unproven fails a pass that had nothing to send to a broker that would not take it. The
// shard does not rest: the broker may refuse this process alone, and others must publish
// what comes.
func (drain *drain) unproven(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return drain.interrupt(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err := pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error {
		if err := drain.release(ctx, tx); err != nil {
			return err
		}
		return drain.relay.recorder.Record(ctx, tx, freshness.Progress{
			Err: cause, Kind: freshness.Failure, Loop: drain.pass.Stream.Loop(), OfBroker: true,
		})
	})
	return errors.Join(cause, err)
}

// backOff gives the lease back and lets the shard rest.
func (drain *drain) backOff(ctx context.Context, tx pgx.Tx, delay time.Duration) error {
	numRows, err := queries.OutboxShardBackOff(ctx, tx, &dbsqlc.OutboxShardBackOffParams{
		Delay:      delay,
		LeaseEpoch: drain.epoch,
		Shard:      int32(drain.pass.Shard),
		Stream:     drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("send the shard to rest: %w", err)
	}
	if numRows == 0 {
		return ErrLeaseLost
	}
	return nil
}

// giveBack ends the lease of a pass that failed, if it still has it: one whose last
// outcomes could not be stored must not look like a worker that died with them in
// flight. That they were sent is recorded all the same. Where this fails too, the
// lease runs out by itself.
func (drain *drain) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	_ = pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error {
		if !drain.inFlight {
			return drain.release(ctx, tx)
		}
		flight, err := queries.OutboxShardInFlight(ctx, tx, &dbsqlc.OutboxShardInFlightParams{
			LeaseEpoch: drain.epoch,
			Shard:      int32(drain.pass.Shard),
			Stream:     drain.pass.Stream.Name,
		})
		switch {
		case err == nil:
			_, err = queries.OutboxDeliveryTakeOver(ctx, tx, &dbsqlc.OutboxDeliveryTakeOverParams{
				Error:           "what became of it could not be stored",
				FirstPlace:      flight.FirstPlace,
				LastPlace:       flight.LastPlace,
				ParkedRowsBlock: drain.pass.Stream.ParkedBlocks,
				Shard:           int32(drain.pass.Shard),
				Stream:          drain.pass.Stream.Name,
			})
			if err != nil {
				return fmt.Errorf("record the attempts: %w", err)
			}
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("read what is in flight: %w", err)
		}
		return drain.release(ctx, tx)
	})
}

// interrupt gives the shard to the next worker at once. A pass in which events failed
// tells of them all the same.
func (drain *drain) interrupt(ctx context.Context) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err := pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error { return drain.release(ctx, tx) })
	if drain.result.NumFailed > 0 {
		return errors.Join(drain.failure(), err)
	}
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
	hasDue, err := queries.OutboxShardHasDue(ctx, drain.relay.pool, &dbsqlc.OutboxShardHasDueParams{
		Shard:  int32(drain.pass.Shard),
		Stream: drain.pass.Stream.Name,
	})
	if err != nil || !hasDue {
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
	if drain.result.NumParked > 0 {
		text = fmt.Sprintf("%d events not delivered and %d of them parked, %d acknowledged", drain.result.NumFailed, drain.result.NumParked, drain.result.NumPublished)
	}
	if len(drain.failures) > 0 {
		text += ": " + strings.Join(drain.failures, "; ")
	}
	if drain.outage != nil {
		return fmt.Errorf("%s: %w", text, drain.outage)
	}
	return errors.New(text)
}
