package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/outbox"
)

func TestReadParked(t *testing.T) {
	t.Parallel()

	t.Run("ListsThoseFirstThatAreParkedForLongest", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		for n, key := range []string{"new", "old", "middle"} {
			bundle.park(ctx, t, parking{age: []time.Duration{time.Hour, 3 * time.Hour, 2 * time.Hour}[n], key: key})
		}
		bundle.stage(ctx, t, "pending")

		list, err := outbox.ReadParked(ctx, bundle.db.Pool, outbox.ParkedFilter{}, 2)
		require.NoError(t, err)
		require.Equal(t, int64(3), list.NumMatching)
		require.Equal(t, []string{"old", "middle"}, keysOf(list))

		event := list.Events[0]
		require.InDelta(t, 3*time.Hour, event.ParkedAge, float64(10*time.Minute))
		require.Equal(t, outbox.ParkedEvent{
			Attempts: 2, CreatedAt: event.CreatedAt, ErrorClass: "row", EventID: event.EventID, Failures: 2, Key: "old", KeySeq: 1,
			LastError: "refused", ParkedAge: event.ParkedAge, ParkedAt: event.ParkedAt, ParkedBlocks: true, ParkReason: "row",
			Stream: outbox.StreamRolling, Type: "rolling.accrued.v1",
		}, event)
	})

	t.Run("ListsWhatMatchesEveryPartOfTheFilter", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.park(ctx, t, parking{age: 3 * time.Hour, class: "permanent", key: "a", reason: "permanent"})
		bundle.park(ctx, t, parking{age: time.Hour, class: "row", key: "b", reason: "row"})
		bundle.park(ctx, t, parking{age: time.Minute, class: "ambiguous", key: "a", reason: "crash", stream: outbox.StreamAgent, typ: "agent.earned.v1"})
		var parkedAt time.Time
		bundle.scan(ctx, t, &parkedAt, `SELECT parked_at FROM outbox_delivery WHERE key = 'b'`)

		for name, tc := range map[string]struct {
			filter outbox.ParkedFilter
			want   []string
		}{
			"Everything":      {outbox.ParkedFilter{}, []string{"rolling/a", "rolling/b", "agent/a"}},
			"ErrorClass":      {outbox.ParkedFilter{ErrorClass: "ambiguous"}, []string{"agent/a"}},
			"Key":             {outbox.ParkedFilter{Key: "a"}, []string{"rolling/a", "agent/a"}},
			"KeyAndStream":    {outbox.ParkedFilter{Key: "a", Stream: "agent"}, []string{"agent/a"}},
			"ParkReason":      {outbox.ParkedFilter{ParkReason: "permanent"}, []string{"rolling/a"}},
			"Stream":          {outbox.ParkedFilter{Stream: "rolling"}, []string{"rolling/a", "rolling/b"}},
			"Type":            {outbox.ParkedFilter{Type: "agent.earned.v1"}, []string{"agent/a"}},
			"ParkedAfterAge":  {outbox.ParkedFilter{ParkedAfter: outbox.Moment{Ago: 2 * time.Hour}}, []string{"rolling/b", "agent/a"}},
			"ParkedBeforeAge": {outbox.ParkedFilter{ParkedBefore: outbox.Moment{Ago: 30 * time.Minute}}, []string{"rolling/a", "rolling/b"}},
			"ParkedBetween":   {outbox.ParkedFilter{ParkedAfter: outbox.Moment{Ago: 2 * time.Hour}, ParkedBefore: outbox.Moment{Ago: 30 * time.Minute}}, []string{"rolling/b"}},
			"ParkedThenOrLater": {
				outbox.ParkedFilter{ParkedAfter: outbox.Moment{At: parkedAt}}, []string{"rolling/b", "agent/a"},
			},
			"ParkedBeforeThen": {outbox.ParkedFilter{ParkedBefore: outbox.Moment{At: parkedAt}}, []string{"rolling/a"}},
			"Nothing":          {outbox.ParkedFilter{Key: "a", ParkReason: "row"}, []string{}},
		} {
			list, err := outbox.ReadParked(ctx, bundle.db.Pool, tc.filter, 10)
			require.NoError(t, err, name)
			got := []string{}
			for _, event := range list.Events {
				got = append(got, event.Stream+"/"+event.Key)
			}
			require.Equal(t, tc.want, got, name)
			require.Equal(t, int64(len(tc.want)), list.NumMatching, name)
		}
	})

	t.Run("RefusesAStreamThatIsNone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		_, err := outbox.ReadParked(ctx, bundle.db.Pool, outbox.ParkedFilter{Stream: "walet"}, 10)
		require.True(t, fault.Is(err, fault.KindNotFound))
		require.ErrorContains(t, err, `there is no stream "walet"; there are agent, rolling, wallet`)
	})
}

// parking is an event that is set aside. What is empty is as of an ordinary one of
// the rolling stream.
type parking struct {
	age    time.Duration // since it was parked
	class  string
	key    string
	reason string
	stream string
	typ    string
}

func (bundle *testBundle) append(ctx context.Context, t *testing.T, p parking) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	bundle.scan(ctx, t, &id, `SELECT outbox_append(coalesce(nullif($1, ''), 'rolling'), $2, coalesce(nullif($3, ''), 'rolling.accrued.v1'), '{"n":1}')`,
		p.stream, p.key, p.typ)
	return id
}

// park appends an event and sets it aside.
func (bundle *testBundle) park(ctx context.Context, t *testing.T, p parking) uuid.UUID {
	t.Helper()
	id := bundle.append(ctx, t, p)
	bundle.setAside(ctx, t, id, p)
	return id
}

func (bundle *testBundle) setAside(ctx context.Context, t *testing.T, id uuid.UUID, p parking) {
	t.Helper()
	bundle.exec(ctx, t, `
		UPDATE outbox_delivery
		SET attempts = 2, crashes = 1, failures = 2, first_failed_at = now(), last_attempt_at = now(), last_error = 'refused',
			last_error_class = coalesce(nullif($2, ''), 'row'), not_before = now(), park_reason = coalesce(nullif($3, ''), 'row'), parked_at = now() - $4::interval
		WHERE id = (SELECT id FROM outbox_event WHERE event_id = $1)`, id, p.class, p.reason, p.age)
}

func keysOf(list outbox.ParkedList) []string {
	var keys []string
	for _, event := range list.Events {
		keys = append(keys, event.Key)
	}
	return keys
}
