package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// OutboxActions are the actions of the command outbox.
type OutboxActions interface {
	// OutboxDiscard gives parked events up: all that are selected, or none. It waits
	// for a worker that may still deliver one. Nothing to discard is an error.
	OutboxDiscard(ctx context.Context, decision OutboxDecision) (OutboxDecided, error)

	// OutboxParked lists up to limit of the parked events that match, those first
	// that are parked for longest.
	OutboxParked(ctx context.Context, filter OutboxFilter, limit int) (OutboxParked, error)

	// OutboxPreview says what a decision would be about, and changes nothing. verb is
	// discard or redrive. Nothing at all is no error.
	OutboxPreview(ctx context.Context, verb string, selection OutboxSelection) (OutboxDecided, error)

	// OutboxReconcile compares the rows with what the broker holds, and mends what
	// the request says. Findings are no error. With an error comes what was compared
	// before.
	OutboxReconcile(ctx context.Context, request OutboxReconcileRequest) (OutboxReconciled, error)

	// OutboxRedrive sends parked events again: all that are selected, or none. It
	// waits for a worker that may still deliver one. Nothing to redrive is an error.
	OutboxRedrive(ctx context.Context, decision OutboxDecision) (OutboxDecided, error)

	// OutboxStatus counts the events of every stream.
	OutboxStatus(ctx context.Context) ([]StreamStatus, error)
}

// OutboxDecision is what somebody decides about undelivered events.
type OutboxDecision struct {
	As        string // who decides; never empty
	Reason    string // never empty
	Selection OutboxSelection
}

// OutboxSelection says which events are decided on: EventIDs, or if there are none the
// parked ones that Filter matches, which then restricts.
type OutboxSelection struct {
	EventIDs []uuid.UUID
	Filter   OutboxFilter
}

// OutboxFilter says which parked events. What is empty does not restrict.
type OutboxFilter struct {
	ErrorClass   string // of the last failure
	Key          string
	ParkedAfter  OutboxMoment // then or later
	ParkedBefore OutboxMoment // before then
	ParkReason   string
	Stream       string
	Type         string
}

// OutboxMoment is an instant, or an age by the database's clock. The zero value is
// none.
type OutboxMoment struct {
	Ago time.Duration // above 0, and At zero; or 0
	At  time.Time
}

// OutboxParked is some of the parked events.
type OutboxParked struct {
	Events      []OutboxParkedEvent
	NumMatching int64 // how many match, these included
}

// OutboxParkedEvent is an event that waits for an operator, or in a preview any
// undelivered one.
type OutboxParkedEvent struct {
	Attempts       int           `json:"attempts"`
	CreatedAt      time.Time     `json:"created_at"`
	EventID        uuid.UUID     `json:"event_id"`
	Failures       int           `json:"failures"` // of the event alone
	Key            string        `json:"key"`
	KeySeq         int64         `json:"key_seq"`
	LastError      string        `json:"last_error"`       // empty for none
	LastErrorClass string        `json:"last_error_class"` // empty for none
	ParkedAge      time.Duration `json:"-"`
	ParkedAt       time.Time     `json:"parked_at,omitzero"` // zero for one that is not parked
	ParkPolicy     string        `json:"park_policy"`        // of its stream
	ParkReason     string        `json:"park_reason"`
	Stream         string        `json:"stream"`
	Type           string        `json:"type"`
}

// MarshalJSON adds the age, in whole milliseconds.
func (event OutboxParkedEvent) MarshalJSON() ([]byte, error) {
	type plain OutboxParkedEvent
	return json.Marshal(struct {
		plain
		ParkedAgeMS int64 `json:"parked_age_ms"`
	}{plain(event), event.ParkedAge.Milliseconds()})
}

// The park policies: what becomes of later events of a parked one's key.
const (
	ParkPolicyBlock = "block" // they wait behind it
	ParkPolicySkip  = "skip"  // they go on, behind a gap marker
)

// OutboxDecided is what a decision was about, or would be.
type OutboxDecided struct {
	Events    []OutboxParkedEvent // the first few; of a preview alone
	NumEvents int64
	Streams   []OutboxDecidedStream // those without events left out
}

// OutboxDecidedStream is the part of one stream.
type OutboxDecidedStream struct {
	Name       string `json:"name"`
	NumEvents  int64  `json:"num_events"`
	NumMarkers int64  `json:"num_markers"` // of these, gap markers, which leave none behind
	ParkPolicy string `json:"park_policy"`
}
