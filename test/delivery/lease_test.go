package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// unmarkable refuses the acknowledgements of all events.
const unmarkable = `ALTER TABLE outbox_delivery ADD CONSTRAINT unmarkable CHECK (published_at IS NULL) NOT VALID`

func TestMark_Fails(t *testing.T) {
	t.Parallel()
	for name, numEvents := range map[string]int{"a few": 4, "one alone": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, quick())
			keys := bundle.keys(ctx, t, 4)
			bundle.exec(ctx, t, unmarkable)
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(keys, numEvents)...)
			}
			bundle.start(ctx, t)
			bundle.sweep(ctx, t)
			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.Regexp(t, `mark [14] acknowledged and 0 failed events, first id \d+`, failed.Errors[0])
				require.Equal(t, numEvents, bundle.broker.numStored(ctx, t, stream), "the broker has them")
			}
			// It fails for a while, as a database does that fails over.
			for _, stream := range bundle.streams {
				bundle.await(ctx, t, "it has failed three times", func() bool {
					num := 0
					for _, job := range bundle.jobs(ctx, t, stream) {
						num += len(job.Errors)
					}
					return num >= 3
				})
				require.Equal(t, map[string]int{"pending": numEvents}, bundle.states(ctx, t, stream), "that is no fault of theirs")
			}
			bundle.exec(ctx, t, `ALTER TABLE outbox_delivery DROP CONSTRAINT unmarkable`)
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
			}
		})
	}
}

func TestLease_HeldByAnotherOrAtRest(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]string{
		"held by another": `UPDATE outbox_shard SET lease_owner = 'another', lease_expires_at = clock_timestamp() + interval '1 h'`,
		"at rest":         `UPDATE outbox_shard SET backoff_until = clock_timestamp() + interval '1 h'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, patient())
			keys := bundle.keys(ctx, t, 2)
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, interleaved(keys, 2)...)
			}
			bundle.exec(ctx, t, set)
			bundle.start(ctx, t)
			for _, stream := range bundle.streams {
				bundle.await(ctx, t, "the job is through", func() bool { return bundle.jobs(ctx, t, stream)[0].State == "completed" })
				require.True(t, bundle.jobs(ctx, t, stream)[0].Neutral)
				require.Nil(t, bundle.lastSuccess(ctx, t, stream), "it proves nothing")
				bundle.requireNoQuietFailure(ctx, t, stream)
				for _, row := range bundle.rows(ctx, t, stream) {
					require.Zero(t, row.Attempts)
				}
			}
			bundle.exec(ctx, t, `UPDATE outbox_shard SET lease_owner = NULL, lease_expires_at = NULL, backoff_until = NULL`)
			bundle.sweep(ctx, t)
			for _, stream := range bundle.streams {
				bundle.requireDelivered(ctx, t, stream)
			}
		})
	}
}

// TestLease_LostInFlight takes the lease, or the job, from a pass whose answers
// are on their way.
func TestLease_LostInFlight(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ take, says, state string }{
		"lease": {`UPDATE outbox_shard SET lease_epoch = lease_epoch + 1, lease_owner = 'another' WHERE lease_owner IS NOT NULL`, "the shard's lease was lost", "pending"},
		"fence": {`UPDATE river_job SET attempted_at = attempted_at - interval '1 min' WHERE state = 'running'`, "this attempt of the job was given up", "published"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, patient())
			facts := interleaved(bundle.keys(ctx, t, 4), 4)
			if name == "lease" {
				facts[3].numBytes = large
			}
			for _, stream := range bundle.streams {
				bundle.stage(ctx, t, stream.Name, facts...)
				bundle.broker.lower(ctx, t, stream)
				bundle.provision(ctx, t, stream.Name)
			}
			release := bundle.link.hold()
			defer release()
			bundle.start(ctx, t)
			bundle.await(ctx, t, "all is on its way", func() bool { return bundle.link.sent() == 12 })
			bundle.exec(ctx, t, tc.take)
			release()

			for _, stream := range bundle.streams {
				failed := bundle.failure(ctx, t, stream)
				require.Contains(t, failed.Errors[0], tc.says)
				rows := bundle.rows(ctx, t, stream)
				for _, row := range rows[:3] {
					require.Equal(t, "published", row.State, "an acknowledgement is a fact, whoever received it")
				}
				require.Equal(t, tc.state, rows[3].State)
				require.Zero(t, rows[3].Failures, "a failure that nobody may mark any more is none")
				bundle.requireConsistent(ctx, t, stream)
			}
		})
	}
}

func TestMark_LateAcknowledgementOfAParkedEvent(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, patient())
	for _, stream := range bundle.streams {
		bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, 2), 2)...)
	}
	release := bundle.link.hold()
	defer release()
	bundle.start(ctx, t)
	bundle.await(ctx, t, "all is on its way", func() bool { return bundle.link.sent() == 6 })
	bundle.exec(ctx, t, `UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row'`)
	for _, stream := range bundle.streams {
		require.Equal(t, map[string]int{"parked": 2}, bundle.states(ctx, t, stream))
	}
	release()
	for _, stream := range bundle.streams {
		bundle.requireDelivered(ctx, t, stream)
		require.Empty(t, bundle.parked(ctx, t, stream))
	}
}

