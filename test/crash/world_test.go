package crash_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/reconcile"
)

// shortWindow is the least that a broker takes: it then stores again what comes
// again, so that a test sees each send.
const shortWindow = 100 * time.Millisecond

// world is a database, a broker, and an application that appends.
type world struct {
	application  *application
	broker       *devstack.NATS
	db           *dbtest.DB
	js           jetstream.JetStream
	numProcesses int
	numRedriven  int64
	proxy        *proxy
	random       *rand.Rand
}

// setup makes a world. change, if not nil, changes its streams.
func setup(ctx context.Context, t *testing.T, seed uint64, change func(*jetstream.StreamConfig)) *world {
	t.Helper()
	w := &world{db: dbtest.Database(ctx, t), random: rand.New(rand.NewPCG(seed, 1))}
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	w.broker = broker
	w.proxy = newProxy(t, broker.URL())
	conn, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	w.js, err = jetstream.New(conn)
	require.NoError(t, err)
	w.provision(ctx, t, change)

	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, w.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	w.application = newApplication(w.db.Pool, w.random)
	t.Cleanup(func() {
		if t.Failed() {
			w.dump(t)
		}
	})
	return w
}

func (w *world) provision(ctx context.Context, t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	publisher, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{URL: w.broker.URL()})
	require.NoError(t, err)
	defer publisher.Close()
	for _, name := range streamNames() {
		_, err := publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 64 << 10, MinDuplicates: calm().leaseTTL + 5*time.Second, Stream: name})
		require.NoError(t, err)
		if change == nil {
			continue
		}
		stream, err := w.js.Stream(ctx, atBroker(name))
		require.NoError(t, err)
		config := stream.CachedInfo().Config
		change(&config)
		_, err = w.js.UpdateStream(ctx, config)
		require.NoError(t, err)
	}
}

func streamNames() []string { return []string{"agent", "rolling", "wallet"} }

// atBroker is what the broker calls a stream.
func atBroker(stream string) string { return "TRUEGREEN_" + strings.ToUpper(stream) }

// feedUntil goes on appending until done reports true.
func (w *world) feedUntil(ctx context.Context, t *testing.T, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for started := time.Now(); !done(); <-ticker.C {
		require.Less(t, time.Since(started), patience, "what is waited for does not happen while the application goes on appending")
		w.application.appendTwo(ctx, t)
	}
}

// drain lets one process publish all that is left, and stops it.
//
// An event that happened to be alone in flight at two deaths of a process is parked
// for it, whoever's fault they were: a person would send it again, and so does this.
func (w *world) drain(ctx context.Context, t *testing.T) {
	t.Helper()
	last := w.start(t, order{})
	w.waitUntilDelivered(ctx, t, last)
	last.stop(t)
}

// waitUntilDelivered waits until all is published and the passes that did it are
// over.
func (w *world) waitUntilDelivered(ctx context.Context, t *testing.T, by *process) {
	t.Helper()
	require.Eventually(t, func() bool {
		var numOpen, numRedriven int64
		err := w.db.Pool.QueryRow(ctx, `
			SELECT coalesce(outbox_redrive(array_agg(event.event_id), 'crash test', 'it was in flight when others died'), 0)
			FROM outbox_events AS event
			JOIN outbox_delivery AS delivery ON delivery.id = event.id
			WHERE event.state = 'parked'
				AND event.park_reason = 'crash'
				AND delivery.crashes = 2
			HAVING count(*) > 0`).Scan(&numRedriven)
		if err == nil {
			w.numRedriven += numRedriven
		}
		err = w.db.Pool.QueryRow(ctx, `
			SELECT
				(SELECT count(*) FROM outbox_events WHERE state NOT IN ('published', 'discarded'))
				+ (SELECT count(*) FROM outbox_shard WHERE lease_expires_at > clock_timestamp())`).Scan(&numOpen)
		return err == nil && numOpen == 0 || by.hasExited()
	}, patience, poll)
	require.False(t, by.hasExited(), "process %s ended: %v", by.order.WorkerID, by.err)
}

// requireSound has both checkers look at a world that has come to rest.
func (w *world) requireSound(ctx context.Context, t *testing.T) {
	t.Helper()
	w.requireHonestJobs(ctx, t)
	found := w.gather(ctx, t)
	findings := judge(found)
	for _, finding := range findings {
		t.Logf("%s: %s\n%s", finding.Kind, finding.Detail, found.story(finding.Stream, finding.Key))
	}
	require.Empty(t, findings)
	report := w.reconcile(ctx, t)
	for _, finding := range report.Findings {
		t.Logf("%+v\n%s", finding, found.story(finding.Stream, finding.Key))
	}
	require.Empty(t, report.Findings)
	t.Logf("%d events in %d processes, %d of them stored again, %d parked and sent again",
		len(w.application.committed), w.numProcesses, w.numRepeats(ctx, t), w.numRedriven)
}

// reconcile asks the product's own checker.
func (w *world) reconcile(ctx context.Context, t *testing.T) reconcile.Report {
	t.Helper()
	report, err := reconcile.Run(ctx, w.db.Pool, source{js: w.js}, reconcile.Options{})
	require.NoError(t, err)
	return report
}

// numRepeats is how many messages are there whose event was stored before.
func (w *world) numRepeats(ctx context.Context, t *testing.T) int {
	t.Helper()
	numRepeats := 0
	for _, name := range streamNames() {
		messages, err := readBroker(ctx, w.js, name)
		require.NoError(t, err)
		known := make(map[string]bool)
		for _, message := range messages {
			if known[message.eventID] {
				numRepeats++
			}
			known[message.eventID] = true
		}
	}
	return numRepeats
}

// dump shows what a failed test left in the database.
func (w *world) dump(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, query := range []string{
		`SELECT stream, shard, batch_limit, inflight_num, lease_owner, lease_expires_at, backoff_until FROM outbox_shard WHERE lease_epoch > 0 ORDER BY 1, 2`,
		`SELECT stream, state, park_reason, count(*), max(attempts), min(last_error) FROM outbox_events GROUP BY 1, 2, 3 ORDER BY 1, 2`,
		`SELECT kind, state::text, count(*), max(attempt), max(id) FROM river_job GROUP BY 1, 2 ORDER BY 1, 2`,
		`SELECT job_id, kind, attempt, left(error, 300) FROM job_failures ORDER BY failed_at DESC LIMIT 10`,
	} {
		rows, err := w.db.Pool.Query(ctx, query)
		if err != nil {
			t.Logf("dump: %v", err)
			continue
		}
		for rows.Next() {
			values, err := rows.Values()
			t.Logf("%v %v", values, err)
		}
		rows.Close()
	}
}
