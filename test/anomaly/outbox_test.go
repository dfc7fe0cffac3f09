package anomaly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/dbtest/anomaly"
	"truegreen/internal/outbox"
	"truegreen/jobs"
)

var anomalyNone anomaly.Fault

// appendTo appends one event per key, all of them to shard 0 of a stream.
func appendTo(ctx context.Context, t *testing.T, db *dbtest.DB, stream string, keys ...string) {
	t.Helper()
	numbers := make(map[string]int64)
	for _, key := range keys {
		numbers[key]++
		var keySeq *int64
		if number := numbers[key]; stream == outbox.StreamWallet {
			keySeq = &number
		}
		exec(ctx, t, db, `
			SELECT outbox_append($1, (
				SELECT $2 || n FROM generate_series(1, 1000) AS n, outbox_stream
				WHERE stream = $1 AND outbox_shard_of($2 || n, num_shards) = 0 ORDER BY n LIMIT 1
			), $1 || '.happened.v1', '{"n":1}', '{"trace":"x"}', $3)`, stream, key, keySeq)
	}
}

// deliveries are the events with what became of them, in order.
func deliveries(ctx context.Context, t *testing.T, trial *trial) string {
	t.Helper()
	var lines []string
	rows, err := trial.db.Pool.Query(ctx, "SELECT event_id, key || '#' || key_seq || ' ' || type || ' ' || state, state FROM outbox_events ORDER BY id")
	require.NoError(t, err)
	var id uuid.UUID
	var line, state string
	_, err = pgx.ForEachRow(rows, []any{&id, &line, &state}, func() error {
		if state == "published" && !trial.broker.has(id) {
			line += ", which the broker does not have"
		}
		lines = append(lines, line)
		return nil
	})
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}

// refusing is a broker that refuses the events of keys that begin with "bad".
func refusing(class outbox.Class) func(context.Context, *testing.T, *trial) {
	return func(_ context.Context, _ *testing.T, trial *trial) {
		trial.broker.judge = func(event outbox.Event) outbox.Class {
			if strings.HasPrefix(event.Key, "bad") {
				return class
			}
			return outbox.ClassAcknowledged
		}
	}
}

func publishing(name, stream string, job jobCase, keys ...string) *operation {
	op := job.operation(name)
	op.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		registerLoops(ctx, t, db)
		appendTo(ctx, t, db, stream, keys...)
	}
	op.state = deliveries
	return op
}

func outboxOperations() []*operation {
	wallet := jobCase{kind: jobs.OutboxWalletArgs{}.Kind(), outbox: outbox.Config{BatchSize: 2}}
	parks := outbox.Config{ParkAfter: time.Nanosecond, ParkAfterFailures: 1}
	takeover := publishing("takeover", outbox.StreamWallet, jobCase{kind: wallet.kind}, "a", "b")
	append2 := takeover.setup
	takeover.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		append2(ctx, t, db)
		exec(ctx, t, db, `
			UPDATE outbox_shard SET inflight_first = 1, inflight_last = 2, inflight_num = 2, lease_owner = 'dead', lease_expires_at = clock_timestamp()
			WHERE stream = 'wallet' AND shard = 0`)
	}
	lost := publishing("lease_lost", outbox.StreamWallet, jobCase{kind: wallet.kind, prepare: func(ctx context.Context, t *testing.T, trial *trial) {
		trial.broker.hook = func() {
			trial.broker.hook = nil
			exec(ctx, t, trial.db, "UPDATE outbox_shard SET lease_epoch = lease_epoch + 1, lease_owner = 'other' WHERE lease_owner IS NOT NULL")
		}
	}}, "a", "b")
	given := publishing("given_up_in_flight", outbox.StreamWallet, jobCase{kind: wallet.kind, prepare: func(ctx context.Context, t *testing.T, trial *trial) {
		trial.broker.hook = func() {
			exec(ctx, t, trial.db, `
				UPDATE outbox_delivery SET discarded_at = clock_timestamp(), discarded_by = 'ana', discard_reason = 'test'
				WHERE id = 1 AND discarded_at IS NULL AND published_at IS NULL`)
		}
	}}, "a", "b")
	outage := publishing("outage", outbox.StreamWallet, jobCase{kind: wallet.kind, prepare: func(_ context.Context, _ *testing.T, trial *trial) {
		trial.broker.judge = func(outbox.Event) outbox.Class {
			if trial.broker.numRefused++; trial.broker.numRefused <= 2 {
				return outbox.ClassInfrastructure
			}
			return outbox.ClassAcknowledged
		}
	}}, "a", "b")
	tooLarge := publishing("publish_too_large", outbox.StreamRolling,
		jobCase{kind: jobs.OutboxRollingArgs{}.Kind(), prepare: refusing(outbox.ClassPermanent)}, "a", "bad", "b")
	appendThree := tooLarge.setup
	tooLarge.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		appendThree(ctx, t, db)
		exec(ctx, t, db, "SELECT outbox_append('rolling', key, type, to_jsonb(repeat('x', 5000))) FROM outbox_event WHERE key LIKE 'bad%'")
		exec(ctx, t, db, "UPDATE outbox_delivery SET discarded_at = now(), discarded_by = 'ana', discard_reason = 'test' WHERE id = (SELECT min(id) FROM outbox_event WHERE key LIKE 'bad%')")
		exec(ctx, t, db, "UPDATE outbox_stream SET max_event_bytes = 4096 WHERE stream = 'rolling'")
	}
	// A job whose events were given up finds nothing due.
	unproven := publishing("idle_without_broker", outbox.StreamWallet, jobCase{
		kind: wallet.kind, outbox: outbox.Config{ProofInterval: time.Nanosecond},
		prepare: func(_ context.Context, _ *testing.T, trial *trial) {
			if trial.broker.numRefused++; trial.broker.numRefused == 1 { // not at later attempts
				trial.broker.numSilent = 2
			}
		},
	}, "a")
	unproven.state = func(ctx context.Context, t *testing.T, trial *trial) string {
		return scalar[string](ctx, t, trial.db, "SELECT 'successes: ' || count(last_success_at) FROM loop_progress")
	}
	appendOne := unproven.setup
	unproven.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		appendOne(ctx, t, db)
		exec(ctx, t, db, "UPDATE outbox_delivery SET discarded_at = now(), discarded_by = 'ana', discard_reason = 'test'")
	}
	return []*operation{
		publishing("publish", outbox.StreamWallet, wallet, "a", "b", "a", "c", "a"),
		publishing("publish_and_park", outbox.StreamRolling,
			jobCase{kind: jobs.OutboxRollingArgs{}.Kind(), outbox: parks, prepare: refusing(outbox.ClassRow)}, "a", "bad", "bad", "b"),
		publishing("publish_and_leave_gap", outbox.StreamAgent,
			jobCase{kind: jobs.OutboxAgentArgs{}.Kind(), outbox: parks, prepare: refusing(outbox.ClassRow)}, "a", "bad", "bad", "b"),
		tooLarge,
		publishing("time_is_over", outbox.StreamWallet, jobCase{kind: wallet.kind, outbox: outbox.Config{
			AckTimeout: 7_999*time.Millisecond + 999*time.Microsecond, BatchSize: 1, LeaseTTL: 9900 * time.Millisecond,
		}}, "a", "b", "c"),
		takeover, lost, given, outage, unproven, sweeping(), maintaining(),
	}
}

