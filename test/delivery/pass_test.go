package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// maxBackoff is the most that a shard may rest after an outage.
const maxBackoff = 5 * time.Second

// touchy are settings with which the first failure of an event's own parks it:
// nothing that is an outage may do that.
func touchy(config outbox.Config) outbox.Config {
	config.ParkAfter, config.ParkAfterFailures = time.Nanosecond, 1
	return config
}

// sizes are how many events a test stages per stream, and of how many keys: so few
// that each goes by itself, and so many that the broker may take them in batches.
func sizes() map[string]struct{ numEvents, numKeys int } {
	return map[string]struct{ numEvents, numKeys int }{
		"a few":      {numEvents: 12, numKeys: 4},
		"a thousand": {numEvents: 1200, numKeys: 300},
	}
}

func TestPass_AllAcknowledged(t *testing.T) {
	t.Parallel()
	for name, size := range sizes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, patient())
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, size.numKeys), size.numEvents)...)
			}
			bundle.start(ctx, t)

			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
				jobs := bundle.jobs(ctx, t, stream)
				require.Len(t, jobs, 1)
				require.Equal(t, "completed", jobs[0].State)
				require.Equal(t, 1, jobs[0].Attempt)
				require.Empty(t, jobs[0].Errors)
				require.Zero(t, jobs[0].NumRepeats)
				require.NotNil(t, bundle.lastSuccess(ctx, t, stream))
				for _, row := range bundle.rows(ctx, t, stream) {
					require.Equal(t, 1, row.Attempts)
					require.Zero(t, row.Failures)
				}
			}

			_, err := bundle.db.Pool.Exec(ctx, `UPDATE outbox_delivery SET published_at = NULL, broker_ref = NULL`)
			require.ErrorContains(t, err, "that it was published", "an acknowledgement is never unset")

			// A job that finds nothing due is completed, and sends nothing.
			for _, stream := range bundle.streams {
				before := bundle.published(ctx, t, stream)
				bundle.exec(ctx, t, `INSERT INTO river_job (args, kind, max_attempts, queue) VALUES (jsonb_build_object('shard', $1::integer), $2, 20, $3)`,
					shard, stream.JobKind, stream.Queue)
				bundle.requireDelivered(ctx, t, stream)
				require.Len(t, bundle.jobs(ctx, t, stream), 2)
				bundle.requireKept(ctx, t, stream, before)
			}
		})
	}
}

func TestPass_StreamIsFull(t *testing.T) {
	t.Parallel()
	for name, size := range sizes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, touchy(patient()))
			room := size.numKeys / 2
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, size.numKeys), size.numEvents)...)
				bundle.broker.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.MaxMsgs = int64(room) })
			}
			bundle.start(ctx, t)

			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.LessOrEqual(t, bundle.backoff(ctx, t, stream), maxBackoff)
				require.Contains(t, failed.Errors[0], fmt.Sprintf(" events not delivered, %d acknowledged: event ", room))
				require.Contains(t, failed.Errors[0], ": infrastructure: refused by the broker")
				states := bundle.states(ctx, t, stream)
				require.Equal(t, map[string]int{"pending": size.numEvents - room, "published": room}, states, "what was acknowledged is marked, and nothing else")
				require.Equal(t, room, bundle.broker.numStored(ctx, t, stream))
				bundle.requireConsistent(ctx, t, stream)
				for _, row := range bundle.rows(ctx, t, stream) {
					require.Zero(t, row.Failures)
					require.Nil(t, row.NotBefore)
				}
			}
			for _, stream := range bundle.streams {
				before := bundle.published(ctx, t, stream)
				bundle.broker.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.MaxMsgs = -1 })
				bundle.sweep(ctx, t)
				bundle.requireDelivered(ctx, t, stream)
				bundle.requireKept(ctx, t, stream, before)
			}
		})
	}
}

