package natspublish

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamSpec is what the stream of one outbox stream must be like.
type StreamSpec struct {
	MaxEventBytes int           // payload and headers of the application
	MinDuplicates time.Duration // the duplicate window must be longer
	Stream        string        // the outbox stream
}

const (
	// duplicates is the duplicate window of streams that are created here: how
	// long the broker knows an event that it already holds.
	duplicates = 2 * time.Minute

	// envelopeBytes is room for the headers that every message carries.
	envelopeBytes = 4096

	// minEventBytes is the least that a stream must take to be of any use.
	minEventBytes = 1024
)

// ErrUnreachable says that the broker did not answer: it may be away for now.
var ErrUnreachable = errors.New("the broker does not answer")

// Provisioned says what became of one stream, and what it takes.
type Provisioned struct {
	Change        string // "created", "updated" or "unchanged"
	Durability    string // what an acknowledgement survives, in words
	JetStreamName string
	MaxEventBytes int
	Note          string // what an operator should think about; may be empty
	Subjects      string
}

// Provision creates the stream of spec, or updates it where it is not as it must
// be, keeping everything else as its owner set it. It fails with [ErrUnreachable]
// when nobody answers.
func (publisher *Publisher) Provision(ctx context.Context, spec StreamSpec) (Provisioned, error) {
	result := Provisioned{Change: "unchanged", JetStreamName: StreamName(spec.Stream), Subjects: subjects(spec.Stream)}
	stream, err := publisher.js.Stream(ctx, result.JetStreamName)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		result.Change = "created"
		stream, err = publisher.js.CreateStream(ctx, jetstream.StreamConfig{
			Description: "truegreen outbox " + spec.Stream,
			Discard:     jetstream.DiscardNew,
			Duplicates:  max(duplicates, 2*spec.MinDuplicates),
			Name:        result.JetStreamName,
			Storage:     jetstream.FileStorage,
			Subjects:    []string{subjects(spec.Stream)},
		})
	case err == nil:
		config := mended(stream.CachedInfo().Config, spec)
		if config.Sealed {
			return result, fmt.Errorf("provision stream %s: it is sealed, which cannot be undone: remove it or use another broker", result.JetStreamName)
		}
		if !reflect.DeepEqual(config, stream.CachedInfo().Config) {
			result.Change = "updated"
			stream, err = publisher.js.UpdateStream(ctx, config)
		}
	}
	if err != nil {
		return result, fmt.Errorf("provision stream %s: %w", result.JetStreamName, publisher.reachError(err))
	}
	config := stream.CachedInfo().Config
	result.Durability = durability(config)
	if !isDurable(config) {
		result.Note = "for production: three replicas, or one server with sync_interval: always"
	}
	result.MaxEventBytes = publisher.maxEventBytes(config, spec)
	if result.MaxEventBytes < minEventBytes {
		return result, fmt.Errorf("provision stream %s: it takes events of at most %d bytes, which must be at least %d: raise its max_msg_size, or the server's max_payload",
			result.JetStreamName, result.MaxEventBytes, minEventBytes)
	}
	return result, nil
}

// mended is config as it must be, with everything else as its owner set it.
func mended(config jetstream.StreamConfig, spec StreamSpec) jetstream.StreamConfig {
	if !slices.Contains(config.Subjects, subjects(spec.Stream)) {
		config.Subjects = append(slices.Clone(config.Subjects), subjects(spec.Stream))
	}
	config.Discard = jetstream.DiscardNew
	config.NoAck = false
	if config.Duplicates <= spec.MinDuplicates {
		config.Duplicates = max(duplicates, 2*spec.MinDuplicates)
	}
	return config
}

// Check says what is wrong with the stream of spec: nil if it is as it must be,
// [ErrUnreachable] if nobody answers, else everything that is wrong, by name.
func (publisher *Publisher) Check(ctx context.Context, spec StreamSpec) (string, error) {
	name := StreamName(spec.Stream)
	stream, err := publisher.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return "", fmt.Errorf("stream %s does not exist; run 'truegreen broker provision'", name)
	}
	if err != nil {
		return "", fmt.Errorf("look at stream %s: %w", name, publisher.reachError(err))
	}
	config := stream.CachedInfo().Config
	var wrong []error
	complain := func(what string) {
		wrong = append(wrong, fmt.Errorf("stream %s %s; run 'truegreen broker provision'", name, what))
	}
	if !slices.Contains(config.Subjects, subjects(spec.Stream)) {
		complain("does not cover " + subjects(spec.Stream))
	}
	if config.NoAck {
		complain("gives no acknowledgements (no_ack)")
	}
	if config.Sealed {
		wrong = append(wrong, fmt.Errorf("stream %s is sealed and takes nothing; remove it or use another broker", name))
	}
	if config.Duplicates <= spec.MinDuplicates {
		complain(fmt.Sprintf("forgets duplicates after %s, which must be more than %s", config.Duplicates, spec.MinDuplicates))
	}
	if config.Discard != jetstream.DiscardNew {
		complain("throws old events away when it is full (discard: old), which must be discard: new")
	}
	if limit := publisher.maxEventBytes(config, spec); limit < spec.MaxEventBytes {
		complain(fmt.Sprintf("takes events of at most %d bytes, but appends are let in up to %d", limit, spec.MaxEventBytes))
	}
	return durability(config), errors.Join(wrong...)
}

// maxEventBytes is how large an application's event may be, so that the broker
// takes it with its envelope.
func (publisher *Publisher) maxEventBytes(config jetstream.StreamConfig, spec StreamSpec) int {
	limit := int(publisher.conn.MaxPayload())
	if config.MaxMsgSize > 0 {
		limit = min(limit, int(config.MaxMsgSize))
	}
	return min(limit-envelopeBytes, spec.MaxEventBytes)
}

func isDurable(config jetstream.StreamConfig) bool {
	return config.Storage == jetstream.FileStorage && config.Replicas >= 3
}

// durability says in words what an acknowledgement of the stream survives.
func durability(config jetstream.StreamConfig) string {
	if config.Storage == jetstream.MemoryStorage {
		return fmt.Sprintf("memory, %d replicas: lost when they restart", max(config.Replicas, 1))
	}
	if isDurable(config) {
		return fmt.Sprintf("file, %d replicas", config.Replicas)
	}
	return fmt.Sprintf("file, %d replica: an acknowledgement may not survive a power cut, unless the server syncs always", max(config.Replicas, 1))
}

// reachError turns the client's ways of saying that nobody answers into one.
func (publisher *Publisher) reachError(err error) error {
	var apiErr *jetstream.APIError
	if errors.As(err, &apiErr) {
		return err
	}
	if !publisher.conn.IsConnected() || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}