// stopWatch tells when the context of a job is done.
type stopWatch struct {
	river.MiddlewareDefaults
	begun chan context.Context
}

// Work notes the job's context.
func (watch *stopWatch) Work(ctx context.Context, _ *rivertype.JobRow, doInner func(context.Context) error) error {
	watch.begun <- ctx
	return doInner(ctx)
}

func TestStop_InTheMiddleOfABatch(t *testing.T) {
	t.Parallel()

	t.Run("MarksWhatIsInFlightAndSendsNothingMore", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, withBatches(unhurried(), 10))
		for _, stream := range bundle.streams {
			bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, 10), 30)...)
		}
		bundle.stopInFlight(ctx, t, 30)

		for _, stream := range bundle.streams {
			require.Equal(t, map[string]int{"pending": 20, "published": 10}, bundle.states(ctx, t, stream))
			require.Equal(t, 10, bundle.broker.numStored(ctx, t, stream))
			jobs := bundle.jobs(ctx, t, stream)
			require.Len(t, jobs, 1)
			require.Equal(t, "available", jobs[0].State)
			require.Empty(t, jobs[0].Errors, "nothing has failed")
			for _, row := range bundle.rows(ctx, t, stream) {
				require.True(t, row.State == "published" || row.Attempts == 0)
			}
			require.Zero(t, bundle.numLeased(ctx, t, stream), "whoever comes next need not wait for the lease to run out")
		}
		bundle.start(ctx, t)
		for _, stream := range bundle.streams {
			bundle.requireDelivered(ctx, t, stream)
		}
	})

	t.Run("TellsOfAnEventThatFailedAllTheSame", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, withBatches(unhurried(), 10))
		facts := interleaved(bundle.keys(ctx, t, 10), 30)
		facts[5].kind = "poison" // the later ones are acknowledged: its own fault
		for _, stream := range bundle.streams {
			bundle.stage(ctx, t, stream.Name, facts...)
			bundle.broker.silencePoison(ctx, t, stream)
		}
		bundle.stopInFlight(ctx, t, 30)

		for _, stream := range bundle.streams {
			row := bundle.rows(ctx, t, stream)[5]
			require.Equal(t, 1, row.Failures)
			require.Equal(t, 9, bundle.states(ctx, t, stream)["published"])
			jobs := bundle.jobs(ctx, t, stream)
			require.Len(t, jobs, 1)
			require.NotEmpty(t, jobs[0].Errors, "an event was not delivered, and neither an errored attempt nor a parked row says so")
			require.Contains(t, jobs[0].Errors[0], "1 events not delivered, 9 acknowledged")
		}
	})
}

// unhurried are settings with which an answer that is held back until a worker was
// told to stop is still in time, however slow the machine.
func unhurried() outbox.Config {
	config := patient()
	config.AckTimeout, config.LeaseTTL, config.PassBudget = 12*time.Second, 20*time.Second, time.Minute
	return config
}

func withBatches(config outbox.Config, size int) outbox.Config {
	config.BatchSize = size
	return config
}

// stopInFlight stops a worker while numInFlight events have no answer.
func (bundle *testBundle) stopInFlight(ctx context.Context, t *testing.T, numInFlight int) {
	t.Helper()
	release := bundle.link.hold()
	defer release()
	watch := &stopWatch{begun: make(chan context.Context, 100)}
	client := bundle.start(ctx, t, watch)
	bundle.await(ctx, t, "a batch is on its way", func() bool { return bundle.link.sent() == numInFlight })
	stopped := make(chan error, 1)
	go func() { stopped <- client.StopAndCancel(ctx) }()
	for range bundle.streams {
		<-(<-watch.begun).Done()
	}
	release()
	require.NoError(t, <-stopped)
}

