package crash_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// poisonBatch is how many events a process of these tests sends at once.
const poisonBatch = 8

// TestDrain_Poisoned gives the processes an event that kills whoever has it in
// flight. Nothing else is in flight when they die.
func TestDrain_Poisoned(t *testing.T) {
	t.Parallel()

	t.Run("ParksTheEventAloneAndKeepsItsKeyWaiting", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		w := setup(ctx, t, 1, nil)
		keys := w.neighbours(ctx, t, "rolling")
		poison := w.poison(ctx, t, "rolling", keys, 0)
		numInFlight, last := w.dieOf(ctx, t, poison)
		require.Equal(t, []int{8, 4, 2, 1, 1}, numInFlight)

		// All but the key's are through.
		last.stop(t)
		require.Equal(t, []string{"#1 parked", "#2 blocked", "#3 blocked"}, w.states(ctx, t, "rolling", keys[0]))
		w.requireParkedFor(ctx, t, poison)
		w.requireSound(ctx, t)

		// A person may send it again, once it is mended.
		w.decide(ctx, t, "redrive", poison)
		w.drain(ctx, t)
		require.Equal(t, []string{"#1 published", "#2 published", "#3 published"}, w.states(ctx, t, "rolling", keys[0]))
		w.requireSound(ctx, t)
	})

	t.Run("LeavesAMarkerWhereTheStreamSkips", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		w := setup(ctx, t, 3, nil)
		keys := w.neighbours(ctx, t, "agent")
		// Those before it get through in the batches that are half as large.
		poison := w.poison(ctx, t, "agent", keys, 5)
		numInFlight, last := w.dieOf(ctx, t, poison)
		require.Equal(t, 8, numInFlight[0])
		require.Equal(t, []int{1, 1}, numInFlight[len(numInFlight)-2:])
		require.Len(t, slices.DeleteFunc(numInFlight, func(num int) bool { return num > 1 }), 2)
		last.stop(t)
		require.Equal(t, []string{"#1 parked", "#2 published", "#3 published", "#1 published"}, w.states(ctx, t, "agent", keys[0]))
		w.requireParkedFor(ctx, t, poison)
		messages, err := readBroker(ctx, w.js, "agent")
		require.NoError(t, err)
		var ofKey []string
		for _, message := range messages {
			if message.key == keys[0] {
				ofKey = append(ofKey, fmt.Sprintf("#%d %s", message.keySeq, message.typ))
			}
		}
		require.Equal(t, []string{"#1 truegreen.gap.v1", "#2 agent.happened.v1", "#3 agent.happened.v1"}, ofKey)
		w.requireSound(ctx, t)

		w.decide(ctx, t, "redrive", poison)
		w.drain(ctx, t)
		w.requireSound(ctx, t)
	})
}

// neighbours returns keys of a stream that share a shard.
func (w *world) neighbours(ctx context.Context, t *testing.T, stream string) []string {
	t.Helper()
	var keys []string
	err := w.db.Pool.QueryRow(ctx, `
		SELECT array_agg(candidate.key ORDER BY candidate.n)
		FROM (
			SELECT n, 'near-' || n AS key
			FROM generate_series(1, 1000) AS n, outbox_stream AS stream
			WHERE stream.stream = $1 AND outbox_shard_of('near-' || n, stream.num_shards) = 1
			ORDER BY n
			LIMIT 12
		) AS candidate`, stream).Scan(&keys)
	require.NoError(t, err)
	require.Len(t, keys, 12)
	return keys
}

// poison appends an event of the first of keys, behind numBefore events of others,
// and before more of all of them. It returns its id.
func (w *world) poison(ctx context.Context, t *testing.T, stream string, keys []string, numBefore int) string {
	t.Helper()
	w.application.commit(ctx, t, backlog(20)...)
	w.drain(ctx, t)
	var events []appended
	for _, key := range keys[1 : 1+numBefore] {
		events = append(events, appended{key: key, stream: stream})
	}
	events = append(events, appended{key: keys[0], stream: stream})
	for _, key := range append(slices.Clone(keys), keys...) {
		events = append(events, appended{key: key, stream: stream})
	}
	return w.application.commit(ctx, t, events...)[numBefore]
}

// dieOf starts processes until one survives the event, has published all that can
// be, and has a job say that something was not. It returns how many events the
// others had in flight.
func (w *world) dieOf(ctx context.Context, t *testing.T, poison string) ([]int, *process) {
	t.Helper()
	var numInFlight []int
	for range 15 {
		p := w.start(t, order{BatchSize: poisonBatch, Poison: poison, Step: stepPoison})
		require.Eventually(t, func() bool {
			var isThrough bool
			err := w.db.Pool.QueryRow(ctx, `
				SELECT NOT EXISTS (SELECT FROM outbox_events WHERE state NOT IN ('published', 'parked', 'blocked'))
					AND EXISTS (SELECT FROM outbox_events WHERE state = 'parked')
					AND EXISTS (SELECT FROM job_failures WHERE error NOT LIKE 'Stuck job rescued%')`).Scan(&isThrough)
			return p.hasExited() || err == nil && isThrough
		}, patience, poll)
		if !p.hasExited() {
			return numInFlight, p
		}
		numInFlight = append(numInFlight, len(p.requireKilled(t).IDs))
	}
	require.Fail(t, "processes go on dying", "with %v events in flight", numInFlight)
	return nil, nil
}

// states shows the events of a key, in order of id.
func (w *world) states(ctx context.Context, t *testing.T, stream, key string) []string {
	t.Helper()
	var states []string
	for _, row := range w.rows(ctx, t) {
		if row.Stream == stream && row.Key == key {
			states = append(states, fmt.Sprintf("#%d %s", row.KeySeq, row.State))
		}
	}
	return states
}

// requireParkedFor checks that one event was parked, and why.
func (w *world) requireParkedFor(ctx context.Context, t *testing.T, eventID string) {
	t.Helper()
	for _, row := range w.rows(ctx, t) {
		require.Equal(t, row.EventID == eventID, row.ParkedAt != nil, "event %d of key %s", row.ID, row.Key)
		if row.ParkedAt != nil {
			require.NotNil(t, row.ParkReason)
			require.Equal(t, "crash", *row.ParkReason)
		}
	}
}

// decide has a person decide on a parked event.
func (w *world) decide(ctx context.Context, t *testing.T, act, eventID string) {
	t.Helper()
	var num int64
	err := w.db.Pool.QueryRow(ctx, `SELECT outbox_`+act+`(ARRAY[$1::uuid], 'crash test', 'it was mended')`, eventID).Scan(&num)
	require.NoError(t, err)
	require.EqualValues(t, 1, num)
}
