package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// takeOver goes on where a leaseholder died with events in flight. The broker may
// have them, so they are sent again as such. One of them may be what killed it:
// the next batches are half as large, until one event is alone in flight. Only an
// event that was alone at two such deaths is parked.
func (drain *drain) takeOver(ctx context.Context, lease *dbsqlc.OutboxShardLeaseRow) error {
	numInFlight := int(*lease.InflightNum)
	drain.batchLimit = max(1, min(numInFlight/2, drain.batchLimit))
	err := pgtx.Do(ctx, drain.relay.pool, func(tx pgx.Tx) error {
		flown, err := queries.OutboxDeliveryTakeOver(ctx, tx, &dbsqlc.OutboxDeliveryTakeOverParams{
			Alone:           numInFlight == 1,
			AloneID:         lease.InflightID,
			Error:           "the worker that had it in flight died",
			FirstPlace:      *lease.InflightFirst,
			LastPlace:       *lease.InflightLast,
			ParkedRowsBlock: drain.pass.Stream.ParkedBlocks,
			Shard:           int32(drain.pass.Shard),
			Stream:          drain.pass.Stream.Name,
		})
		if err != nil {
			return fmt.Errorf("record the attempts: %w", err)
		}
		var parked, unrecorded []int64
		for _, event := range flown {
			switch {
			case !event.IsRecorded:
				unrecorded = append(unrecorded, event.ID)
			case event.IsParked:
				parked = append(parked, event.ID)
				drain.result.NumFailed++
				drain.failures = append(drain.failures, fmt.Sprintf("event %d: crash: it was alone in flight when two workers died", event.ID))
			}
		}
		if err := drain.findUnmarked(ctx, tx, unrecorded); err != nil || drain.unmarked != nil {
			return errors.Join(err, drain.unmarked)
		}
		if err := drain.leaveGaps(ctx, tx, parked); err != nil {
			return err
		}
		return drain.renew(ctx, tx, true)
	})
	if err != nil {
		return fmt.Errorf("take over %d events that were in flight when a worker died: %w", numInFlight, err)
	}
	return nil
}
