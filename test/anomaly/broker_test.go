package anomaly_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"truegreen/internal/outbox"
)

var (
	errRefused = errors.New("the broker refuses it")
	errSilent  = errors.New("the broker did not answer")
)

// broker stands in for a real one in the loops over statements: it does to each
// event what a case wants. What real answers that get lost do is in
// answers_test.go.
type broker struct {
	hook  func()                          // runs before a batch; nil for nothing
	judge func(outbox.Event) outbox.Class // the fate of an event; nil acknowledges

	mu         sync.Mutex
	numRefused int               // for the use of a case
	numSilent  int               // how many proofs it fails before it gives one
	stored     map[uuid.UUID]int // place of an event, from 1
}

func newBroker() *broker { return &broker{stored: make(map[uuid.UUID]int)} }

// Publish implements [outbox.Publisher].
func (b *broker) Publish(_ context.Context, events []outbox.Event) []outbox.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hook != nil {
		b.hook()
	}
	outcomes := make([]outbox.Outcome, len(events))
	stopped := make(map[string]bool)
	for i := range events {
		event := &events[i]
		class := outbox.ClassAcknowledged
		switch {
		case stopped[event.Key]:
			class = outbox.ClassNotSent
		case b.judge != nil:
			class = b.judge(*event)
		}
		outcomes[i].Class = class
		if class == outbox.ClassAmbiguous || class == outbox.ClassAcknowledged {
			if b.stored[event.EventID] > 0 {
				outcomes[i].Duplicate = true
			} else {
				b.stored[event.EventID] = len(b.stored) + 1
			}
		}
		switch class {
		case outbox.ClassAcknowledged:
			outcomes[i].BrokerRef = fmt.Sprintf("STUB/%d", b.stored[event.EventID])
			continue
		case outbox.ClassAmbiguous:
			outcomes[i].Err = errSilent
		default:
			outcomes[i].Err = errRefused
		}
		stopped[event.Key] = true
	}
	return outcomes
}

// Prove implements [outbox.Publisher].
func (b *broker) Prove(context.Context, outbox.Stream) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.numSilent > 0 {
		b.numSilent--
		return &outbox.BrokerError{Address: "stub", Err: errSilent}
	}
	return nil
}

func (b *broker) has(eventID uuid.UUID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stored[eventID] > 0
}
