package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// eventRow is an event as the view outbox_events has it.
type eventRow struct {
	Attempts       int        `db:"attempts"`
	BrokerRef      string     `db:"broker_ref"`
	EventID        uuid.UUID  `db:"event_id"`
	Failures       int        `db:"failures"`
	ID             int64      `db:"id"`
	Key            string     `db:"key"`
	KeySeq         int64      `db:"key_seq"`
	LastAttemptAt  *time.Time `db:"last_attempt_at"`
	LastError      string     `db:"last_error"`
	LastErrorClass string     `db:"last_error_class"`
	NotBefore      *time.Time `db:"not_before"`
	ParkReason     string     `db:"park_reason"`
	PublishedAt    *time.Time `db:"published_at"`
	State          string     `db:"state"`
	Type           string     `db:"type"`
}

const selectEvents = `
	SELECT attempts, coalesce(broker_ref, '') AS broker_ref, event_id, failures, id, key, key_seq, last_attempt_at,
		coalesce(last_error, '') AS last_error, coalesce(last_error_class, '') AS last_error_class, not_before,
		coalesce(park_reason, '') AS park_reason, published_at, state, type
	FROM outbox_events `

// rows are all events of a stream, in the order of their appends.
func (bundle *testBundle) rows(ctx context.Context, t *testing.T, stream outbox.Stream) []eventRow {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, selectEvents+`WHERE stream = $1 ORDER BY id`, stream.Name)
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, pgx.RowToStructByName[eventRow])
	require.NoError(t, err)
	return events
}

// row is one event.
func (bundle *testBundle) row(ctx context.Context, t *testing.T, eventID uuid.UUID) eventRow {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, selectEvents+`WHERE event_id = $1`, eventID)
	require.NoError(t, err)
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[eventRow])
	require.NoError(t, err)
	return row
}

// states counts the events of a stream by state.
func (bundle *testBundle) states(ctx context.Context, t *testing.T, stream outbox.Stream) map[string]int {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `SELECT state, count(*) FROM outbox_events WHERE stream = $1 GROUP BY state`, stream.Name)
	require.NoError(t, err)
	states := make(map[string]int)
	var state string
	var num int
	_, err = pgx.ForEachRow(rows, []any{&state, &num}, func() error { states[state] = num; return nil })
	require.NoError(t, err)
	return states
}

// jobRow is a publish job.
type jobRow struct {
	Attempt     int        `db:"attempt"`
	AttemptedAt *time.Time `db:"attempted_at"`
	Errors      []string   `db:"errors"`
	ID          int64      `db:"id"`
	Neutral     bool       `db:"neutral"`
	NumRepeats  int        `db:"num_repeats"` // what the broker knew already
	ScheduledAt time.Time  `db:"scheduled_at"`
	State       string     `db:"state"`
}

// jobs are the publish jobs of the shard that tests use, oldest first.
func (bundle *testBundle) jobs(ctx context.Context, t *testing.T, stream outbox.Stream) []jobRow {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT attempt, attempted_at, id, scheduled_at, state::text,
			ARRAY(SELECT told ->> 'error' FROM unnest(errors) AS told) AS errors,
			coalesce((metadata -> 'output' ->> 'neutral')::boolean, false) AS neutral,
			coalesce((metadata -> 'output' -> 'result' ->> 'num_duplicate')::integer, 0) AS num_repeats
		FROM river_job WHERE kind = $1 AND args = jsonb_build_object('shard', $2::integer) ORDER BY id`, stream.JobKind, shard)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[jobRow])
	require.NoError(t, err)
	return found
}

// failure waits for the first job that has an error, and returns it.
func (bundle *testBundle) failure(ctx context.Context, t *testing.T, stream outbox.Stream) jobRow {
	t.Helper()
	var failed jobRow
	bundle.await(ctx, t, "a job of "+stream.Name+" has failed", func() bool {
		for _, job := range bundle.jobs(ctx, t, stream) {
			if len(job.Errors) > 0 {
				failed = job
				return true
			}
		}
		return false
	})
	return failed
}

// requireNoQuietFailure checks what holds of jobs whatever happens: none is
// cancelled, none is snoozed, and an attempt that was begun and did not complete
// its job has left its error.
func (bundle *testBundle) requireNoQuietFailure(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	for _, job := range bundle.jobs(ctx, t, stream) {
		require.NotContains(t, []string{"cancelled", "scheduled"}, job.State, "%s: %+v", stream.Name, job)
		switch job.State {
		case "available", "retryable":
			require.Len(t, job.Errors, job.Attempt, "%s: %+v", stream.Name, job)
		case "completed":
			require.Len(t, job.Errors, job.Attempt-1, "%s: %+v", stream.Name, job)
		}
	}
}

// backoff is how long a shard rests from now on, at most; 0 if it does not.
func (bundle *testBundle) backoff(ctx context.Context, t *testing.T, stream outbox.Stream) (rest time.Duration) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `
		SELECT coalesce(greatest(backoff_until - clock_timestamp(), '0'), '0') FROM outbox_shard WHERE stream = $1 AND shard = $2`,
		stream.Name, shard).Scan(&rest))
	return rest
}

// lastSuccess is when a loop last proved itself; nil for never.
func (bundle *testBundle) lastSuccess(ctx context.Context, t *testing.T, stream outbox.Stream) (at *time.Time) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT max(last_success_at) FROM loop_progress WHERE loop = $1`, stream.Loop()).Scan(&at))
	return at
}

