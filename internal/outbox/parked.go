package outbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

// policyBlock is the park policy under which later events of a key wait.
const policyBlock = "block"

// Moment is a point in time: an instant, or an age by the database's clock. The zero
// value is none.
type Moment struct {
	Ago time.Duration // above 0, and At zero; or 0
	At  time.Time
}

// ParkedFilter says which parked events. What is empty does not restrict; the zero
// value is all of them.
type ParkedFilter struct {
	ErrorClass   string // of the last failure; see [Class]
	Key          string
	ParkedAfter  Moment // then or later
	ParkedBefore Moment // before then
	ParkReason   string // permanent, row, crash, or unknown of those parked long ago
	Stream       string
	Type         string
}

// ParkedEvent is an event that waits for an operator. In a preview it may be one that is
// not delivered and not parked: its ParkedAt, ParkedAge and ParkReason are zero.
type ParkedEvent struct {
	Attempts     int // sends that were begun
	CreatedAt    time.Time
	ErrorClass   string // of the last failure; empty for none
	EventID      uuid.UUID
	Failures     int // of the event alone, since it was appended or last redriven
	Key          string
	KeySeq       int64
	LastError    string // empty for none
	ParkedAge    time.Duration
	ParkedAt     time.Time
	ParkedBlocks bool // later events of its key wait behind it
	ParkReason   string
	Stream       string
	Type         string
}

// ParkedList is some of the parked events.
type ParkedList struct {
	Events      []ParkedEvent // parked for longest first
	NumMatching int64         // how many match, these included
}

// ReadParked returns up to limit of the parked events that match filter. Fails with
// [fault.KindNotFound] when filter names a stream that is none.
func ReadParked(ctx context.Context, db dbsqlc.DBTX, filter ParkedFilter, limit int) (ParkedList, error) {
	ids, numMatching, err := selectParked(ctx, db, filter, limit)
	if err != nil {
		return ParkedList{}, fmt.Errorf("list parked events: %w", err)
	}
	events, err := listParked(ctx, db, ids)
	if err != nil {
		return ParkedList{}, fmt.Errorf("list parked events: %w", err)
	}
	return ParkedList{Events: events, NumMatching: numMatching}, nil
}

func selectParked(ctx context.Context, db dbsqlc.DBTX, filter ParkedFilter, limit int) (ids []uuid.UUID, numMatching int64, err error) {
	params := &dbsqlc.OutboxParkedSelectParams{
		ErrorClass: filter.ErrorClass,
		Key:        filter.Key,
		MaxEvents:  int32(limit),
		ParkReason: filter.ParkReason,
		Stream:     filter.Stream,
		Type:       filter.Type,
	}
	params.ParkedAfter, params.ParkedAfterAge = filter.ParkedAfter.bounds()
	params.ParkedBefore, params.ParkedBeforeAge = filter.ParkedBefore.bounds()
	rows, err := queries.OutboxParkedSelect(ctx, db, params)
	if err != nil {
		return nil, 0, fmt.Errorf("select parked events: %w", err)
	}
	if len(rows) == 0 {
		return nil, 0, checkStream(ctx, db, filter.Stream)
	}
	for _, row := range rows {
		ids = append(ids, row.EventID)
	}
	return ids, rows[0].NumMatching, nil
}

// bounds are the instant and the age that the database compares with, nil for none.
func (moment Moment) bounds() (at *time.Time, ago *time.Duration) {
	switch {
	case !moment.At.IsZero():
		return &moment.At, nil
	case moment.Ago > 0:
		return nil, &moment.Ago
	}
	return nil, nil
}

// checkStream refuses a name that no stream has; an empty one is none to check.
func checkStream(ctx context.Context, db dbsqlc.DBTX, name string) error {
	if name == "" {
		return nil
	}
	streams, err := Streams(ctx, db)
	if err != nil {
		return err
	}
	known := make([]string, 0, len(streams))
	for _, stream := range streams {
		if stream.Name == name {
			return nil
		}
		known = append(known, stream.Name)
	}
	return fault.NotFound("there is no stream %q; there are %s", name, strings.Join(known, ", "))
}

func listParked(ctx context.Context, db dbsqlc.DBTX, ids []uuid.UUID) ([]ParkedEvent, error) {
	rows, err := queries.OutboxParkedList(ctx, db, &dbsqlc.OutboxParkedListParams{EventIds: ids})
	if err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	events := make([]ParkedEvent, 0, len(rows))
	for _, row := range rows {
		event := ParkedEvent{
			Attempts:     int(row.Attempts),
			CreatedAt:    row.CreatedAt,
			ErrorClass:   row.LastErrorClass,
			EventID:      row.EventID,
			Failures:     int(row.Failures),
			Key:          row.Key,
			KeySeq:       row.KeySeq,
			LastError:    row.LastError,
			ParkedAge:    row.ParkedAge,
			ParkedBlocks: row.ParkPolicy == policyBlock,
			ParkReason:   row.ParkReason,
			Stream:       row.Stream,
			Type:         row.Type,
		}
		if row.ParkedAt != nil {
			event.ParkedAt = *row.ParkedAt
		}
		events = append(events, event)
	}
	return events, nil
}
