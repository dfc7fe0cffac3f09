package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
)

// settled are the outcomes of one batch, as they go to the database.
type settled struct {
	acknowledged dbsqlc.OutboxEventMarkPublishedParams
	failed       dbsqlc.OutboxEventMarkFailedParams
}

// settle sorts outcomes into marks. An ambiguous event counts against itself
// only if others of the batch were acknowledged: else the broker went silent.
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
	someAcknowledged := len(marks.acknowledged.Ids) > 0
	for i, outcome := range outcomes {
		if outcome.Class == ClassAcknowledged || outcome.Class == ClassNotSent {
			continue
		}
		addFailures := int32(1)
		if outcome.Class == ClassInfrastructure || (outcome.Class == ClassAmbiguous && !someAcknowledged) {
			addFailures = 0
			drain.outage = outcome.Err
		}
		marks.failed.AddFailures = append(marks.failed.AddFailures, addFailures)
		marks.failed.Classes = append(marks.failed.Classes, string(outcome.Class))
		marks.failed.Errors = append(marks.failed.Errors, outcome.Err.Error())
		marks.failed.Ids = append(marks.failed.Ids, events[i].ID)
		drain.result.NumFailed++
		if len(drain.failures) < maxNamedFailures {
			drain.failures = append(drain.failures, fmt.Sprintf("event %d of key %s: %s: %s", events[i].ID, events[i].Key, outcome.Class, outcome.Err))
		}
	}
	return marks
}

// mark stores the outcomes of one batch with the progress that they are, and
// renews the lease, or sends the shard to rest. Acknowledgements are stored even
// if the lease was lost; nothing else is then.
func (drain *drain) mark(ctx context.Context, tx pgx.Tx, marks settled) (leaseLost bool, err error) {
	if err := drain.markPublished(ctx, tx, marks); err != nil {
		return false, err
	}

	delay := drain.relay.config.retryDelay(drain.pass.Attempt)
	if len(marks.failed.Ids) > 0 {
		marks.failed.Delay = delay
		marks.failed.LeaseEpoch = drain.epoch
		if _, err := queries.OutboxEventMarkFailed(ctx, tx, &marks.failed); err != nil {
			return false, fmt.Errorf("store failures: %w", err)
		}
	}
	if drain.outage == nil {
		err := drain.renew(ctx, tx, true)
		if errors.Is(err, ErrLeaseLost) {
			return true, nil
		}
		return false, err
	}

	numRows, err := queries.OutboxShardBackOff(ctx, tx, &dbsqlc.OutboxShardBackOffParams{
		Delay:      delay,
		LeaseEpoch: drain.epoch,
		Shard:      int32(drain.pass.Shard),
		Stream:     drain.pass.Stream.Name,
	})
	if err != nil {
		return false, fmt.Errorf("send the shard to rest: %w", err)
	}
	if numRows == 0 {
		return true, nil
	}
	if len(marks.acknowledged.Ids) > 0 {
		return false, nil
	}
	return false, drain.relay.recorder.Record(ctx, tx, freshness.Progress{
		Err:  drain.outage,
		Kind: freshness.Failure,
		Loop: drain.pass.Stream.Loop(),
	})
}

func (drain *drain) markPublished(ctx context.Context, tx pgx.Tx, marks settled) error {
	if len(marks.acknowledged.Ids) == 0 {
		return nil
	}
	numMarked, err := queries.OutboxEventMarkPublished(ctx, tx, &marks.acknowledged)
	if err != nil {
		return fmt.Errorf("store acknowledgements: %w", err)
	}
	err = queries.OutboxShardCountPublished(ctx, tx, &dbsqlc.OutboxShardCountPublishedParams{
		NumPublished: numMarked,
		Shard:        int32(drain.pass.Shard),
		Stream:       drain.pass.Stream.Name,
	})
	if err != nil {
		return fmt.Errorf("count acknowledgements: %w", err)
	}
	return drain.relay.recorder.Record(ctx, tx, freshness.Progress{
		Kind:     freshness.Success,
		Loop:     drain.pass.Stream.Loop(),
		NumItems: len(marks.acknowledged.Ids),
	})
}
