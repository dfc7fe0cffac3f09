package outbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/outbox"
)

func TestPreviewDecision(t *testing.T) {
	t.Parallel()

	t.Run("CountsAndShowsTheFirstAndChangesNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		for n := range 7 {
			bundle.park(ctx, t, parking{age: time.Duration(10-n) * time.Minute, key: fmt.Sprintf("k%d", n)})
		}
		bundle.park(ctx, t, parking{key: "k7", stream: outbox.StreamAgent})
		before := bundle.dump(ctx, t)

		decided, err := outbox.PreviewDecision(ctx, bundle.db.Pool, outbox.ActRedrive, outbox.ParkedSelection{Filter: outbox.ParkedFilter{ParkReason: "row"}})
		require.NoError(t, err)
		require.Equal(t, int64(8), decided.NumEvents)
		require.Equal(t, []outbox.DecidedStream{
			{Name: outbox.StreamAgent, NumEvents: 1}, {Name: outbox.StreamRolling, NumEvents: 7, ParkedBlocks: true},
		}, decided.Streams)
		require.Equal(t, []string{"k0", "k1", "k2", "k3", "k4"}, keysOf(outbox.ParkedList{Events: decided.First}))
		require.Equal(t, before, bundle.dump(ctx, t))
	})

	t.Run("FindsNothingWithoutAnError", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		decided, err := outbox.PreviewDecision(ctx, bundle.db.Pool, outbox.ActRedrive, outbox.ParkedSelection{Filter: outbox.ParkedFilter{Stream: outbox.StreamWallet}})
		require.NoError(t, err)
		require.Zero(t, decided.NumEvents)
		require.Empty(t, decided.Streams)
	})

	t.Run("RefusesWhatADecisionWould", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		parked := bundle.park(ctx, t, parking{key: "a"})
		unknown := uuid.New()
		_, err := outbox.PreviewDecision(ctx, bundle.db.Pool, outbox.ActRedrive, outbox.ParkedSelection{EventIDs: []uuid.UUID{parked, unknown}})
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.ErrorContains(t, err, "event "+unknown.String()+" is unknown, and only parked events can be redriven")

		_, err = outbox.PreviewDecision(ctx, bundle.db.Pool, outbox.ActRedrive, outbox.ParkedSelection{})
		require.True(t, fault.Is(err, fault.KindInvalid))
	})
}

