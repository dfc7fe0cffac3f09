package natspublish

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamSpec is what the stream of one outbox stream must be like.
type StreamSpec struct {
	MaxEventBytes int           // payload and headers of the application
	MinDuplicates time.Duration // the duplicate window must be longer
	Stream        string        // the outbox stream

	// SyncAlways says that the server is known to sync each message before it
	// acknowledges it: nobody can ask a server for that.
	SyncAlways bool
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
// be, keeping everything else as its owner set it. Where the server or the owner's
// settings do not go together with atomic batches it does without them. It fails
// with [ErrUnreachable] when nobody answers.
func (publisher *Publisher) Provision(ctx context.Context, spec StreamSpec) (Provisioned, error) {
	result := Provisioned{Change: "unchanged", JetStreamName: StreamName(spec.Stream), Subjects: subjects(spec.Stream)}
	config, err := publisher.provision(ctx, spec, &result)
	if err != nil {
		return result, fmt.Errorf("provision stream %s: %w", result.JetStreamName, publisher.reachError(err))
	}
	// It may take now what it refused before.
	publisher.support.forget()
	report := publisher.report(config, spec)
	result.Durability = report.Durability
	result.Note = strings.Join(report.Notes, "; ")
	result.MaxEventBytes = publisher.maxEventBytes(config, spec)
	if result.MaxEventBytes < minEventBytes {
		return result, fmt.Errorf("provision stream %s: it takes events of at most %d bytes, which must be at least %d: raise its max_msg_size, or the server's max_payload",
			result.JetStreamName, result.MaxEventBytes, minEventBytes)
	}
	return result, nil
}

func (publisher *Publisher) provision(ctx context.Context, spec StreamSpec, result *Provisioned) (jetstream.StreamConfig, error) {
	stream, err := publisher.js.Stream(ctx, result.JetStreamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		result.Change = "created"
		return withBatches(jetstream.StreamConfig{
			Description: "truegreen outbox " + spec.Stream,
			Discard:     jetstream.DiscardNew,
			Duplicates:  max(duplicates, 2*spec.MinDuplicates),
			Name:        result.JetStreamName,
			Storage:     jetstream.FileStorage,
			Subjects:    []string{subjects(spec.Stream)},
		}, func(config jetstream.StreamConfig) (jetstream.Stream, error) {
			return publisher.js.CreateStream(ctx, config)
		})
	}
	if err != nil {
		return jetstream.StreamConfig{}, err //nolint:wrapcheck // by the caller
	}
	before := stream.CachedInfo().Config
	if before.Sealed {
		return before, errors.New("it is sealed, which cannot be undone: remove it or use another broker")
	}
	after, err := withBatches(mended(before, spec), func(config jetstream.StreamConfig) (jetstream.Stream, error) {
		if reflect.DeepEqual(config, before) {
			return stream, nil
		}
		return publisher.js.UpdateStream(ctx, config)
	})
	if err == nil && !reflect.DeepEqual(after, before) {
		result.Change = "updated"
	}
	return after, err
}

// withBatches makes or changes a stream so that it takes atomic batches, or as it
// is if it can't take them. It returns what the stream is like then.
func withBatches(config jetstream.StreamConfig, put func(jetstream.StreamConfig) (jetstream.Stream, error)) (jetstream.StreamConfig, error) {
	wanted := config
	wanted.AllowAtomicPublish = true
	stream, err := put(wanted)
	var apiErr *jetstream.APIError
	if errors.As(err, &apiErr) && !config.AllowAtomicPublish {
		// Before 2.12 a server may refuse what it does not know; later ones refuse it
		// beside some other settings.
		stream, err = put(config)
	}
	if err != nil {
		return config, err
	}
	return stream.CachedInfo().Config, nil
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
