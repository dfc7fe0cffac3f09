package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Event is one stored event as it goes to the broker.
type Event struct {
	CreatedAt time.Time
	EventID   uuid.UUID         // the same for every attempt
	Headers   map[string]string // of the application; nil if there are none
	ID        int64             // outbox_event.id; rises with each append of a key
	Key       string
	KeySeq    int64 // gapless per key, from 1
	MaybeSent bool  // an earlier attempt got no answer: the broker may have it
	Payload   json.RawMessage
	Stream    string
	Type      string
}

// Class says what became of one event that was to be sent.
type Class string

// The classes. Each event that a pass claimed ends in exactly one.
const (
	// ClassAcknowledged: the broker has the event and said so.
	ClassAcknowledged Class = "acknowledged"
	// ClassAmbiguous: sent, but no answer came; the broker may have it.
	ClassAmbiguous Class = "ambiguous"
	// ClassInfrastructure: the broker or its stream is not there, not as it was
	// provisioned, or full. No fault of the event.
	ClassInfrastructure Class = "infrastructure"
	// ClassNotSent: not tried, since an earlier event of its key did not go, or
	// since the pass ended.
	ClassNotSent Class = "not_sent"
	// ClassPermanent: the broker answered that it will never take this event, or no
	// message can be made of it: see [ErrUnsendable].
	ClassPermanent Class = "permanent"
	// ClassRow: the broker refused this event, for a reason that may pass.
	ClassRow Class = "row"
)

// ErrUnsendable is in the Err of a permanent outcome if no message can be made of the
// event, whatever the broker is configured to take: nothing was sent.
var ErrUnsendable = errors.New("no message can be made of it")

// Outcome is what became of one event.
type Outcome struct {
	BrokerRef string // where the broker keeps it; set if acknowledged
	Class     Class
	Duplicate bool  // the broker had it already, from an earlier attempt
	Err       error // why not; nil if acknowledged
	// Overtaken: an ambiguous event, and the broker acknowledged one of the same call
	// that was sent after it, so that the silence is about this event.
	Overtaken bool
}

// Publisher sends events to a broker. Its methods may be called concurrently, for
// different keys.
type Publisher interface {
	// Publish sends events and returns one outcome for each, in the order of
	// events. Of the events of one key, a later one leaves only after the one
	// before it was acknowledged, or together with it where the broker takes both
	// or none; once one did not go, the later ones of its key are not sent.
	//
	// Publish returns when ctx is done at the latest: what has no answer by then is
	// ambiguous, what was not sent is not sent. An acknowledgement that came is
	// always reported.
	Publish(ctx context.Context, events []Event) []Outcome

	// Prove asks the broker whether it would take an event of stream now: that it
	// answers, lets this process publish, and keeps the stream as it was provisioned.
	// It stores nothing, and returns when ctx is done at the latest. It fails with a
	// [BrokerError].
	Prove(ctx context.Context, stream Stream) error
}
