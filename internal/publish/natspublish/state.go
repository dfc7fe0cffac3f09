package natspublish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamState is from where on a stream holds messages, and what the broker removes
// of it by itself.
type StreamState struct {
	// Duplicates is how long the broker answers an event that it holds already as if
	// it had stored it then.
	Duplicates time.Duration

	// First is the first sequence that holds a message; if none does, the one that
	// the next message gets.
	First uint64

	// MaxAge is how old messages get before they are removed; 0 for however old.
	MaxAge time.Duration

	// RemovesAnyAge says that messages are removed however young they are: the oldest
	// once there are too many or too large ones, those that consumers have, or those
	// that no consumer wants.
	RemovesAnyAge bool
}

// StreamState returns the present state of the JetStream stream of an outbox stream.
func (publisher *Publisher) StreamState(ctx context.Context, stream string) (StreamState, error) {
	name := StreamName(stream)
	found, err := publisher.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return StreamState{}, fmt.Errorf("look at stream %s: it does not exist; run 'truegreen broker provision'", name)
	}
	if err != nil {
		return StreamState{}, fmt.Errorf("look at stream %s: %w", name, publisher.reachError(err))
	}
	config, held := found.CachedInfo().Config, found.CachedInfo().State
	state := StreamState{
		Duplicates:    config.Duplicates,
		First:         held.FirstSeq,
		MaxAge:        config.MaxAge,
		RemovesAnyAge: removesAnyAge(config),
	}
	if held.Msgs == 0 {
		state.First = held.LastSeq + 1
	}
	return state, nil
}

func removesAnyAge(config jetstream.StreamConfig) bool {
	isBounded := config.MaxMsgs > 0 || config.MaxBytes > 0
	return config.Retention != jetstream.LimitsPolicy ||
		isBounded && config.Discard != jetstream.DiscardNew ||
		config.MaxMsgsPerSubject > 0 && !config.DiscardNewPerSubject
}