// requireConsistent compares the events with what the broker holds: each
// published one is there once, where broker_ref says; nothing is there twice; and
// each key's events came in order.
func (bundle *testBundle) requireConsistent(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	stored := make(map[string]message)
	lastSeq := make(map[string]int64)
	for _, one := range bundle.broker.messages(ctx, t, stream) {
		require.NotContains(t, stored, one.eventID, "%s: the broker holds an event twice", stream.Name)
		stored[one.eventID] = one
		require.Greater(t, one.keySeq, lastSeq[one.key], "%s: key %s is out of order", stream.Name, one.key)
		lastSeq[one.key] = one.keySeq
	}
	known := make(map[string]bool)
	for _, row := range bundle.rows(ctx, t, stream) {
		known[row.EventID.String()] = true
		if row.State != "published" {
			require.Nil(t, row.PublishedAt)
			require.Empty(t, row.BrokerRef)
			continue
		}
		require.NotNil(t, row.PublishedAt)
		want := message{eventID: row.EventID.String(), key: row.Key, keySeq: row.KeySeq, kind: row.Type, ref: row.BrokerRef}
		got := stored[row.EventID.String()]
		got.header = nil
		require.Equal(t, want, got, "%s: event %d", stream.Name, row.ID)
	}
	for id := range stored {
		require.True(t, known[id], "%s: the broker holds an event that is not ours", stream.Name)
	}
}

// requireDelivered waits until all of a stream is published, and checks it.
func (bundle *testBundle) requireDelivered(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	bundle.await(ctx, t, "all of "+stream.Name+" is published", func() bool {
		states := bundle.states(ctx, t, stream)
		return len(states) == 1 && states["published"] > 0
	})
	bundle.requireConsistent(ctx, t, stream)
	require.Len(t, bundle.rows(ctx, t, stream), bundle.broker.numStored(ctx, t, stream))
	bundle.await(ctx, t, "the jobs of "+stream.Name+" are through", func() bool {
		for _, job := range bundle.jobs(ctx, t, stream) {
			if job.State != "completed" && job.State != "discarded" {
				return false
			}
		}
		return true
	})
	bundle.requireNoQuietFailure(ctx, t, stream)
}

// published are the acknowledgements that are stored, by event.
func (bundle *testBundle) published(ctx context.Context, t *testing.T, stream outbox.Stream) map[uuid.UUID]string {
	t.Helper()
	acknowledgements := make(map[uuid.UUID]string)
	for _, row := range bundle.rows(ctx, t, stream) {
		if row.PublishedAt != nil {
			acknowledgements[row.EventID] = fmt.Sprintf("%s at %s", row.BrokerRef, row.PublishedAt)
		}
	}
	return acknowledgements
}

// requireKept checks that acknowledgements that were stored are stored still.
func (bundle *testBundle) requireKept(ctx context.Context, t *testing.T, stream outbox.Stream, before map[uuid.UUID]string) {
	t.Helper()
	require.NotEmpty(t, before)
	require.Subset(t, bundle.published(ctx, t, stream), before)
}

// sequence is what the broker holds of a key, in its order: "1", or "2 gap" for a
// marker.
func (bundle *testBundle) sequence(ctx context.Context, t *testing.T, stream outbox.Stream, key string) []string {
	t.Helper()
	var sequence []string
	for _, one := range bundle.broker.messages(ctx, t, stream) {
		switch {
		case one.key != key:
		case one.kind == "truegreen.gap.v1":
			sequence = append(sequence, fmt.Sprintf("%d gap", one.keySeq))
		default:
			sequence = append(sequence, fmt.Sprint(one.keySeq))
		}
	}
	return sequence
}
