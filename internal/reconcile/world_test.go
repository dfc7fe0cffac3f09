package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/reconcile"
)

const (
	agent   = "agent"   // counted, parked events are skipped
	rolling = "rolling" // counted, parked events block
	wallet  = "wallet"  // the caller supplies the numbers
)

// event is a row of the outbox.
type event struct {
	eventID string
	id      int64
	key     string
	keySeq  int64
	stream  string
	kind    string
}

func (e event) String() string { return fmt.Sprintf("%s#%d", e.key, e.keySeq) }

// world is an outbox and a broker that a test can bring apart.
type world struct {
	*dbtest.DB
	broker *broker
	events map[string]event // by event_id
	t      *testing.T
}

func setup(ctx context.Context, t *testing.T) *world {
	t.Helper()
	return &world{DB: dbtest.Database(ctx, t), broker: &broker{streams: make(map[string]*stored)}, events: make(map[string]event), t: t}
}

// broker is a source that has what it is given.
type broker struct {
	afterEnd  func() // called once the end of a reading is known
	beforeEnd func() // called when a reading begins
	err       error
	mislead   func(*reconcile.Extent)
	streams   map[string]*stored
}

type stored struct {
	first     uint64
	last      uint64
	messages  []reconcile.Message
	retention reconcile.Retention
}

func (b *broker) Read(_ context.Context, stream string, each func(reconcile.Message) error) (reconcile.Extent, error) {
	if b.err != nil {
		return reconcile.Extent{}, b.err
	}
	if b.beforeEnd != nil {
		b.beforeEnd()
	}
	held := b.stream(stream)
	extent := reconcile.Extent{First: held.first, Last: held.last, Name: "TRUEGREEN_" + strings.ToUpper(stream), Retention: held.retention}
	messages := slices.Clone(held.messages)
	if b.afterEnd != nil {
		b.afterEnd()
	}
	for _, message := range messages {
		if err := each(message); err != nil {
			return extent, err
		}
	}
	if b.mislead != nil {
		b.mislead(&extent)
	}
	return extent, nil
}

func (b *broker) stream(name string) *stored {
	if b.streams[name] == nil {
		b.streams[name] = &stored{first: 1}
	}
	return b.streams[name]
}

// append adds events of these keys.
func (w *world) append(ctx context.Context, stream string, keys ...string) []event {
	w.t.Helper()
	added := make([]event, len(keys))
	for i, key := range keys {
		var seq *int64
		if stream == wallet {
			seq = new(int64)
			*seq = 1
			for _, known := range w.events {
				if known.stream == stream && known.key == key {
					*seq = max(*seq, known.keySeq+1)
				}
			}
		}
		var id string
		require.NoError(w.t, w.Pool.QueryRow(ctx, "SELECT outbox_append($1, $2, 'test.happened.v1', '{}', '{}', $3)::text", stream, key, seq).Scan(&id))
		added[i] = w.row(ctx, id)
	}
	return added
}

func (w *world) row(ctx context.Context, eventID string) event {
	w.t.Helper()
	e := event{eventID: eventID}
	err := w.Pool.QueryRow(ctx, "SELECT id, key, key_seq, stream, type FROM outbox_events WHERE event_id = $1", eventID).Scan(&e.id, &e.key, &e.keySeq, &e.stream, &e.kind)
	require.NoError(w.t, err)
	w.events[eventID] = e
	return e
}

// store gives an event to the broker, and returns its place.
func (w *world) store(e event) uint64 {
	return w.storeAs(e.stream, reconcile.Message{EventID: e.eventID, Key: e.key, KeySeq: e.keySeq, Type: e.kind})
}

func (w *world) storeAs(stream string, message reconcile.Message) uint64 {
	held := w.broker.stream(stream)
	held.last++
	message.Sequence = held.last
	if message.StoredAt.IsZero() {
		message.StoredAt = time.Now().Add(-time.Minute)
	}
	held.messages = append(held.messages, message)
	return held.last
}

// remove takes a message from the broker; from the front, its retention may have done
// so.
func (w *world) remove(stream string, sequence uint64) {
	held := w.broker.stream(stream)
	held.messages = slices.DeleteFunc(held.messages, func(message reconcile.Message) bool { return message.Sequence == sequence })
	held.first = held.last + 1
	if len(held.messages) > 0 {
		held.first = held.messages[0].Sequence
	}
}

func ref(stream string, sequence uint64) string {
	return fmt.Sprintf("TRUEGREEN_%s/%d", strings.ToUpper(stream), sequence)
}

