package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

const (
	// DefaultGrace is a good [Options.Grace] beside live traffic: longer than a
	// publish job may hold an event before another one takes it over.
	DefaultGrace = 2 * time.Minute

	// DefaultMaxFindings is the default of [Options.MaxFindings].
	DefaultMaxFindings = 100

	// MaxMaxFindings bounds [Options.MaxFindings]: who has more has one cause to
	// look for, not findings to read.
	MaxMaxFindings = 10_000

	// closeTimeout bounds how long the end of the session is waited for.
	closeTimeout = 5 * time.Second

	// maxAsLength bounds [Options.As], in characters, as the record of
	// interventions does.
	maxAsLength = 200
)

// Message is one message of the broker, as its headers say.
type Message struct {
	EventID  string    // CloudEvents id; the dedupe id of the event
	Key      string    // the ordering key
	KeySeq   int64     // the event's number within its key, from 1
	Problem  string    // what is not as events are published, in words; "" if nothing
	Sequence uint64    // its place in the stream; up to the largest int64
	StoredAt time.Time // when the broker stored it, by the broker's clock; never zero
	Type     string
}

// Extent is the part of a stream that was read.
type Extent struct {
	// First is the place of the first message that the stream still held once it
	// was read: what is missing below it may have been removed by the broker's
	// retention. One above Last if nothing is left up to there.
	First uint64

	// Last is the last place of the stream when the reading began; 0 if it never
	// had a message.
	Last uint64

	// Name is what the broker calls the stream: the part before the slash of a
	// row's broker_ref.
	Name string

	// NumForeign is how many messages of others on the same stream were left out.
	NumForeign int64

	// Retention is what the broker removes of the stream by itself.
	Retention Retention
}

// Retention is what a broker removes from the front of a stream by itself. The zero
// value is nothing: whatever is gone from such a stream, somebody removed.
type Retention struct {
	// AnyAge says that it removes messages however young they are, such as the oldest
	// of a stream that is full.
	AnyAge bool

	// MaxAge is how long it keeps an event after its row could have been marked; 0
	// for however long. It is not looked at if AnyAge is set.
	MaxAge time.Duration
}

// Source reads the broker.
type Source interface {
	// Read calls each with every message that the outbox stream has at the broker,
	// in order of their places, up to the last one that it had when the call began.
	// What others publish on the broker's stream beside the outbox is left out. An
	// error of each ends the reading and is returned.
	Read(ctx context.Context, stream string, each func(Message) error) (Extent, error)
}

// Options are what a comparison may be told. The zero value compares all streams
// of a system at rest, and changes nothing.
type Options struct {
	// Adopt mends what can be mended: it marks rows as published whose events the
	// broker has, and raises the last numbers of keys to what the broker has.
	// Meant for after the restore of an older backup of the database.
	Adopt bool

	// As is who adopts, in 1 to 200 characters; it is recorded. Not looked at
	// unless Adopt is set.
	As string

	// Grace is how long a message may be at the broker before its unmarked row is
	// a finding: 0 on a system at rest, [DefaultGrace] beside live traffic. It
	// compares the broker's clock with the database's.
	Grace time.Duration

	// MaxFindings bounds the findings that are told, for each stream and kind; all
	// are counted. 0 means [DefaultMaxFindings]; at most [MaxMaxFindings].
	MaxFindings int

	// Streams are the outbox streams to compare; empty means all.
	Streams []string
}

func (options Options) withDefaults() Options {
	if options.MaxFindings == 0 {
		options.MaxFindings = DefaultMaxFindings
	}
	return options
}

func (options Options) validate() error {
	if options.MaxFindings < 1 || options.MaxFindings > MaxMaxFindings {
		return fault.Invalid("reconcile: MaxFindings must be from 1 to %d, got %d", MaxMaxFindings, options.MaxFindings)
	}
	if options.Grace < 0 {
		return fault.Invalid("reconcile: Grace must not be negative, got %s", options.Grace)
	}
	if length := utf8.RuneCountInString(options.As); options.Adopt && (length < 1 || length > maxAsLength) {
		return fault.Invalid("reconcile: As must say who adopts, in 1 to %d characters, got %d", maxAsLength, length)
	}
	return nil
}

// Run compares the rows of each stream with what source reads of it, and mends what
// it is told to. It reads whole tables, up to a minute for each million events on a
// busy machine, keeps nobody waiting, and has no timeout of its own. Twice does no
// harm.
//
// Findings are no error. After an error the report tells what was compared and
// adopted before. Fails with [fault.KindInvalid] for options out of bounds and with
// [fault.KindNotFound] for a stream that is none; source's errors are returned with
// the stream's name.
func Run(ctx context.Context, pool *pgxpool.Pool, source Source, options Options) (Report, error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return Report{}, err
	}
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: take a connection: %w", err)
	}
	// The session's tables and settings end with it.
	conn := pooled.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()

	var report Report
	streams, err := streamsOf(ctx, conn, options.Streams)
	if err != nil {
		return report, err
	}
	if _, err := conn.Exec(ctx, createTables); err != nil {
		return report, fmt.Errorf("reconcile: make temporary tables: %w", err)
	}
	for _, stream := range streams {
		comparison := &comparison{conn: conn, options: options, stream: stream}
		err := comparison.run(ctx, source)
		if comparison.compared {
			report.Findings = append(report.Findings, comparison.findings...)
			report.Streams = append(report.Streams, comparison.result)
		}
		if err != nil {
			return report, fmt.Errorf("reconcile stream %s: %w", stream.Stream, err)
		}
	}
	return report, nil
}

// streamsOf returns the streams of these names, or all.
func streamsOf(ctx context.Context, conn *pgx.Conn, names []string) ([]*dbsqlc.ReconcileStreamListRow, error) {
	streams, err := dbsqlc.New().ReconcileStreamList(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("reconcile: list streams: %w", err)
	}
	if len(names) == 0 {
		return streams, nil
	}
	known := make([]string, len(streams))
	for i, stream := range streams {
		known[i] = stream.Stream
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fault.NotFound("reconcile: there is no stream %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(streams, func(stream *dbsqlc.ReconcileStreamListRow) bool {
		return !slices.Contains(names, stream.Stream)
	}), nil
}