func (bundle *testBundle) numLeased(ctx context.Context, t *testing.T, stream outbox.Stream) (num int) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT count(*) FROM outbox_shard WHERE stream = $1 AND lease_owner IS NOT NULL`, stream.Name).Scan(&num))
	return num
}

// die leaves the shard as a worker does that dies with the first num undelivered
// events in flight.
func (bundle *testBundle) die(ctx context.Context, t *testing.T, stream outbox.Stream, num int) {
	t.Helper()
	bundle.exec(ctx, t, `
		UPDATE outbox_shard AS shard
		SET backoff_until = NULL, inflight_first = flight.first, inflight_last = flight.last, inflight_num = flight.num,
			lease_epoch = lease_epoch + 1, lease_expires_at = clock_timestamp(), lease_owner = 'dead', leased_at = clock_timestamp()
		FROM (
			SELECT min(place) AS first, max(place) AS last, count(*) AS num
			FROM (SELECT place FROM outbox_delivery WHERE stream = $1 AND published_at IS NULL ORDER BY place LIMIT $3) AS undelivered
		) AS flight
		WHERE shard.stream = $1 AND shard.shard = $2`, stream.Name, shard, num)
	bundle.exec(ctx, t, `
		UPDATE river_job SET scheduled_at = clock_timestamp(), state = 'available' WHERE kind = $1 AND state IN ('available', 'retryable')`, stream.JobKind)
}

func TestTakeOver_OfABatch(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, patient())
	for _, stream := range bundle.streams {
		bundle.stage(ctx, t, stream.Name, interleaved(bundle.keys(ctx, t, 16), 16)...)
		bundle.die(ctx, t, stream, 8)
	}
	release := bundle.link.hold()
	defer release()
	bundle.start(ctx, t)
	bundle.await(ctx, t, "half of it is on its way", func() bool { return bundle.link.sent() >= 12 })
	for _, stream := range bundle.streams {
		var batchLimit, numInFlight int
		require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT batch_limit, inflight_num FROM outbox_shard WHERE stream = $1 AND shard = $2`, stream.Name, shard).
			Scan(&batchLimit, &numInFlight))
		require.Equal(t, 4, batchLimit)
		require.Equal(t, 4, numInFlight)
		for i, row := range bundle.rows(ctx, t, stream) {
			want := eventRow{}
			if i < 8 {
				want = eventRow{Attempts: 1, LastErrorClass: "ambiguous"}
			}
			require.Equal(t, want, eventRow{Attempts: row.Attempts, LastErrorClass: row.LastErrorClass})
		}
	}
	require.Equal(t, 12, bundle.link.sent())
	release()
	for _, stream := range bundle.streams {
		bundle.requireDelivered(ctx, t, stream)
		for i, row := range bundle.rows(ctx, t, stream) {
			require.Zero(t, row.Failures)
			require.Equal(t, i < 8, row.Attempts == 2)
		}
	}
}

func TestTakeOver_OfAnEventThatKillsWorkers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, quick())
	keys := bundle.keys(ctx, t, 2)
	killers := make(map[string]uuid.UUID)
	for _, stream := range bundle.streams {
		ids := bundle.stage(ctx, t, stream.Name, fact{key: keys[0]}, fact{key: keys[0]}, fact{key: keys[0]}, fact{key: keys[1]})
		killers[stream.Name] = ids[1]
	}
	// The first event of the key goes well, then the broker is away, so that what is
	// taken over stays undelivered.
	bundle.exec(ctx, t, `
		UPDATE outbox_delivery SET not_before = clock_timestamp() + interval '1 h'
		WHERE id IN (SELECT id FROM outbox_event WHERE key_seq > 1 OR key = $1)`, keys[1])
	bundle.start(ctx, t)
	for _, stream := range bundle.streams {
		bundle.await(ctx, t, "the first one is published", func() bool { return bundle.states(ctx, t, stream)["published"] == 1 })
	}
	bundle.broker.server.Stop()
	bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = NULL WHERE not_before IS NOT NULL`)
	bundle.sweep(ctx, t)
	for _, stream := range bundle.streams {
		bundle.failure(ctx, t, stream)
		killer := func() eventRow { return bundle.row(ctx, t, killers[stream.Name]) }
		require.Equal(t, "pending", killer().State)

		bundle.die(ctx, t, stream, 1)
		bundle.await(ctx, t, "it was taken over", func() bool { return bundle.numCrashes(ctx, t, stream) == 1 })
		require.NotEqual(t, "parked", killer().State, "once may be chance")
		require.Empty(t, bundle.parked(ctx, t, stream))
	}
	for _, stream := range bundle.streams {
		bundle.await(ctx, t, "the shard rests", func() bool { return bundle.numLeased(ctx, t, stream) == 0 })
		bundle.die(ctx, t, stream, 1)
		bundle.await(ctx, t, "it was taken over again", func() bool { return len(bundle.parked(ctx, t, stream)) > 0 })
		killer := bundle.row(ctx, t, killers[stream.Name])
		require.Equal(t, "parked", killer.State)
		require.Equal(t, "crash", killer.ParkReason)
		require.Equal(t, []uuid.UUID{killer.EventID}, bundle.parked(ctx, t, stream))
	}
	bundle.broker.start(t)
	for _, stream := range bundle.streams {
		bundle.requireParkPolicy(ctx, t, stream, keys[0], 3)
		bundle.requireConsistent(ctx, t, stream)
		told := ""
		for _, job := range bundle.jobs(ctx, t, stream) {
			for _, text := range job.Errors {
				told += text + "\n"
			}
		}
		require.Contains(t, told, "crash: it was alone in flight when two workers died")
	}
}

func (bundle *testBundle) numCrashes(ctx context.Context, t *testing.T, stream outbox.Stream) (num int) {
	t.Helper()
	require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT coalesce(sum(crashes), 0) FROM outbox_delivery WHERE stream = $1`, stream.Name).Scan(&num))
	return num
}
