package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// settled are the outcomes of one batch, as they go to the database.
type settled struct {
	acknowledged dbsqlc.OutboxDeliveryMarkPublishedParams
	failed       dbsqlc.OutboxDeliveryMarkFailedParams
	isTooMuch    bool // time was over before all was sent, or answered
}

// settle sorts outcomes into marks. An ambiguous event counts against itself only if
// it was overtaken: else the broker was slow, or went silent.
func (drain *drain) settle(events []Event, outcomes []Outcome) settled {
	var marks settled
	for i, outcome := range outcomes {
		if outcome.Class == ClassAcknowledged {
			marks.acknowledged.BrokerRefs = append(marks.acknowledged.BrokerRefs, outcome.BrokerRef)
			marks.acknowledged.Ids = append(marks.acknowledged.Ids, events[i].ID)
			if outcome.Duplicate {
				drain.result.NumDuplicate++
			}
		}
	}
	for i, outcome := range outcomes {
		if outcome.Class == ClassNotSent {
			if !slices.Contains(drain.closedKeys, events[i].Key) {
				// Time was over, not an earlier event of its key: this pass may come to it.
				drain.afterPlace = 0
				marks.isTooMuch = true
			}
			continue
		}
		drain.result.NumSent++
		if outcome.Class == ClassAcknowledged {
			continue
		}
		if !slices.Contains(drain.closedKeys, events[i].Key) {
			drain.closedKeys = append(drain.closedKeys, events[i].Key)
		}
		addFailures := int32(1)
		if outcome.Class == ClassInfrastructure || (outcome.Class == ClassAmbiguous && !outcome.Overtaken) {
			addFailures = 0
			drain.outage = outcome.Err
			marks.isTooMuch = marks.isTooMuch || outcome.Class == ClassAmbiguous
		}
		marks.failed.AddFailures = append(marks.failed.AddFailures, addFailures)
		marks.failed.Classes = append(marks.failed.Classes, string(outcome.Class))
		marks.failed.Errors = append(marks.failed.Errors, storable(outcome.Err.Error()))
		marks.failed.Ids = append(marks.failed.Ids, events[i].ID)
		drain.result.NumFailed++
		if len(drain.failures) < maxNamedFailures {
			drain.failures = append(drain.failures, fmt.Sprintf("event %d of key %s: %s: %s", events[i].ID, events[i].Key, outcome.Class, outcome.Err))
		}
	}
	return marks
}

