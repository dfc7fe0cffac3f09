package anomaly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
	"truegreen/jobs"
)

// realBroker is JetStream behind a link that loses answers.
type realBroker struct {
	js   jetstream.JetStream // past the link
	link *link
	url  string // past the link
}

func startBroker(t *testing.T) *realBroker {
	t.Helper()
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	conn, err := nats.Connect(server.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	b := &realBroker{link: startLink(t, server.URL()), url: server.URL()}
	b.js, err = jetstream.New(conn)
	require.NoError(t, err)
	return b
}

func connect(t *testing.T, url string) *natspublish.Publisher {
	t.Helper()
	publisher, err := natspublish.Connect(silent(), natspublish.Config{AckTimeout: quickly, URL: url})
	require.NoError(t, err)
	t.Cleanup(publisher.Close)
	return publisher
}

// quickly is how soon a lost answer is noticed.
const quickly = 2 * time.Second

// stored are the events of a stream, in its order.
func (b *realBroker) stored(ctx context.Context, t *testing.T, stream string) string {
	t.Helper()
	found, err := b.js.Stream(ctx, natspublish.StreamName(stream))
	require.NoError(t, err)
	info := found.CachedInfo()
	var lines []string
	for sequence := info.State.FirstSeq; sequence <= info.State.LastSeq && info.State.Msgs > 0; sequence++ {
		message, err := found.GetMsg(ctx, sequence)
		require.NoError(t, err)
		lines = append(lines, message.Header.Get("Nats-Msg-Id"))
	}
	return strings.Join(lines, "\n")
}

// clear empties the streams, and lets them forget what they had.
func (b *realBroker) clear(ctx context.Context, t *testing.T) {
	t.Helper()
	publisher := connect(t, b.url)
	for _, stream := range []string{outbox.StreamAgent, outbox.StreamRolling, outbox.StreamWallet} {
		_ = b.js.DeleteStream(ctx, natspublish.StreamName(stream))
		_, err := publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: time.Minute, Stream: stream})
		require.NoError(t, err)
	}
}

// publishingForReal sends events of one key and of several to JetStream.
func publishingForReal(t *testing.T) *operation {
	t.Helper()
	b := startBroker(t)
	publisher := connect(t, b.link.url)
	op := publishing("publish_for_real", outbox.StreamWallet, jobCase{
		kind:      jobs.OutboxWalletArgs{}.Kind(),
		outbox:    outbox.Config{AckTimeout: quickly, ParkAfter: time.Hour},
		publisher: publisher,
	}, "a", "b", "a", "c")
	op.answers, op.answersOnly, op.link = 3, true, b.link
	op.before = b.clear
	op.state = func(ctx context.Context, t *testing.T, trial *trial) string {
		return scalar[string](ctx, t, trial.db, "SELECT string_agg(key || '#' || key_seq || ' ' || state, E'\n' ORDER BY id) FROM outbox_events")
	}
	op.check = func(ctx context.Context, t *testing.T, trial *trial, _ outcome) {
		// What is marked is at the broker, once.
		stored := b.stored(ctx, t, outbox.StreamWallet)
		rows, err := trial.db.Pool.Query(ctx, "SELECT event_id::text FROM outbox_events WHERE state = 'published'")
		require.NoError(t, err)
		var id string
		for rows.Next() {
			require.NoError(t, rows.Scan(&id))
			require.Equal(t, 1, strings.Count(stored, id), "event %s is published, and the broker has %s", id, stored)
		}
		require.NoError(t, rows.Err())
	}
	return op
}

// provisioning makes the broker's streams known to the database.
func provisioning(t *testing.T) *operation {
	t.Helper()
	b := startBroker(t)
	b.clear(t.Context(), t)
	op := command{args: "broker provision", broker: b.link.url}.operation()
	op.answers, op.link = 1, b.link
	op.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		exec(ctx, t, db, "UPDATE outbox_stream SET max_event_bytes = 65536")
	}
	return op
}

// reconciling compares the broker with the rows, and adopts what it has and no row
// says.
func reconciling(t *testing.T, args string, onlyReads bool) *operation {
	t.Helper()
	b := startBroker(t)
	publisher := connect(t, b.url)
	b.clear(t.Context(), t)
	op := command{args: args, broker: b.link.url, exit: cli.ExitFindings, onlyReads: onlyReads}.operation()
	if !onlyReads {
		op = command{args: args, broker: b.link.url}.operation()
	}
	op.answers, op.link = 1, b.link
	op.setup = func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		registerLoops(ctx, t, db)
		appendTo(ctx, t, db, outbox.StreamWallet, "a", "b", "a")
		trial := newTrial(ctx, t, db, anomalyNone)
		job := jobCase{kind: jobs.OutboxWalletArgs{}.Kind(), outbox: outbox.Config{AckTimeout: quickly}, publisher: publisher}
		job.finish(ctx, t, trial)
		// As if the marks of one had been lost.
		exec(ctx, t, db, "SET session_replication_role = replica; UPDATE outbox_delivery SET broker_ref = NULL, parked_at = now(), park_reason = 'row', published_at = NULL WHERE id = 2; RESET session_replication_role")
	}
	return op
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	loopAll(t, []*operation{
		publishingForReal(t), provisioning(t), proving(t),
		reconciling(t, "outbox reconcile --grace 0s", true),
		reconciling(t, "outbox reconcile --adopt --grace 0s --as ana", false),
	})
}