// mark stores an acknowledgement, as the relay does.
func (w *world) mark(ctx context.Context, e event, brokerRef string) {
	w.t.Helper()
	w.exec(ctx, "UPDATE outbox_delivery SET attempts = attempts + 1, broker_ref = $2, last_attempt_at = clock_timestamp(), published_at = clock_timestamp() WHERE id = $1", e.id, brokerRef)
}

// deliver stores and marks.
func (w *world) deliver(ctx context.Context, events ...event) {
	w.t.Helper()
	for _, e := range events {
		w.mark(ctx, e, ref(e.stream, w.store(e)))
	}
}

// force changes rows as no worker may.
func (w *world) force(ctx context.Context, sql string, args ...any) {
	w.t.Helper()
	conn, err := w.Pool.Acquire(ctx)
	require.NoError(w.t, err)
	defer conn.Release()
	for _, table := range []string{"outbox_event", "outbox_delivery"} {
		_, err = conn.Exec(ctx, "ALTER TABLE "+table+" DISABLE TRIGGER USER")
		require.NoError(w.t, err)
	}
	_, err = conn.Exec(ctx, sql, args...)
	require.NoError(w.t, err)
	for _, table := range []string{"outbox_event", "outbox_delivery"} {
		_, err = conn.Exec(ctx, "ALTER TABLE "+table+" ENABLE TRIGGER USER")
		require.NoError(w.t, err)
	}
}

// unmark makes an event look as if its acknowledgement had never been stored.
func (w *world) unmark(ctx context.Context, events ...event) {
	w.t.Helper()
	for _, e := range events {
		w.force(ctx, "UPDATE outbox_delivery SET attempts = 0, broker_ref = NULL, published_at = NULL WHERE id = $1", e.id)
	}
}

// forget removes an event, as the restore of an older backup does.
func (w *world) forget(ctx context.Context, e event) {
	w.t.Helper()
	w.force(ctx, "DELETE FROM outbox_event WHERE id = $1", e.id)
	w.force(ctx, "DELETE FROM outbox_delivery WHERE id = $1", e.id)
	w.exec(ctx, "UPDATE outbox_key SET last_seq = last_seq - 1 WHERE stream = $1 AND key = $2", e.stream, e.key)
}

func (w *world) exec(ctx context.Context, sql string, args ...any) {
	w.t.Helper()
	_, err := w.Pool.Exec(ctx, sql, args...)
	require.NoError(w.t, err)
}

// job inserts a completed publish job of the shard of a key, and returns its id.
func (w *world) job(ctx context.Context, stream, key, result string) int64 {
	w.t.Helper()
	var id int64
	err := w.Pool.QueryRow(ctx, `
		INSERT INTO river_job (args, attempted_at, finalized_at, kind, max_attempts, metadata, queue, state)
		SELECT jsonb_build_object('shard', outbox_shard_of($2, num_shards)), clock_timestamp(), clock_timestamp(), job_kind, 20,
			jsonb_build_object('output', jsonb_build_object('num_items', 1, 'result', $3::jsonb)), queue, 'completed'
		FROM outbox_stream WHERE stream = $1
		RETURNING id`, stream, key, result).Scan(&id)
	require.NoError(w.t, err)
	return id
}

// endJob sets when a job ended, a second after it began.
func (w *world) endJob(ctx context.Context, id int64, at string) {
	w.t.Helper()
	w.exec(ctx, "UPDATE river_job SET attempted_at = $2::text::timestamptz - interval '1 second', finalized_at = $2::text::timestamptz WHERE id = $1", id, at)
}

// resolve sets when rows were published, parked or discarded.
func (w *world) resolve(ctx context.Context, column, at string, events ...event) {
	w.t.Helper()
	for _, e := range events {
		w.force(ctx, "UPDATE outbox_delivery SET "+column+" = $2::text::timestamptz WHERE id = $1", e.id, at)
	}
}

// run compares one stream.
func (w *world) run(ctx context.Context, stream string, options reconcile.Options) (reconcile.Report, reconcile.StreamResult) {
	w.t.Helper()
	options.Streams = []string{stream}
	report, err := reconcile.Run(ctx, w.Pool, w.broker, options)
	require.NoError(w.t, err)
	require.Len(w.t, report.Streams, 1)
	return report, report.Streams[0]
}

// found is what a report says, short.
func (w *world) found(report reconcile.Report) []string {
	var found []string
	for _, finding := range report.Findings {
		of := finding.EventID
		if known, ok := w.events[finding.EventID]; ok {
			of = known.String()
		} else if _, err := uuid.Parse(of); err == nil {
			of = finding.Key + "#?"
		}
		line := strings.TrimSpace(fmt.Sprintf("%s %s", finding.Kind, of))
		if finding.Mended {
			line += " mended"
		}
		found = append(found, line)
	}
	return found
}