// TestPass_StreamIsNotAsProvisioned has the broker's stream lose its subjects, to
// nobody and then to another stream.
func TestPass_StreamIsNotAsProvisioned(t *testing.T) {
	t.Parallel()
	for name, size := range sizes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, touchy(patient()))
			keys := bundle.keys(ctx, t, size.numKeys)
			bundle.start(ctx, t)
			bundle.sweep(ctx, t)
			for _, thief := range []bool{false, true} {
				for _, stream := range bundle.streams {
					bundle.broker.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.Subjects = []string{"elsewhere." + stream.Name} })
				}
				if thief {
					_, err := bundle.broker.js.CreateStream(ctx, jetstream.StreamConfig{Name: "THIEF", Subjects: []string{"truegreen.>"}})
					require.NoError(t, err)
				}
				bundle.testOutage(ctx, t, keys, size.numEvents)
				if thief {
					stream, err := bundle.broker.js.Stream(ctx, "THIEF")
					require.NoError(t, err)
					require.Zero(t, stream.CachedInfo().State.Msgs, "nothing of ours went elsewhere")
					require.NoError(t, bundle.broker.js.DeleteStream(ctx, "THIEF"))
				}
				for _, stream := range bundle.streams {
					bundle.provision(ctx, t, stream.Name)
					bundle.requireDelivered(ctx, t, stream)
				}
			}
		})
	}
}

// testOutage stages events that the broker does not take, and checks that nothing
// but the time is lost.
func (bundle *testBundle) testOutage(ctx context.Context, t *testing.T, keys []string, numEvents int) {
	t.Helper()
	lastIDs := make(map[string]int64)
	for _, stream := range bundle.streams {
		if jobs := bundle.jobs(ctx, t, stream); len(jobs) > 0 {
			lastIDs[stream.Name] = jobs[len(jobs)-1].ID
		}
		bundle.stage(ctx, t, stream.Name, interleaved(keys, numEvents)...)
	}
	for _, stream := range bundle.streams {
		var told []string
		bundle.await(ctx, t, "jobs of "+stream.Name+" have failed twice", func() bool {
			told = nil
			for _, job := range bundle.jobs(ctx, t, stream) {
				if job.ID > lastIDs[stream.Name] {
					told = append(told, job.Errors...)
				}
			}
			return len(told) > 1
		})
		for _, text := range told {
			require.Regexp(t, `^drain shard 1 of `+stream.Name+`: \d+ events not delivered, 0 acknowledged: event \d+ of key k-\d+: infrastructure: `, text)
		}
		require.Equal(t, numEvents, bundle.states(ctx, t, stream)["pending"])
		require.Empty(t, bundle.parked(ctx, t, stream))
		require.LessOrEqual(t, bundle.backoff(ctx, t, stream), maxBackoff)
		bundle.requireNoQuietFailure(ctx, t, stream)
		for _, row := range bundle.rows(ctx, t, stream) {
			require.Zero(t, row.Failures)
			require.Nil(t, row.NotBefore)
		}
	}
}