// sweeping inserts the jobs that appends did not.
func sweeping() *operation {
	return &operation{
		covers: []string{"probe sweeper"},
		name:   "sweep",
		run: func(ctx context.Context, t *testing.T, trial *trial) outcome {
			sweeper := outbox.NewSweeper(throughProxy(ctx, t, trial), silent(), outbox.SweeperConfig{})
			return outcomeOf(sweeper.Sweep(ctx))
		},
		setup: func(ctx context.Context, t *testing.T, db *dbtest.DB) {
			registerLoops(ctx, t, db)
			appendTo(ctx, t, db, outbox.StreamWallet, "a", "b")
			exec(ctx, t, db, "DELETE FROM river_job")
		},
		state: func(ctx context.Context, t *testing.T, trial *trial) string {
			return scalar[string](ctx, t, trial.db, "SELECT coalesce(string_agg(kind || args, ' ' ORDER BY kind), '') FROM river_job")
		},
	}
}

// maintaining makes partitions, moves, drops and prunes.
func maintaining() *operation {
	op := jobCase{kind: jobs.MaintenanceArgs{}.Kind()}.operation("maintenance")
	op.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		registerLoops(ctx, t, db)
		appendTo(ctx, t, db, outbox.StreamWallet, "oldest", "older", "fresh")
		exec(ctx, t, db, "ALTER TABLE outbox_delivery DISABLE TRIGGER outbox_delivery_of_one_event")
		for key, age := range map[string]string{"oldest": "40 days", "older": "3 days"} {
			exec(ctx, t, db, `
				UPDATE outbox_delivery SET attempts = 1, broker_ref = 'S/1', created_at = now() - $2::interval, published_at = now() - $2::interval
				WHERE key LIKE $1 || '%'`, key, age)
		}
		exec(ctx, t, db, `
			INSERT INTO river_job (args, finalized_at, kind, max_attempts, queue, state)
			VALUES ('{}', now() - interval '40 days', 'outbox_wallet', 1, 'outbox_wallet', 'discarded')`)
		exec(ctx, t, db, "INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ('{}', 'maintenance', 25, 'maintenance')")
	}
	op.state = func(ctx context.Context, t *testing.T, trial *trial) string {
		return scalar[string](ctx, t, trial.db, `
			SELECT concat_ws(' / ',
				(SELECT string_agg(key || ' ' || state, ', ' ORDER BY id) FROM outbox_events),
				(SELECT string_agg(key, ', ' ORDER BY key) FROM outbox_history),
				(SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox_history'::regclass),
				(SELECT count(*) FROM river_job WHERE state = 'discarded'))`)
	}
	return op
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	loopAll(t, outboxOperations())
}
