package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

const (
	// smallMessage is the limit that tests lower a stream to.
	smallMessage = 6 << 10

	// large is an event that such a stream does not take, whatever it was told.
	large = 8 << 10
)

// lower has the broker's stream take less than events have that were let in.
func (b *broker) lower(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	b.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.MaxMsgSize = smallMessage })
}

// raise takes lower back.
func (b *broker) raise(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	b.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.MaxMsgSize = -1 })
}

// withLarge are events of the first of keys, the second of which is large, among
// events of the other keys.
func withLarge(keys []string, num int) []fact {
	facts := interleaved(keys, num)
	facts[len(keys)].numBytes = large
	return facts
}

// redrive and discard decide on parked events, as an operator does.
func (bundle *testBundle) redrive(ctx context.Context, t *testing.T, ids ...uuid.UUID) {
	t.Helper()
	bundle.exec(ctx, t, `SELECT outbox_redrive($1, 'test', 'the broker is mended')`, ids)
}

func (bundle *testBundle) discard(ctx context.Context, t *testing.T, ids ...uuid.UUID) {
	t.Helper()
	bundle.exec(ctx, t, `SELECT outbox_discard($1, 'test', 'nobody needs it')`, ids)
}

// parked are the ids in the view outbox_parked.
func (bundle *testBundle) parked(ctx context.Context, t *testing.T, stream outbox.Stream) (ids []uuid.UUID) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT coalesce(array_agg(event_id ORDER BY id), '{}') FROM outbox_parked WHERE stream = $1`, stream.Name).Scan(&ids))
	return ids
}

func TestPark_PermanentError(t *testing.T) {
	t.Parallel()
	for name, size := range sizes() {
		t.Run("SomeOf "+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, patient())
			keys := bundle.keys(ctx, t, size.numKeys)
			tooLarge := make(map[string]uuid.UUID)
			for _, stream := range bundle.streams {
				tooLarge[stream.Name] = bundle.stage(ctx, t, stream.Name, withLarge(keys, size.numEvents)...)[size.numKeys]
				bundle.broker.lower(ctx, t, stream)
				require.Less(t, bundle.provision(ctx, t, stream.Name), large)
			}
			bundle.start(ctx, t)

			perKey := size.numEvents / size.numKeys
			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.Contains(t, failed.Errors[0], "1 events not delivered and 1 of them parked, ")
				require.Contains(t, failed.Errors[0], " of key "+keys[0]+": permanent: refused by the broker")
				row := bundle.row(ctx, t, tooLarge[stream.Name])
				require.Equal(t, "parked", row.State)
				require.Equal(t, "permanent", row.ParkReason)
				require.Equal(t, []uuid.UUID{row.EventID}, bundle.parked(ctx, t, stream))
				bundle.requireParkPolicy(ctx, t, stream, keys[0], perKey)
				bundle.await(ctx, t, "the jobs of "+stream.Name+" are through", func() bool {
					return bundle.failure(ctx, t, stream).State == "completed"
				})
				require.Len(t, bundle.failure(ctx, t, stream).Errors, 1, "once it is parked the row is the witness")
				bundle.requireConsistent(ctx, t, stream)
			}
			for _, stream := range bundle.streams {
				before := bundle.published(ctx, t, stream)
				bundle.broker.raise(ctx, t, stream)
				bundle.redrive(ctx, t, tooLarge[stream.Name])
				bundle.requireRedriven(ctx, t, stream, keys[0], perKey)
				bundle.requireKept(ctx, t, stream, before)
			}
		})
	}

	t.Run("All", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, patient())
		keys := bundle.keys(ctx, t, 5)
		for _, stream := range bundle.streams {
			facts := interleaved(keys, 5)
			for i := range facts {
				facts[i].numBytes = large
			}
			bundle.stage(ctx, t, stream.Name, facts...)
			bundle.broker.lower(ctx, t, stream)
			bundle.provision(ctx, t, stream.Name)
		}
		bundle.start(ctx, t)
		for _, stream := range bundle.streams {
			failed := bundle.failure(ctx, t, stream)
			require.Contains(t, failed.Errors[0], "5 events not delivered and 5 of them parked, 0 acknowledged: event ")
			require.Len(t, bundle.parked(ctx, t, stream), 5)
			if stream.ParkedBlocks {
				require.Zero(t, bundle.broker.numStored(ctx, t, stream))
				continue
			}
			bundle.await(ctx, t, "the markers have gone", func() bool { return bundle.states(ctx, t, stream)["published"] == 5 })
			bundle.requireConsistent(ctx, t, stream)
			require.Equal(t, []string{"1 gap"}, bundle.sequence(ctx, t, stream, keys[4]))
		}
	})
}

// TestPark_NoMessageCanBeMadeOfIt has events stored that the client refuses to send, as
// an append once let them in: the broker is not to blame, and nothing waits for it.
func TestPark_NoMessageCanBeMadeOfIt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, patient())
	keys := bundle.keys(ctx, t, 4)
	unsendable := make(map[string]uuid.UUID)
	for _, stream := range bundle.streams {
		id := bundle.stage(ctx, t, stream.Name, interleaved(keys, 12)...)[4]
		bundle.exec(ctx, t, `BEGIN; SET LOCAL session_replication_role = replica; UPDATE outbox_event SET type = 'not sendable' WHERE event_id = '`+id.String()+`'; COMMIT`)
		unsendable[stream.Name] = id
	}
	bundle.start(ctx, t)
	for _, stream := range bundle.streams {
		failed := bundle.failure(ctx, t, stream)
		require.Contains(t, failed.Errors[0], "1 events not delivered and 1 of them parked, ")
		require.Contains(t, failed.Errors[0], ": permanent: no message can be made of it: nats: invalid subject")
		require.Zero(t, bundle.backoff(ctx, t, stream), "the broker is well")
		require.Equal(t, []uuid.UUID{unsendable[stream.Name]}, bundle.parked(ctx, t, stream))
		bundle.requireParkPolicy(ctx, t, stream, keys[0], 3)
	}
}

// requireParkPolicy checks what became of the perKey events of a key whose second
// one is parked, once everything else is delivered.
func (bundle *testBundle) requireParkPolicy(ctx context.Context, t *testing.T, stream outbox.Stream, key string, perKey int) {
	t.Helper()
	wantStates := map[string]int{"parked": 1}
	wantSequence := []string{"1"}
	for seq := 3; seq <= perKey; seq++ {
		if stream.ParkedBlocks {
			wantStates["blocked"]++
			continue
		}
		wantSequence = append(wantSequence, fmt.Sprint(seq))
	}
	if !stream.ParkedBlocks {
		wantSequence = slices.Insert(wantSequence, 1, "2 gap")
	}
	bundle.await(ctx, t, "all of "+stream.Name+" that may go has gone", func() bool {
		states := bundle.states(ctx, t, stream)
		return states["pending"] == 0 && states["delayed"] == 0
	})
	states := bundle.states(ctx, t, stream)
	delete(states, "published")
	require.Equal(t, wantStates, states, stream.Name)
	require.Equal(t, wantSequence, bundle.sequence(ctx, t, stream, key), stream.Name)
	for _, row := range bundle.rows(ctx, t, stream) {
		if row.State == "blocked" {
			require.Zero(t, row.Attempts)
		}
	}
}

// requireRedriven checks the same events once the second one is sent after all: in
// its place where the later ones waited, else behind them.
func (bundle *testBundle) requireRedriven(ctx context.Context, t *testing.T, stream outbox.Stream, key string, perKey int) {
	t.Helper()
	bundle.await(ctx, t, "all of "+stream.Name+" is published", func() bool {
		states := bundle.states(ctx, t, stream)
		return len(states) == 1 && states["published"] > 0
	})
	require.Len(t, bundle.rows(ctx, t, stream), bundle.broker.numStored(ctx, t, stream), "each event is there once")
	require.Empty(t, bundle.parked(ctx, t, stream))
	var want []string
	for seq := 1; seq <= perKey; seq++ {
		want = append(want, fmt.Sprint(seq))
	}
	if stream.ParkedBlocks {
		bundle.requireConsistent(ctx, t, stream)
	} else {
		want[1] = "2 gap"
		want = append(want, "2")
	}
	require.Equal(t, want, bundle.sequence(ctx, t, stream, key), stream.Name)
}

// TestPark_BrokerTakesLessThanProvisioned has the broker refuse an event that it
// should take: the broker's fault and not the event's.
func TestPark_BrokerTakesLessThanProvisioned(t *testing.T) {
	t.Parallel()
	for name, size := range sizes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, touchy(patient()))
			keys := bundle.keys(ctx, t, size.numKeys)
			refused := make(map[string]uuid.UUID)
			for _, stream := range bundle.streams {
				refused[stream.Name] = bundle.stage(ctx, t, stream.Name, withLarge(keys, size.numEvents)...)[size.numKeys]
				bundle.broker.lower(ctx, t, stream)
			}
			bundle.start(ctx, t)

			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.Contains(t, failed.Errors[0], "1 events not delivered, ")
				require.Contains(t, failed.Errors[0], ": infrastructure: the broker takes less than it was provisioned for")
				bundle.await(ctx, t, "it has failed again", func() bool { return bundle.row(ctx, t, refused[stream.Name]).Attempts > 1 })
				row := bundle.row(ctx, t, refused[stream.Name])
				require.Zero(t, row.Failures)
				require.Equal(t, "infrastructure", row.LastErrorClass)
				require.Empty(t, bundle.parked(ctx, t, stream))
				require.Equal(t, []string{"1"}, bundle.sequence(ctx, t, stream, keys[0]))
				bundle.requireConsistent(ctx, t, stream)
			}
			for _, stream := range bundle.streams {
				bundle.broker.raise(ctx, t, stream)
			}
			bundle.sweep(ctx, t)
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
			}
		})
	}
}

// poisoned are three events of each of two keys, the second of each poison, and three
// of a third key: the broker acknowledges some that are sent after the poison.
func poisoned(keys []string) []fact {
	return []fact{
		{key: keys[0]},
		{key: keys[1]},
		{key: keys[0], kind: "poison"},
		{key: keys[1], kind: "poison"},
		{key: keys[0]},
		{key: keys[1]},
		{key: keys[2]},
		{key: keys[2]},
		{key: keys[2]},
	}
}

// TestPark_RowErrorThatLasts has the broker stay silent about two events while it
// acknowledges all others: they are parked after three failures and an hour,
// whichever is later, and then one is given up and the other sent after all.
func TestPark_RowErrorThatLasts(t *testing.T) {
	t.Parallel()
	config := quick()
	config.ParkAfter, config.ParkAfterFailures = time.Hour, 3
	bundle := setup(t.Context(), t, config)
	bundle.start(t.Context(), t)
	for _, stream := range bundle.streams {
		t.Run(stream.Name, func(t *testing.T) {
			t.Parallel()
			bundle.testRowError(t.Context(), t, stream)
		})
	}
}

func (bundle *testBundle) testRowError(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	keys := bundle.keys(ctx, t, 3)
	bundle.broker.silencePoison(ctx, t, stream)
	ids := bundle.stage(ctx, t, stream.Name, poisoned(keys)...)
	given, sentAfterAll := ids[2], ids[3]

	// The failure that a row has next, with the first one moved to where the hour is
	// over, or is not.
	numHealthy := 3
	fail := func(numFailures int, firstFailedAgo string) eventRow {
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET first_failed_at = clock_timestamp() - $1::interval WHERE stream = $2 AND first_failed_at IS NOT NULL`,
			firstFailedAgo, stream.Name)
		var failed eventRow // as it was seen first: its wait is soon over
		bundle.await(ctx, t, "the poison has failed once more", func() bool {
			row := bundle.row(ctx, t, given)
			if row.Failures == numFailures {
				failed = row
				return true
			}
			if row.State == "pending" && row.Attempts > 0 {
				// Somebody else's events are acknowledged in the same pass.
				bundle.stage(ctx, t, stream.Name, fact{key: keys[2]})
				numHealthy++
			}
			return false
		})
		return failed
	}
	// Its backoff may be over before this test sees it.
	waiting := []string{"delayed", "pending"}
	first := fail(1, "0")
	require.Contains(t, waiting, first.State)
	require.Equal(t, "ambiguous", first.LastErrorClass)
	delay := first.NotBefore.Sub(*first.LastAttemptAt)
	require.Positive(t, delay)
	require.LessOrEqual(t, delay, maxBackoff)
	failed := bundle.failure(ctx, t, stream)
	require.Contains(t, failed.Errors[0], "2 events not delivered, ")
	require.False(t, first.NotBefore.After(failed.ScheduledAt))

	require.Contains(t, waiting, fail(2, "2 h").State, "an hour is over, but it has not failed three times")
	require.Contains(t, waiting, fail(3, "0").State, "it has failed three times, but no hour is over")
	require.Empty(t, bundle.parked(ctx, t, stream))
	row := fail(4, "2 h")
	require.Equal(t, "parked", row.State)
	require.Equal(t, "row", row.ParkReason)
	require.ElementsMatch(t, []uuid.UUID{given, sentAfterAll}, bundle.parked(ctx, t, stream))
	require.Greater(t, numHealthy, 3)

	before := bundle.published(ctx, t, stream)
	policy := []string{"1", "2 gap", "3"}
	if stream.ParkedBlocks {
		policy = []string{"1"}
	}
	bundle.await(ctx, t, "the other events have gone", func() bool { return bundle.states(ctx, t, stream)["pending"] == 0 })
	require.Equal(t, policy, bundle.sequence(ctx, t, stream, keys[0]))
	require.Equal(t, policy, bundle.sequence(ctx, t, stream, keys[1]))
	require.Len(t, bundle.sequence(ctx, t, stream, keys[2]), numHealthy, "keys are independent")
	bundle.requireConsistent(ctx, t, stream)

	// One is given up: the broker need not be mended for that.
	bundle.discard(ctx, t, given)
	bundle.await(ctx, t, "the later event of the key has gone", func() bool {
		return bundle.row(ctx, t, ids[4]).State == "published" && bundle.states(ctx, t, stream)["pending"] == 0
	})
	require.Equal(t, []string{"1", "2 gap", "3"}, bundle.sequence(ctx, t, stream, keys[0]))
	require.Equal(t, "discarded", bundle.row(ctx, t, given).State)

	bundle.broker.mend(ctx, t, stream)
	bundle.redrive(ctx, t, sentAfterAll)
	bundle.await(ctx, t, "all but the one is published", func() bool {
		states := bundle.states(ctx, t, stream)
		return len(states) == 2 && states["discarded"] == 1 && states["published"] > 0
	})
	want := []string{"1", "2", "3"}
	if !stream.ParkedBlocks {
		want = []string{"1", "2 gap", "3", "2"}
	}
	require.Equal(t, want, bundle.sequence(ctx, t, stream, keys[1]))
	require.Len(t, bundle.rows(ctx, t, stream), bundle.broker.numStored(ctx, t, stream)+1, "each is there once, the one that was given up is not")
	bundle.requireKept(ctx, t, stream, before)
	var numInterventions int
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT count(*) FROM outbox_intervention WHERE stream = $1 AND by_whom = 'test'`, stream.Name).Scan(&numInterventions))
	require.Equal(t, 2, numInterventions)
}