// TestPass_BrokerIsAway stops the server for so long that jobs use up their
// attempts.
func TestPass_BrokerIsAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, touchy(outbox.Config{}))
	keys := bundle.keys(ctx, t, 3)
	bundle.start(ctx, t)
	for _, stream := range bundle.streams {
		bundle.stage(ctx, t, stream.Name, interleaved(keys, 3)...)
		bundle.requireDelivered(ctx, t, stream)
	}
	kept := bundle.published(ctx, t, bundle.streams[0])
	bundle.broker.server.Stop()
	for _, stream := range bundle.streams {
		bundle.stage(ctx, t, stream.Name, interleaved(keys, 9)...)
	}
	for _, stream := range bundle.streams {
		bundle.failure(ctx, t, stream)
		bundle.requireNoQuietFailure(ctx, t, stream)
	}

	// The last attempts, with the longest rest. The clock is helped along.
	for _, stream := range bundle.streams {
		hurry := func(attempt int) {
			bundle.exec(ctx, t, `
				WITH hurried AS (
					UPDATE river_job SET attempt = $1, scheduled_at = clock_timestamp(), state = 'available'
					WHERE kind = $3 AND cardinality(errors) > 0 AND state IN ('available', 'retryable') AND attempt < $1
					RETURNING id
				)
				UPDATE outbox_shard SET backoff_until = clock_timestamp() WHERE stream = $2 AND EXISTS (SELECT FROM hurried)`, attempt, stream.Name, stream.JobKind)
		}
		bundle.await(ctx, t, "attempt 19 of "+stream.Name+" has failed", func() bool {
			hurry(18)
			job := bundle.failure(ctx, t, stream)
			return job.Attempt == 19 && (job.State == "available" || job.State == "retryable")
		})
		job := bundle.failure(ctx, t, stream)
		rest := bundle.backoff(ctx, t, stream)
		require.Positive(t, rest)
		require.LessOrEqual(t, rest, maxBackoff)
		require.LessOrEqual(t, job.ScheduledAt.Sub(*job.AttemptedAt), 15*time.Second)
		bundle.exec(ctx, t, `UPDATE outbox_shard SET backoff_until = clock_timestamp() WHERE stream = $1`, stream.Name)
		bundle.exec(ctx, t, `UPDATE river_job SET scheduled_at = clock_timestamp(), state = 'available' WHERE id = $1`, job.ID)

		bundle.await(ctx, t, "the job of "+stream.Name+" is discarded", func() bool { return bundle.failure(ctx, t, stream).State == "discarded" })
		logged := bundle.logs.of(t, job.ID)
		last := logged[len(logged)-1]
		require.Equal(t, "ERROR", last.Level)
		require.True(t, last.Discarded)
		require.Equal(t, 20, last.Attempt)
		require.Contains(t, last.Error, "3 events not delivered, 0 acknowledged")
		for _, earlier := range logged[:len(logged)-1] {
			require.Equal(t, "WARN", earlier.Level)
		}
		for _, row := range bundle.rows(ctx, t, stream) {
			require.Zero(t, row.Failures, "an outage counts against no event")
			require.Contains(t, []string{"pending", "published"}, row.State)
		}
	}

	// The sweep makes fresh jobs, which fail too, and deliver once they can.
	bundle.sweep(ctx, t)
	for _, stream := range bundle.streams {
		bundle.await(ctx, t, "a fresh job of "+stream.Name+" has failed", func() bool {
			discarded := bundle.failure(ctx, t, stream)
			for _, job := range bundle.jobs(ctx, t, stream) {
				if job.ID > discarded.ID && len(job.Errors) > 0 {
					return true
				}
			}
			return false
		})
	}
	bundle.broker.start(t)
	for _, stream := range bundle.streams {
		bundle.requireDelivered(ctx, t, stream)
		require.Equal(t, "discarded", bundle.failure(ctx, t, stream).State, "what happened is still to be read")
	}
	bundle.requireKept(ctx, t, bundle.streams[0], kept)
}