func TestDecide_Redrive(t *testing.T) {
	t.Parallel()

	t.Run("MakesEventsDueAsIfTheyHadNeverFailedAndAssuresAJob", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		id := bundle.park(ctx, t, parking{key: key})
		bundle.stage(ctx, t, key)
		require.Equal(t, []string{key + "#1 parked", key + "#2 blocked"}, bundle.states(ctx, t))
		bundle.exec(ctx, t, `DELETE FROM river_job`)

		decided, err := outbox.Decide(ctx, bundle.db.Pool, redrive(id))
		require.NoError(t, err)
		require.Equal(t, outbox.Decided{NumEvents: 1, Streams: []outbox.DecidedStream{{Name: outbox.StreamRolling, NumEvents: 1, ParkedBlocks: true}}}, decided)
		require.Equal(t, []string{key + "#1 pending", key + "#2 pending"}, bundle.states(ctx, t))
		var fresh bool
		bundle.scan(ctx, t, &fresh, `
			SELECT failures = 0 AND crashes = 0 AND num_nonnulls(first_failed_at, parked_at, park_reason) = 0 AND not_before <= clock_timestamp()
			FROM outbox_delivery WHERE id = 1`)
		require.True(t, fresh)
		var jobs string
		bundle.scan(ctx, t, &jobs, `SELECT string_agg(kind || args, ' ') FROM river_job WHERE state = 'available'`)
		require.Equal(t, `outbox_rolling{"shard": 0}`, jobs)

		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.NoError(t, err)
		require.Equal(t, []string{key + "#1", key + "#2"}, bundle.broker.keys())
		require.Equal(t, id, bundle.broker.sent[0].EventID, "the broker and consumers know it by its id")
	})

	t.Run("IsRecordedForEachEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		first, second := bundle.park(ctx, t, parking{key: "a"}), bundle.park(ctx, t, parking{key: "b", stream: outbox.StreamAgent})
		_, err := outbox.Decide(ctx, bundle.db.Pool, redrive(second, first))
		require.NoError(t, err)
		require.Equal(t, []string{
			fmt.Sprintf("redrive rolling a#1 %s by ana: limits raised", first), fmt.Sprintf("redrive agent b#1 %s by ana: limits raised", second),
		}, bundle.interventions(ctx, t))
	})

	t.Run("TakesWhatMatchesTheFilterAlone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.park(ctx, t, parking{key: "a", reason: "permanent"})
		bundle.park(ctx, t, parking{key: "b", reason: "crash"})
		bundle.park(ctx, t, parking{key: "c", reason: "permanent", stream: outbox.StreamAgent})
		decided, err := outbox.Decide(ctx, bundle.db.Pool, outbox.Decision{
			Act: outbox.ActRedrive, By: "ana", Reason: "limits raised", Selection: outbox.ParkedSelection{Filter: outbox.ParkedFilter{ParkReason: "permanent"}},
		})
		require.NoError(t, err)
		require.Equal(t, int64(2), decided.NumEvents)
		require.Equal(t, []string{"a#1 pending", "b#1 parked", "c#1 pending"}, bundle.states(ctx, t))
	})

	t.Run("CountsAnEventThatIsNamedTwiceOnce", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		id := bundle.park(ctx, t, parking{key: "a"})
		decided, err := outbox.Decide(ctx, bundle.db.Pool, redrive(id, id))
		require.NoError(t, err)
		require.Equal(t, int64(1), decided.NumEvents)
		require.Len(t, bundle.interventions(ctx, t), 1)
	})
}

