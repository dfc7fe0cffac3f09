package app

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/cli"
	"truegreen/internal/outbox"
)

// OutboxDiscard gives undelivered events up.
func (actions *actions) OutboxDiscard(ctx context.Context, decision cli.OutboxDecision) (cli.OutboxDecided, error) {
	return actions.decideOutbox(ctx, outbox.ActDiscard, decision)
}

// OutboxParked lists parked events.
func (actions *actions) OutboxParked(ctx context.Context, filter cli.OutboxFilter, limit int) (cli.OutboxParked, error) {
	return withDatabase(ctx, actions, func(pool *pgxpool.Pool) (cli.OutboxParked, error) {
		list, err := outbox.ReadParked(ctx, pool, parkedFilter(filter), limit)
		return cli.OutboxParked{Events: parkedEvents(list.Events), NumMatching: list.NumMatching}, err
	})
}

// OutboxPreview says what a decision would be about.
func (actions *actions) OutboxPreview(ctx context.Context, verb string, selection cli.OutboxSelection) (cli.OutboxDecided, error) {
	return withDatabase(ctx, actions, func(pool *pgxpool.Pool) (cli.OutboxDecided, error) {
		decided, err := outbox.PreviewDecision(ctx, pool, outbox.Act(verb), parkedSelection(selection))
		return outboxDecided(&decided), err
	})
}

// OutboxRedrive sends parked events again.
func (actions *actions) OutboxRedrive(ctx context.Context, decision cli.OutboxDecision) (cli.OutboxDecided, error) {
	return actions.decideOutbox(ctx, outbox.ActRedrive, decision)
}

// OutboxStatus counts the events of every stream.
func (actions *actions) OutboxStatus(ctx context.Context) ([]cli.StreamStatus, error) {
	return withDatabase(ctx, actions, func(pool *pgxpool.Pool) ([]cli.StreamStatus, error) {
		statuses, err := outbox.ReadStatus(ctx, pool)
		streams := make([]cli.StreamStatus, 0, len(statuses))
		for _, status := range statuses {
			streams = append(streams, cli.StreamStatus(status))
		}
		return streams, err
	})
}

func (actions *actions) decideOutbox(ctx context.Context, act outbox.Act, decision cli.OutboxDecision) (cli.OutboxDecided, error) {
	return withDatabase(ctx, actions, func(pool *pgxpool.Pool) (cli.OutboxDecided, error) {
		decided, err := outbox.Decide(ctx, pool, outbox.Decision{
			Act:       act,
			By:        decision.As,
			Reason:    decision.Reason,
			Selection: parkedSelection(decision.Selection),
		})
		return outboxDecided(&decided), err
	})
}

// withDatabase runs fn on the database, if its schema is the one that this binary
// knows.
func withDatabase[T any](ctx context.Context, actions *actions, fn func(pool *pgxpool.Pool) (T, error)) (T, error) {
	var none T
	pool, err := actions.open(ctx)
	if err != nil {
		return none, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return none, err
	}
	return fn(pool)
}

func parkedSelection(selection cli.OutboxSelection) outbox.ParkedSelection {
	return outbox.ParkedSelection{EventIDs: selection.EventIDs, Filter: parkedFilter(selection.Filter)}
}

func parkedFilter(filter cli.OutboxFilter) outbox.ParkedFilter {
	return outbox.ParkedFilter{
		ErrorClass:   filter.ErrorClass,
		Key:          filter.Key,
		ParkedAfter:  outbox.Moment(filter.ParkedAfter),
		ParkedBefore: outbox.Moment(filter.ParkedBefore),
		ParkReason:   filter.ParkReason,
		Stream:       filter.Stream,
		Type:         filter.Type,
	}
}

func parkedEvents(events []outbox.ParkedEvent) []cli.OutboxParkedEvent {
	shown := make([]cli.OutboxParkedEvent, 0, len(events))
	for i := range events {
		event := &events[i]
		shown = append(shown, cli.OutboxParkedEvent{
			Attempts:       event.Attempts,
			CreatedAt:      event.CreatedAt,
			EventID:        event.EventID,
			Failures:       event.Failures,
			Key:            event.Key,
			KeySeq:         event.KeySeq,
			LastError:      event.LastError,
			LastErrorClass: event.ErrorClass,
			ParkedAge:      event.ParkedAge,
			ParkedAt:       event.ParkedAt,
			ParkPolicy:     parkPolicy(event.ParkedBlocks),
			ParkReason:     event.ParkReason,
			Stream:         event.Stream,
			Type:           event.Type,
		})
	}
	return shown
}

func outboxDecided(decided *outbox.Decided) cli.OutboxDecided {
	shown := cli.OutboxDecided{Events: parkedEvents(decided.First), NumEvents: decided.NumEvents}
	for _, stream := range decided.Streams {
		shown.Streams = append(shown.Streams, cli.OutboxDecidedStream{
			Name:       stream.Name,
			NumEvents:  stream.NumEvents,
			NumMarkers: stream.NumMarkers,
			ParkPolicy: parkPolicy(stream.ParkedBlocks),
		})
	}
	return shown
}

func parkPolicy(blocks bool) string {
	if blocks {
		return cli.ParkPolicyBlock
	}
	return cli.ParkPolicySkip
}