// TestPass_AnswersGetLost has the broker store events, and its answers not arrive.
func TestPass_AnswersGetLost(t *testing.T) {
	t.Parallel()

	for name, size := range sizes() {
		t.Run("AllOf "+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			config := touchy(quick())
			// Time for a slow machine to send all of them again, one by one.
			config.AckTimeout, config.LeaseTTL = 5*time.Second, 8*time.Second
			bundle := setup(ctx, t, config)
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, size.numKeys), size.numEvents)...)
			}
			bundle.link.decide(func(event passing) fate {
				if event.opens {
					return arrives // so that the batch is stored
				}
				return getsLost
			})
			client := bundle.start(ctx, t)
			for _, stream := range bundle.streams {
				bundle.failure(ctx, t, stream)
			}
			// No pass must be under way when answers arrive again: it would get some.
			require.NoError(t, client.Stop(ctx))

			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.Contains(t, failed.Errors[0], "events not delivered, 0 acknowledged: event ")
				require.Contains(t, failed.Errors[0], ": ambiguous: the broker did not acknowledge in time")
				require.Equal(t, map[string]int{"pending": size.numEvents}, bundle.states(ctx, t, stream), "the broker went silent: no event is to blame")
				require.GreaterOrEqual(t, bundle.broker.numStored(ctx, t, stream), size.numKeys)
				require.LessOrEqual(t, bundle.backoff(ctx, t, stream), maxBackoff)
			}
			bundle.link.decide(nil)
			bundle.start(ctx, t)
			bundle.sweep(ctx, t)
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
				numRepeats := 0
				for _, job := range bundle.jobs(ctx, t, stream) {
					numRepeats += job.NumRepeats
				}
				require.GreaterOrEqual(t, numRepeats, size.numKeys, "the broker knew them by their ids")
				for _, row := range bundle.rows(ctx, t, stream) {
					require.Zero(t, row.Failures)
				}
			}
		})
	}

	t.Run("ThoseOfOneKey", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, quick())
		keys := bundle.keys(ctx, t, 4)
		for _, stream := range bundle.streams {
			bundle.stage(ctx, t, stream.Name, interleaved(keys, 12)...)
		}
		bundle.link.decide(func(event passing) fate {
			if event.key == keys[1] {
				return getsLost
			}
			return arrives
		})
		bundle.start(ctx, t)

		for _, stream := range bundle.streams {
			failed := bundle.failure(ctx, t, stream)
			require.Contains(t, failed.Errors[0], "1 events not delivered, 9 acknowledged: event ")
			require.Contains(t, failed.Errors[0], " of key "+keys[1]+": ambiguous: ")
			for _, row := range bundle.rows(ctx, t, stream) {
				switch {
				case row.Key != keys[1]:
					require.Equal(t, "published", row.State, "keys are independent")
				case row.KeySeq == 1:
					require.Equal(t, 1, row.Failures, "others were acknowledged meanwhile")
					require.Equal(t, "ambiguous", row.LastErrorClass)
					require.True(t, row.NotBefore.After(*row.LastAttemptAt))
					require.False(t, row.NotBefore.After(failed.ScheduledAt), "its job comes back when it may be sent")
				default:
					require.Zero(t, row.Attempts, "it waits behind the one before it")
				}
			}
			require.Equal(t, []string{"1"}, bundle.sequence(ctx, t, stream, keys[1]), "it did arrive")
		}
		bundle.link.decide(nil)
		for _, stream := range bundle.streams {
			bundle.requireDelivered(ctx, t, stream)
		}
	})

	for name, size := range sizes() {
		t.Run("ToOneOf "+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, quick())
			facts := interleaved(bundle.keys(ctx, t, size.numKeys), size.numEvents)
			facts[size.numKeys].kind = "poison"
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, facts...)
				bundle.broker.silencePoison(ctx, t, stream)
			}
			bundle.start(ctx, t)
			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				poison := bundle.rows(ctx, t, stream)[size.numKeys]
				require.Contains(t, strings.Join(failed.Errors, "; "), fmt.Sprintf("event %d of key %s: ambiguous: ", poison.ID, poison.Key))
				bundle.await(ctx, t, "all other keys are through", func() bool {
					return bundle.states(ctx, t, stream)["published"] == size.numEvents-size.numEvents/size.numKeys+1
				})
				require.Empty(t, bundle.parked(ctx, t, stream))
				bundle.broker.mend(ctx, t, stream)
			}
			bundle.sweep(ctx, t)
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
			}
		})
	}

	for name, size := range sizes() {
		t.Run("AndTheConnectionBreaksInTheMiddleOf "+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, quick())
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, size.numKeys), size.numEvents)...)
			}
			numBroken := 0
			bundle.link.decide(func(event passing) fate {
				if event.nth%7 == 5 && numBroken < 3 {
					numBroken++
					return breaksConnection
				}
				return arrives
			})
			bundle.start(ctx, t)
			bundle.sweep(ctx, t)
			numFailed := 0
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
				for _, job := range bundle.jobs(ctx, t, stream) {
					numFailed += len(job.Errors)
				}
			}
			require.Positive(t, numFailed)
		})
	}
}
