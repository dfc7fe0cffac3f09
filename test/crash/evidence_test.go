package crash_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// row is an event as the view outbox_events shows it.
type row struct {
	Attempts    int
	BrokerRef   *string
	EventID     string
	ID          int64
	Key         string
	KeySeq      int64
	NotBefore   *time.Time
	ParkReason  *string
	ParkedAt    *time.Time
	Payload     string
	PublishedAt *time.Time
	Shard       int
	State       string
	Stream      string
	Type        string
}

// job is a completed publish job, and what it says that it claimed, sent, and was
// told that it arrived.
type job struct {
	AttemptedAt  time.Time
	FinalizedAt  time.Time
	FirstID      int64
	ID           int64
	LastID       int64
	NumPublished int
	NumSent      int
	Shard        int
	Stream       string
}

// evidence is all that the checker knows.
type evidence struct {
	committed  map[string]appended
	jobs       []job
	messages   map[string][]message // by stream, in the broker's order
	rolledBack map[string]appended
	rows       []row // in order of id
}

// story tells all of one key, for a person.
func (found evidence) story(stream, key string) string {
	var text strings.Builder
	for _, message := range found.messages[stream] {
		if message.key == key {
			fmt.Fprintf(&text, "  message %d at %s: #%d %s %s\n", message.sequence, message.storedAt.Format(time.StampMicro), message.keySeq, message.typ, message.eventID)
		}
	}
	for _, row := range found.rows {
		if row.Key == key && row.Stream == stream {
			fmt.Fprintf(&text, "  row %d: #%d %s %s, %s, %d attempts", row.ID, row.KeySeq, row.Type, row.EventID, row.State, row.Attempts)
			if row.BrokerRef != nil {
				fmt.Fprintf(&text, ", at %s since %s", *row.BrokerRef, row.PublishedAt.Format(time.StampMicro))
			}
			if row.ParkedAt != nil {
				fmt.Fprintf(&text, ", parked at %s for %s", row.ParkedAt.Format(time.StampMicro), *row.ParkReason)
			}
			text.WriteString("\n")
		}
	}
	return text.String()
}

// gather reads a world that has come to rest.
func (w *world) gather(ctx context.Context, t *testing.T) evidence {
	t.Helper()
	found := evidence{
		committed:  w.application.committed,
		messages:   make(map[string][]message),
		rolledBack: w.application.rolledBack,
	}
	for _, stream := range streamNames() {
		messages, err := readBroker(ctx, w.js, stream)
		require.NoError(t, err)
		found.messages[stream] = messages
	}
	found.jobs = w.jobs(ctx, t)
	found.rows = w.rows(ctx, t)
	return found
}

func (w *world) jobs(ctx context.Context, t *testing.T) []job {
	t.Helper()
	rows, err := w.db.Pool.Query(ctx, `
		SELECT
			job.attempted_at,
			job.finalized_at,
			(job.metadata #>> '{output,result,first_id}')::bigint AS first_id,
			job.id,
			(job.metadata #>> '{output,result,last_id}')::bigint AS last_id,
			coalesce((job.metadata #>> '{output,result,num_published}')::integer, 0) AS num_published,
			coalesce((job.metadata #>> '{output,result,num_sent}')::integer, 0) AS num_sent,
			(job.args ->> 'shard')::integer AS shard,
			substr(job.kind, length('outbox_') + 1) AS stream
		FROM river_job AS job
		WHERE job.state = 'completed'
			AND job.kind LIKE 'outbox\_%'
			AND job.metadata #> '{output,result,first_id}' IS NOT NULL
		ORDER BY job.id`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[job])
	require.NoError(t, err)
	return all
}

func (w *world) rows(ctx context.Context, t *testing.T) []row {
	t.Helper()
	rows, err := w.db.Pool.Query(ctx, `
		SELECT
			event.attempts,
			event.broker_ref,
			event.event_id::text AS event_id,
			event.id,
			event.key,
			event.key_seq,
			event.not_before,
			event.park_reason,
			event.parked_at,
			event.payload::text AS payload,
			event.published_at,
			outbox_shard_of(event.key, stream.num_shards) AS shard,
			event.state,
			event.stream,
			event.type
		FROM outbox_events AS event
		JOIN outbox_stream AS stream ON stream.stream = event.stream
		ORDER BY event.id`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	require.NoError(t, err)
	return all
}
