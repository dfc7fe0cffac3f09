package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"truegreen/internal/dbsqlc"
)

// minClaimBytes is below what a claim is not shrunk. A larger event goes alone.
const minClaimBytes = 64 << 10

// errClaim is the reason of an error if events could not be read.
var errClaim = errors.New("claim events")

// claimLimit is how much one claim of a shard reads at most.
type claimLimit struct{ bytes, events int }

// claimLimits are those of all shards that this process drains. They outlive a pass: the
// link to the database or the broker is as slow for the next one.
type claimLimits struct {
	most     claimLimit
	mu       sync.Mutex
	perShard map[string]claimLimit
}

func newClaimLimits(config *Config) *claimLimits {
	return &claimLimits{
		most:     claimLimit{bytes: config.BatchBytes, events: config.BatchSize},
		perShard: make(map[string]claimLimit),
	}
}

func (limits *claimLimits) of(shard string) claimLimit {
	limits.mu.Lock()
	defer limits.mu.Unlock()
	if limit, known := limits.perShard[shard]; known {
		return limit
	}
	return limits.most
}

func (limits *claimLimits) set(shard string, limit claimLimit) {
	limits.mu.Lock()
	defer limits.mu.Unlock()
	if limit == limits.most {
		delete(limits.perShard, shard)
		return
	}
	limits.perShard[shard] = limit
}

// claimed is what a claim found.
type claimed struct {
	isCut    bool // more were due, and left out for their bytes
	numBytes int
}

// claim reads which events are due next, in the order of their places, and notes them as
// in flight. What they say is read by [drain.read]. A claim that is not done in time, as
// over large events whose size was not noted, makes the next one half as large.
func (drain *drain) claim(ctx context.Context, db dbsqlc.DBTX) ([]Event, error) {
	timeout, outer := drain.relay.config.readTimeout(), ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		asked := time.Now()
		rows, err := queries.OutboxDeliveryClaim(ctx, db, &dbsqlc.OutboxDeliveryClaimParams{
			AfterPlace:      drain.afterPlace,
			ClosedKeys:      drain.closedKeys,
			LeaseEpoch:      drain.epoch,
			LeaseTtl:        drain.relay.config.LeaseTTL,
			MaxBytes:        int64(drain.limit.bytes),
			MaxEvents:       int32(drain.maxEvents()),
			ParkedRowsBlock: drain.pass.Stream.ParkedBlocks,
			SafePlace:       drain.seen.safePlace,
			Shard:           int32(drain.pass.Shard),
			Stream:          drain.pass.Stream.Name,
		})
		if err != nil && ctx.Err() != nil && outer.Err() == nil {
			drain.setLimit(claimLimit{bytes: drain.limit.bytes, events: max(drain.maxEvents()/2, 1)})
			return nil, fmt.Errorf("%w: not done after %s, so that the next claim is half as large: %w", errClaim, timeout, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errClaim, err)
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
		drain.claimed = claimed{isCut: rows[0].IsCut}
		events := make([]Event, len(rows))
		for i, row := range rows {
			drain.claimed.numBytes += int(row.NumBytes)
			events[i] = Event{
				CreatedAt: row.CreatedAt,
				EventID:   row.EventID,
				ID:        row.ID,
				Key:       row.Key,
				KeySeq:    row.KeySeq,
				MaybeSent: row.Attempts > 0,
				Stream:    drain.pass.Stream.Name,
				Type:      row.Type,
			}
		}
		return events, nil
	}
}

// read reads what claimed events say. It shares no transaction with anything: where the
// link to the database is too slow for it, nothing else is undone and nothing stays
// locked, and the next claim is half as large.
func (drain *drain) read(ctx context.Context, events []Event) error {
	ids := make([]int64, len(events))
	places := make(map[int64]int, len(events))
	for i := range events {
		ids[i], places[events[i].ID] = events[i].ID, i
	}
	timeout := drain.relay.config.readTimeout()
	readCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := queries.OutboxEventRead(readCtx, drain.relay.pool, &dbsqlc.OutboxEventReadParams{Ids: ids})
	if err != nil && readCtx.Err() != nil && ctx.Err() == nil {
		drain.setLimit(claimLimit{bytes: max(drain.claimed.numBytes/2, minClaimBytes), events: max(len(events)/2, 1)})
		return fmt.Errorf("read %d claimed events of %d bytes in all: not done after %s, so that the next claim is half as large: %w",
			len(events), drain.claimed.numBytes, timeout, err)
	}
	if err != nil {
		return fmt.Errorf("read claimed events: %w", err)
	}
	if len(rows) != len(events) {
		return fmt.Errorf("read claimed events: %d of %d are there", len(rows), len(events))
	}
	for _, row := range rows {
		event := &events[places[row.ID]]
		event.Payload = row.Payload
		if len(row.Headers) > len(noHeaders) {
			if err := json.Unmarshal(row.Headers, &event.Headers); err != nil {
				return fmt.Errorf("read headers of event %d: %w", row.ID, err)
			}
		}
	}
	return nil
}

// maxEvents is how many events the next claim reads at most.
func (drain *drain) maxEvents() int { return min(drain.batchLimit, drain.limit.events) }

// expectsMore reports that more events are likely to be due after a batch of numEvents.
func (drain *drain) expectsMore(numEvents int) bool {
	return drain.claimed.isCut || numEvents >= min(smallBatch, drain.maxEvents())
}

// adapt bounds the next claims by what became of a batch: half of it where the broker
// could not take or answer all of it in time, twice as much where it did.
func (drain *drain) adapt(marks *settled) {
	numAcknowledged := len(marks.acknowledged.Ids)
	limit, most := drain.limit, drain.relay.limits.most
	switch {
	case marks.isTooMuch && numAcknowledged == 0 && limit.bytes <= minClaimBytes:
		// Less does not help. If the broker ignores these, others must go past them.
		limit = most
	case marks.isTooMuch:
		limit.bytes = max(min(limit.bytes, drain.claimed.numBytes)/2, minClaimBytes)
	case numAcknowledged > 0 && len(marks.failed.Ids) == 0:
		limit = claimLimit{bytes: min(2*limit.bytes, most.bytes), events: min(2*limit.events, most.events)}
	}
	drain.setLimit(limit)
}

func (drain *drain) setLimit(limit claimLimit) {
	drain.limit = limit
	drain.relay.limits.set(drain.shardName(), limit)
}

func (drain *drain) shardName() string {
	return fmt.Sprint(drain.pass.Stream.Name, "/", drain.pass.Shard)
}
