package natspublish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/outbox"
)

// minReplicas is from how many replicas on an acknowledgement survives the loss
// of a server.
const minReplicas = 3

// Report says how well a stream keeps what it acknowledges.
type Report struct {
	Batches    bool   // it takes atomic batches
	Durability string // what an acknowledgement survives, in words
	// IsAtRisk: it is the wallet's, and a power cut may take what it acknowledged.
	// A warning to give, no reason not to start.
	IsAtRisk bool
	Notes    []string // what an operator should think about, one sentence each
	Replicas int
}

// String is the report in one line.
func (report Report) String() string {
	return strings.Join(append([]string{report.Durability}, report.Notes...), "; ")
}

// Check says what is wrong with the stream of spec: nil if it is as it must be,
// [ErrUnreachable] if nobody answers, else everything that is wrong, by name. The
// text is the [Report] of a stream that is right.
func (publisher *Publisher) Check(ctx context.Context, spec StreamSpec) (string, error) {
	report, err := publisher.Inspect(ctx, spec)
	if report.Durability == "" {
		return "", err
	}
	return report.String(), err
}

// Inspect is [Publisher.Check] with the report as it is. The report is empty if
// the stream was not found.
func (publisher *Publisher) Inspect(ctx context.Context, spec StreamSpec) (Report, error) {
	name := StreamName(spec.Stream)
	stream, err := publisher.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Report{}, fmt.Errorf("stream %s does not exist; run 'truegreen broker provision'", name)
	}
	if err != nil {
		return Report{}, fmt.Errorf("look at stream %s: %w", name, publisher.reachError(err))
	}
	config := stream.CachedInfo().Config
	return publisher.report(config, spec), publisher.complain(config, spec)
}

// complain names everything that config is and must not be.
func (publisher *Publisher) complain(config jetstream.StreamConfig, spec StreamSpec) error {
	var wrong []error
	complain := func(what string) {
		wrong = append(wrong, fmt.Errorf("stream %s %s; run 'truegreen broker provision'", config.Name, what))
	}
	if !slices.Contains(config.Subjects, subjects(spec.Stream)) {
		complain("does not cover " + subjects(spec.Stream))
	}
	if config.NoAck {
		complain("gives no acknowledgements (no_ack)")
	}
	if config.Sealed {
		wrong = append(wrong, fmt.Errorf("stream %s is sealed and takes nothing; remove it or use another broker", config.Name))
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
	return errors.Join(wrong...)
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

func (publisher *Publisher) report(config jetstream.StreamConfig, spec StreamSpec) Report {
	report := Report{Batches: config.AllowAtomicPublish, Replicas: max(config.Replicas, 1)}
	isFile := config.Storage == jetstream.FileStorage
	report.Durability = fmt.Sprintf("%s, %s", storage(config), count(report.Replicas, "replica"))
	isAsync := config.PersistMode == jetstream.AsyncPersistMode
	isSafe := isFile && (report.Replicas >= minReplicas || spec.SyncAlways && !isAsync)
	switch {
	case !isFile:
		report.Durability += ": lost when they restart"
	case isSafe && report.Replicas < minReplicas:
		report.Durability += ", synced to disk before each acknowledgement"
	case !isSafe:
		report.Durability += ": an acknowledgement may not survive a power cut, unless the server syncs always"
	}
	if !isSafe {
		report.IsAtRisk = spec.Stream == outbox.StreamWallet
		report.Notes = append(report.Notes,
			"for production: file storage with three replicas, or one server with sync_interval: always, which a client cannot see and an operator has to look up")
	}
	if isAsync {
		report.Notes = append(report.Notes, "acknowledges before anything is written (persist_mode: async)")
	}
	if !report.Batches {
		report.Notes = append(report.Notes,
			"takes no atomic batches (allow_atomic, nats-server 2.12 or later), which makes a backlog slower to drain: run 'truegreen broker provision'")
	}
	if config.MaxMsgsPerSubject > 0 && !config.DiscardNewPerSubject {
		report.Notes = append(report.Notes,
			fmt.Sprintf("throws events away above %d of one type (max_msgs_per_subject)", config.MaxMsgsPerSubject))
	}
	if config.Retention != jetstream.LimitsPolicy {
		report.Notes = append(report.Notes, "throws events away once its consumers have them, or at once if there are none (retention)")
	}
	return report
}

func storage(config jetstream.StreamConfig) string {
	if config.Storage == jetstream.MemoryStorage {
		return "memory"
	}
	return "file"
}

func count(num int, noun string) string {
	if num == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", num, noun)
}
