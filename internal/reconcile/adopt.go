package reconcile

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
)

// adoptSize is how many rows are marked, or keys raised, in one transaction.
const adoptSize = 1000

// Both queries return what can be adopted behind a place in their order, so that
// each batch begins where the last one ended.
const (
	adoptableEvents = `
SELECT suspect.id, suspect.event_id, scope.name || '/' || suspect.sequence AS broker_ref
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
WHERE ` + isUnmarked + `
    AND NOT ` + isInFlight + `
    AND ` + isSame + `
    AND suspect.id > $1
ORDER BY suspect.id
LIMIT $2`

	liftableKeys = `
SELECT ahead.key, ahead.event_id, ahead.highest
FROM reconcile_ahead AS ahead
CROSS JOIN reconcile_scope AS scope
WHERE scope.key_seq_source = 'counted'
    AND ahead.is_whole
    AND ahead.key > $1
ORDER BY ahead.key
LIMIT $2`
)

// adopt mends what can be mended. What was mended by somebody else meanwhile is as
// good. Keys come first: an append may come at any time.
func (comparison *comparison) adopt(ctx context.Context) error {
	if err := comparison.liftKeys(ctx); err != nil {
		return err
	}
	if err := comparison.adoptEvents(ctx); err != nil {
		return err
	}
	for i, isMendable := range comparison.mendable {
		comparison.findings[i].Mended = isMendable
	}
	for kind, numMendable := range comparison.numMendable {
		count := comparison.result.Counts[kind]
		count.Mended = numMendable
		comparison.result.Counts[kind] = count
	}
	return nil
}

func (comparison *comparison) adoptEvents(ctx context.Context) error {
	var id int64
	for {
		rows, err := comparison.conn.Query(ctx, adoptableEvents, id, adoptSize)
		if err != nil {
			return fmt.Errorf("list events to adopt: %w", err)
		}
		params := dbsqlc.ReconcileAdoptParams{ByWhom: comparison.options.As}
		var eventID uuid.UUID
		var ref string
		_, err = pgx.ForEachRow(rows, []any{&id, &eventID, &ref}, func() error {
			params.EventIds, params.BrokerRefs = append(params.EventIds, eventID), append(params.BrokerRefs, ref)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list events to adopt: %w", err)
		}
		if len(params.EventIds) == 0 {
			return nil
		}
		numAdopted, err := dbsqlc.New().ReconcileAdopt(ctx, comparison.conn, &params)
		if err != nil {
			return fmt.Errorf("adopt %d events, the first %s: %w", len(params.EventIds), params.EventIds[0], err)
		}
		comparison.result.NumAdopted += numAdopted
	}
}

func (comparison *comparison) liftKeys(ctx context.Context) error {
	var key string
	for {
		rows, err := comparison.conn.Query(ctx, liftableKeys, key, adoptSize)
		if err != nil {
			return fmt.Errorf("list keys to raise: %w", err)
		}
		params := dbsqlc.ReconcileKeyLiftParams{ByWhom: comparison.options.As, Stream: comparison.stream.Stream}
		var eventID uuid.UUID
		var highest int64
		_, err = pgx.ForEachRow(rows, []any{&key, &eventID, &highest}, func() error {
			params.EventIds = append(params.EventIds, eventID)
			params.Keys, params.LastSeqs = append(params.Keys, key), append(params.LastSeqs, highest)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list keys to raise: %w", err)
		}
		if len(params.Keys) == 0 {
			return nil
		}
		numLifted, err := dbsqlc.New().ReconcileKeyLift(ctx, comparison.conn, &params)
		if err != nil {
			return fmt.Errorf("raise the last numbers of %d keys, the first %s: %w", len(params.Keys), params.Keys[0], err)
		}
		comparison.result.NumLifted += numLifted
	}
}
