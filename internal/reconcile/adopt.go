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

// indexAdoptable lets each batch begin where the last one ended.
const indexAdoptable = `
CREATE INDEX IF NOT EXISTS reconcile_suspect_id_idx ON reconcile_suspect (id);
CREATE INDEX IF NOT EXISTS reconcile_ahead_key_idx ON reconcile_ahead (key);`

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
// good; an event that somebody discarded is not mended. Keys come first: an append
// may come at any time.
func (comparison *comparison) adopt(ctx context.Context) error {
	// Plans that read whole tables would do so for each batch, with the batch's rows
	// locked.
	if err := dbsqlc.New().ReconcilePlanLookups(ctx, comparison.conn); err != nil {
		return fmt.Errorf("set up planner: %w", err)
	}
	if _, err := comparison.conn.Exec(ctx, indexAdoptable); err != nil {
		return fmt.Errorf("index what can be adopted: %w", err)
	}
	if err := comparison.liftKeys(ctx); err != nil {
		return err
	}
	if err := comparison.adoptEvents(ctx); err != nil {
		return err
	}
	for i, isMendable := range comparison.mendable {
		finding := &comparison.findings[i]
		id, _ := eventID(finding.EventID)
		finding.Mended = isMendable && (finding.Kind != KindUnmarked || !comparison.unadopted[id.Bytes])
	}
	for kind, numMendable := range comparison.numMendable {
		count := comparison.result.Counts[kind]
		count.Mended = numMendable
		if kind == KindUnmarked {
			count.Mended -= int64(len(comparison.unadopted))
		}
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
		if numAdopted == int64(len(params.EventIds)) {
			continue
		}
		unpublished, err := dbsqlc.New().ReconcileUnpublished(ctx, comparison.conn, &dbsqlc.ReconcileUnpublishedParams{EventIds: params.EventIds})
		if err != nil {
			return fmt.Errorf("look at events that were not adopted: %w", err)
		}
		for _, eventID := range unpublished {
			comparison.unadopted[eventID] = true
		}
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