// checkPermanent believes the broker that it will never take an event only of one
// that is larger than the stream was provisioned for. Any other would be refused
// because the broker's stream is no longer what it was: no fault of the event,
// which must not be parked for it. Where the sizes cannot be read, nothing is believed.
// That no message can be made of an event has nothing to do with the broker.
func (drain *drain) checkPermanent(ctx context.Context, events []Event, outcomes []Outcome) {
	var ids []int64
	for i, outcome := range outcomes {
		if outcome.Class == ClassPermanent && !errors.Is(outcome.Err, ErrUnsendable) {
			ids = append(ids, events[i].ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	tooLarge, err := queries.OutboxEventTooLarge(ctx, drain.relay.pool, &dbsqlc.OutboxEventTooLargeParams{Ids: ids})
	for i := range outcomes {
		switch {
		case outcomes[i].Class != ClassPermanent, errors.Is(outcomes[i].Err, ErrUnsendable):
		case err != nil:
			outcomes[i].Class = ClassInfrastructure
			outcomes[i].Err = fmt.Errorf("%w; look at the size of the event: %w", outcomes[i].Err, err)
		case !slices.Contains(tooLarge, events[i].ID):
			outcomes[i].Class = ClassInfrastructure
			outcomes[i].Err = fmt.Errorf("the broker takes less than it was provisioned for; run 'truegreen broker provision': %w", outcomes[i].Err)
		}
	}
}

// storable leaves out what the database takes in no text.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
}

// mark stores the outcomes of one batch, and renews the lease, or sends the shard to
// rest. Acknowledgements are stored even
// if the lease was lost; nothing else is then.
func (drain *drain) mark(ctx context.Context, tx pgx.Tx, marks settled) (leaseLost bool, err error) {
	holdsLease, err := drain.markPublished(ctx, tx, marks)
	if err != nil {
		return false, err
	}
	if !holdsLease {
		return true, nil
	}

	delay := drain.relay.config.retryDelay(drain.pass.Attempt)
	if len(marks.failed.Ids) > 0 {
		held, err := queries.OutboxShardHold(ctx, tx, &dbsqlc.OutboxShardHoldParams{
			LeaseEpoch: drain.epoch,
			Shard:      int32(drain.pass.Shard),
			Stream:     drain.pass.Stream.Name,
		})
		if err != nil {
			return false, fmt.Errorf("look whether the lease holds: %w", err)
		}
		if len(held) == 0 {
			return true, nil
		}
		if err := drain.markFailed(ctx, tx, marks, delay); err != nil {
			return false, err
		}
		if err := drain.findUnmarked(ctx, tx, marks.failed.Ids); err != nil {
			return false, err
		}
	}
	if drain.outage == nil {
		err = drain.renew(ctx, tx, true)
	} else {
		err = drain.backOff(ctx, tx, delay)
	}
	if errors.Is(err, ErrLeaseLost) {
		return true, nil
	}
	return false, err
}

// record stores the progress that a batch is. It comes last in the transaction: all
// shards of a stream write the same row, and the others wait for it until the
// transaction ends.
func (drain *drain) record(ctx context.Context, tx pgx.Tx, marks settled, leaseLost bool) error {
	progress := freshness.Progress{Kind: freshness.Success, Loop: drain.pass.Stream.Loop(), NumItems: len(marks.acknowledged.Ids)}
	switch {
	case drain.unmarked != nil:
		progress.Kind, progress.Err = freshness.Failure, drain.unmarked
	case progress.NumItems > 0:
	case drain.outage != nil && !leaseLost:
		progress.Kind, progress.Err, progress.OfBroker = freshness.Failure, drain.outage, true
	default:
		return nil
	}
	return drain.relay.recorder.Record(ctx, tx, progress)
}

// markFailed stores failures, and parks the events that need a person.
func (drain *drain) markFailed(ctx context.Context, tx pgx.Tx, marks settled, delay time.Duration) error {
	marks.failed.Delay = delay
	marks.failed.LeaseEpoch = drain.epoch
	marks.failed.ParkAfter = drain.relay.config.ParkAfter
	marks.failed.ParkAfterFailures = int32(drain.relay.config.ParkAfterFailures)
	parked, err := queries.OutboxDeliveryMarkFailed(ctx, tx, &marks.failed)
	if err != nil {
		return fmt.Errorf("store failures: %w", err)
	}
	return drain.leaveGaps(ctx, tx, parked)
}

// leaveGaps counts events that were parked, and has markers take their places where
// the stream's policy is to skip them.
func (drain *drain) leaveGaps(ctx context.Context, tx pgx.Tx, parked []int64) error {
	drain.result.NumParked += len(parked)
	if len(parked) == 0 || drain.pass.Stream.ParkedBlocks {
		return nil
	}
	// Later events of their keys go on in the next pass, behind the markers.
	_, err := queries.OutboxDeliveryLeaveGaps(ctx, tx, &dbsqlc.OutboxDeliveryLeaveGapsParams{
		Ids:    parked,
		Reason: "it could not be delivered and waits for a person",
	})
	if err != nil {
		return fmt.Errorf("leave gap markers for %d parked events: %w", len(parked), err)
	}
	return nil
}

// markPublished stores acknowledgements, and says whether the lease holds, as far as
// there are any.
func (drain *drain) markPublished(ctx context.Context, tx pgx.Tx, marks settled) (holdsLease bool, err error) {
	ids := marks.acknowledged.Ids
	if len(ids) == 0 {
		return true, nil
	}
	numMarked, err := queries.OutboxDeliveryMarkPublished(ctx, tx, &marks.acknowledged)
	if err != nil {
		return false, fmt.Errorf("store acknowledgements: %w", err)
	}
	if numMarked < int64(len(ids)) {
		if err := drain.tellOfDiscarded(ctx, tx, ids); err != nil {
			return false, err
		}
		if err := drain.findUnmarked(ctx, tx, ids); err != nil {
			return false, err
		}
	}
	holdsLease, err = queries.OutboxShardCountPublished(ctx, tx, &dbsqlc.OutboxShardCountPublishedParams{
		LeaseEpoch:   drain.epoch,
		NumPublished: numMarked,
		Shard:        int32(drain.pass.Shard),
		Stream:       drain.pass.Stream.Name,
	})
	if err != nil {
		return false, fmt.Errorf("count acknowledgements: %w", err)
	}
	if !holdsLease {
		// Another pass may be beyond the events that these held back.
		if err := queries.OutboxDeliveryHoldReleased(ctx, tx, &dbsqlc.OutboxDeliveryHoldReleasedParams{Ids: ids}); err != nil {
			return false, fmt.Errorf("hold the keys of late acknowledgements: %w", err)
		}
	}
	return holdsLease, nil
}

// findUnmarked makes the pass fail for outcomes that the database did not keep, though
// it reported no error: a trigger, a rule or a policy may do that. What it kept stays.
func (drain *drain) findUnmarked(ctx context.Context, tx pgx.Tx, ids []int64) error {
	unmarked, err := queries.OutboxDeliveryUnmarked(ctx, tx, &dbsqlc.OutboxDeliveryUnmarkedParams{Ids: ids})
	if err != nil {
		return fmt.Errorf("look for outcomes that were not stored: %w", err)
	}
	if len(unmarked) > 0 {
		drain.unmarked = errors.Join(drain.unmarked, fmt.Errorf(
			"the outcomes of %d of %d events were not stored, first id %d: does a trigger, rule or policy on outbox_delivery keep them from it? %w",
			len(unmarked), len(ids), unmarked[0], pgtx.ErrRowCount))
	}
	return nil
}

// tellOfDiscarded makes the pass fail for events that were given up while they were in
// flight: the broker has them all the same.
func (drain *drain) tellOfDiscarded(ctx context.Context, tx pgx.Tx, ids []int64) error {
	discarded, err := queries.OutboxDeliveryDiscarded(ctx, tx, &dbsqlc.OutboxDeliveryDiscardedParams{Ids: ids})
	if err != nil {
		return fmt.Errorf("look for events that were given up: %w", err)
	}
	for _, id := range discarded {
		drain.result.NumFailed++
		if len(drain.failures) < maxNamedFailures {
			drain.failures = append(drain.failures, fmt.Sprintf("event %d was discarded while it was in flight, and the broker has it all the same", id))
		}
	}
	return nil
}