func TestDecide_Discard(t *testing.T) {
	t.Parallel()

	t.Run("LeavesAGapMarkerInThePlaceOfTheEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		id := bundle.park(ctx, t, parking{key: key})
		bundle.stage(ctx, t, key)

		decided, err := outbox.Decide(ctx, bundle.db.Pool, discard(id))
		require.NoError(t, err)
		require.Equal(t, []outbox.DecidedStream{{Name: outbox.StreamRolling, NumEvents: 1, ParkedBlocks: true}}, decided.Streams)
		require.Equal(t, []string{key + "#1 discarded", key + "#2 pending", key + "#1 pending"}, bundle.states(ctx, t))
		var payload string
		bundle.scan(ctx, t, &payload, `SELECT payload FROM outbox_events WHERE type = 'truegreen.gap.v1' AND key_seq = 1`)
		require.JSONEq(t, fmt.Sprintf(`{"event_id": %q, "reason": "test data", "type": "rolling.accrued.v1"}`, id), payload)
		require.Equal(t, []string{fmt.Sprintf("discard rolling %s#1 %s by ana: test data", key, id)}, bundle.interventions(ctx, t))

		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, key))
		require.NoError(t, err)
		require.Equal(t, []string{key + "#1", key + "#2"}, bundle.broker.keys(), "the marker goes first, although it was appended last")
		require.Equal(t, "truegreen.gap.v1", bundle.broker.sent[0].Type)
		require.NotEqual(t, id, bundle.broker.sent[0].EventID)
	})

	t.Run("TakesEveryUndeliveredEventByItsName", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 3)
		bundle.stage(ctx, t, keys[0], keys[1], keys[1], keys[2])
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET attempts = 1, failures = 1, not_before = clock_timestamp() + interval '1 h' WHERE id = 2`)
		require.Equal(t, []string{keys[0] + "#1 pending", keys[1] + "#1 delayed", keys[1] + "#2 blocked", keys[2] + "#1 pending"}, bundle.states(ctx, t))
		ids := bundle.eventIDs(ctx, t)

		preview, err := outbox.PreviewDecision(ctx, bundle.db.Pool, outbox.ActDiscard, outbox.ParkedSelection{EventIDs: ids[:3]})
		require.NoError(t, err)
		require.Equal(t, int64(3), preview.NumEvents)
		require.Len(t, preview.First, 3)
		require.Zero(t, preview.First[0].ParkedAt)
		decided, err := outbox.Decide(ctx, bundle.db.Pool, discard(ids[:3]...))
		require.NoError(t, err)
		require.Equal(t, int64(3), decided.NumEvents)
		_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.Equal(t, []string{keys[0] + "#1", keys[1] + "#1", keys[1] + "#2", keys[2] + "#1"}, bundle.broker.keys())
		for _, sent := range bundle.broker.sent[:3] {
			require.Equal(t, "truegreen.gap.v1", sent.Type)
		}
		require.Len(t, bundle.interventions(ctx, t), 3)

		_, err = outbox.Decide(ctx, bundle.db.Pool, discard(ids[3]))
		require.ErrorContains(t, err, "is published, and only undelivered events can be discarded")
		_, err = outbox.Decide(ctx, bundle.db.Pool, discard(ids[0]))
		require.ErrorContains(t, err, "is discarded, and only undelivered events can be discarded")
	})

	t.Run("WaitsForALeaseThatHasTheEventInFlight", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		keys := bundle.neighbours(ctx, t, 2)
		bundle.stage(ctx, t, keys...)
		id := bundle.eventIDs(ctx, t)[0]
		answers := make(chan error, 1)
		bundle.broker.hook = func() {
			bundle.broker.hook = nil
			go func() {
				_, err := outbox.Decide(ctx, bundle.db.Pool, discard(id))
				answers <- err
			}()
			bundle.awaitDecision(ctx, t)
			require.Empty(t, answers)
		}
		_, err := bundle.relay.Drain(ctx, bundle.pass(ctx, t, keys[0]))
		require.NoError(t, err)
		require.ErrorContains(t, <-answers, "event "+id.String()+" is published")
		require.Equal(t, []string{keys[0] + "#1 published", keys[1] + "#1 published"}, bundle.states(ctx, t))
	})

	t.Run("IsSeenByAClaimThatBeganBefore", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		key := bundle.neighbours(ctx, t, 1)[0]
		bundle.stage(ctx, t, key)
		bundle.exec(ctx, t, `
			UPDATE outbox_shard SET lease_owner = 'test', lease_epoch = 7, lease_expires_at = clock_timestamp() + interval '1 h', leased_at = clock_timestamp()
			WHERE stream = 'rolling' AND shard = $1`, bundle.pass(ctx, t, key).Shard)
		claim := func() ([]*dbsqlc.OutboxDeliveryClaimRow, error) {
			return dbsqlc.New().OutboxDeliveryClaim(ctx, bundle.db.Pool, &dbsqlc.OutboxDeliveryClaimParams{
				ClosedKeys: []string{}, LeaseEpoch: 7, LeaseTtl: time.Hour, MaxEvents: 10, ParkedRowsBlock: true,
				Shard: int32(bundle.pass(ctx, t, key).Shard), Stream: outbox.StreamRolling,
			})
		}
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		_, err = outbox.Decide(ctx, tx, discard(bundle.eventIDs(ctx, t)[0]))
		require.NoError(t, err, "nobody has it in flight")
		claimed := make(chan []*dbsqlc.OutboxDeliveryClaimRow, 1)
		go func() {
			rows, err := claim()
			assert.NoError(t, err)
			claimed <- rows
		}()
		bundle.awaitLock(ctx, t, "OutboxDeliveryClaim")
		require.NoError(t, tx.Commit(ctx))
		require.Empty(t, <-claimed, "it read the event as it was before")
		rows, err := claim()
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.Equal(t, "truegreen.gap.v1", rows[0].Type)
	})

	t.Run("LeavesNoMarkerForAMarker", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		id := bundle.park(ctx, t, parking{key: "a"})
		_, err := outbox.Decide(ctx, bundle.db.Pool, discard(id))
		require.NoError(t, err)
		var marker uuid.UUID
		bundle.scan(ctx, t, &marker, `SELECT event_id FROM outbox_event WHERE type = 'truegreen.gap.v1'`)
		bundle.setAside(ctx, t, marker, parking{})

		decided, err := outbox.Decide(ctx, bundle.db.Pool, discard(marker))
		require.NoError(t, err)
		require.Equal(t, []outbox.DecidedStream{{Name: outbox.StreamRolling, NumEvents: 1, NumMarkers: 1, ParkedBlocks: true}}, decided.Streams)
		require.Equal(t, []string{"a#1 discarded", "a#1 discarded"}, bundle.states(ctx, t))
	})
}

func TestDecide_Refusals(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		change func(parked, pending uuid.UUID) outbox.Decision
		err    string
		kind   fault.Kind
	}{
		"AnEventThatIsNotParked": {
			func(parked, pending uuid.UUID) outbox.Decision { return redrive(parked, pending) },
			"is pending, and only parked events can be redriven; nothing was changed", fault.KindInvalid,
		},
		"AnEventThatIsUnknown": {
			func(parked, _ uuid.UUID) outbox.Decision { return discard(parked, uuid.Max) },
			"event " + uuid.Max.String() + " is unknown", fault.KindInvalid,
		},
		"NothingThatMatches": {
			func(uuid.UUID, uuid.UUID) outbox.Decision { return redriveMatching(outbox.ParkedFilter{Key: "other"}) },
			"redrive events: no parked event matches; nothing was changed", fault.KindNotFound,
		},
		"AStreamThatIsNone": {
			func(uuid.UUID, uuid.UUID) outbox.Decision {
				return redriveMatching(outbox.ParkedFilter{Stream: "walet"})
			},
			`there is no stream "walet"`, fault.KindNotFound,
		},
		"ASelectionOfEverything": {
			func(uuid.UUID, uuid.UUID) outbox.Decision { return redriveMatching(outbox.ParkedFilter{}) },
			"it must be said which events", fault.KindInvalid,
		},
		"ABlankReason": {
			func(parked, _ uuid.UUID) outbox.Decision {
				decision := redrive(parked)
				decision.Reason = " \t"
				return decision
			}, "it must be said who decides, and why", fault.KindInvalid,
		},
		"Nobody": {
			func(parked, _ uuid.UUID) outbox.Decision {
				decision := redrive(parked)
				decision.By = ""
				return decision
			}, "it must be said who decides, and why", fault.KindInvalid,
		},
		"AReasonThatIsTooLong": {
			func(parked, _ uuid.UUID) outbox.Decision {
				decision := redrive(parked)
				decision.Reason = strings.Repeat("é", 1001)
				return decision
			}, "redrive events: reason must say why, in 1 to 1000 characters", fault.KindInvalid,
		},
		"AnActThatIsNone": {
			func(parked, _ uuid.UUID) outbox.Decision {
				decision := redrive(parked)
				decision.Act = "forget"
				return decision
			}, "there is no such act", fault.KindInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			parked := bundle.park(ctx, t, parking{key: "a"})
			pending := bundle.append(ctx, t, parking{key: "b"})
			before := bundle.dump(ctx, t)

			_, err := outbox.Decide(ctx, bundle.db.Pool, tc.change(parked, pending))
			require.ErrorContains(t, err, tc.err)
			require.True(t, fault.Is(err, tc.kind), "%v", err)
			require.Equal(t, before, bundle.dump(ctx, t), "all or nothing")
		})
	}
}

func TestDecide_LateAcknowledgement(t *testing.T) {
	t.Parallel()

	// An acknowledgement arrives for one of two parked events, after both were
	// selected.
	decideMeanwhile := func(t *testing.T, bundle *testBundle, late uuid.UUID, decision outbox.Decision) (outbox.Decided, error) {
		t.Helper()
		ctx := t.Context()
		tx, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		_, err = tx.Exec(ctx, `
			UPDATE outbox_delivery SET published_at = now(), broker_ref = 'STUB/9'
			WHERE id = (SELECT id FROM outbox_event WHERE event_id = $1)`, late)
		require.NoError(t, err)

		type answer struct {
			decided outbox.Decided
			err     error
		}
		answers := make(chan answer, 1)
		go func() {
			decided, err := outbox.Decide(ctx, bundle.db.Pool, decision)
			answers <- answer{decided, err}
		}()
		bundle.awaitLock(ctx, t, "outbox_redrive")
		require.NoError(t, tx.Commit(ctx))
		got := <-answers
		return got.decided, got.err
	}

	t.Run("AFilterDecidesOnTheOthers", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.park(ctx, t, parking{key: "a"})
		late := bundle.park(ctx, t, parking{key: "b"})
		decided, err := decideMeanwhile(t, bundle, late, redriveMatching(outbox.ParkedFilter{Stream: outbox.StreamRolling}))
		require.NoError(t, err)
		require.Equal(t, int64(1), decided.NumEvents)
		require.Equal(t, []string{"a#1 pending", "b#1 published"}, bundle.states(ctx, t))
		require.Len(t, bundle.interventions(ctx, t), 1)
	})

	t.Run("NamedEventsAreAllOrNone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		other := bundle.park(ctx, t, parking{key: "a"})
		late := bundle.park(ctx, t, parking{key: "b"})
		_, err := decideMeanwhile(t, bundle, late, redrive(other, late))
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.ErrorContains(t, err, "event "+late.String()+" is published")
		require.Equal(t, []string{"a#1 parked", "b#1 published"}, bundle.states(ctx, t))
		require.Empty(t, bundle.interventions(ctx, t))
	})
}

func redrive(ids ...uuid.UUID) outbox.Decision {
	return outbox.Decision{Act: outbox.ActRedrive, By: "ana", Reason: "limits raised", Selection: outbox.ParkedSelection{EventIDs: ids}}
}

func redriveMatching(filter outbox.ParkedFilter) outbox.Decision {
	return outbox.Decision{Act: outbox.ActRedrive, By: "ana", Reason: "limits raised", Selection: outbox.ParkedSelection{Filter: filter}}
}

func discard(ids ...uuid.UUID) outbox.Decision {
	return outbox.Decision{Act: outbox.ActDiscard, By: "ana", Reason: "test data", Selection: outbox.ParkedSelection{EventIDs: ids}}
}

func (bundle *testBundle) interventions(ctx context.Context, t *testing.T) []string {
	t.Helper()
	return bundle.lines(ctx, t, `SELECT format('%s %s %s#%s %s by %s: %s', act, stream, key, key_seq, event_id, by_whom, reason) FROM outbox_intervention ORDER BY id`)
}

// eventIDs are the ids of all events, in the order of their appends.
func (bundle *testBundle) eventIDs(ctx context.Context, t *testing.T) []uuid.UUID {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `SELECT event_id FROM outbox_event ORDER BY id`)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)
	return ids
}

// awaitLock waits until a statement waits for a lock.
func (bundle *testBundle) awaitLock(ctx context.Context, t *testing.T, statement string) {
	t.Helper()
	bundle.awaitActivity(ctx, t, `wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'`, statement)
}

// awaitDecision waits until a decision waits for a lease.
func (bundle *testBundle) awaitDecision(ctx context.Context, t *testing.T) {
	t.Helper()
	bundle.awaitActivity(ctx, t, `wait_event = 'PgSleep' AND query LIKE '%' || $1 || '%'`, "outbox_discard")
}

func (bundle *testBundle) awaitActivity(ctx context.Context, t *testing.T, condition, statement string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var isWaiting bool
		bundle.scan(ctx, t, &isWaiting, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND `+condition+`)`, statement)
		return isWaiting
	}, 30*time.Second, 10*time.Millisecond)
}

// dump is everything that a decision may write.
func (bundle *testBundle) dump(ctx context.Context, t *testing.T) []string {
	t.Helper()
	return bundle.lines(ctx, t, `
		SELECT line FROM (
			SELECT d::text FROM outbox_delivery AS d
			UNION ALL SELECT e::text FROM outbox_event AS e
			UNION ALL SELECT i::text FROM outbox_intervention AS i
			UNION ALL SELECT j::text FROM river_job AS j
		) AS all_of_it (line) ORDER BY line`)
}

func (bundle *testBundle) lines(ctx context.Context, t *testing.T, query string) []string {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, query)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return lines
}
