package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/app"
	"truegreen/internal/cli"
	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// testBundle is a database and a broker, for commands to be run on.
type testBundle struct {
	broker *devstack.NATS
	db     *dbtest.DB
	errOut bytes.Buffer
	in     string
	out    bytes.Buffer
}

func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	bundle := &testBundle{broker: broker, db: dbtest.Database(ctx, t)}
	require.Equal(t, cli.ExitGood, bundle.run(ctx, "broker", "provision"), bundle.errOut.String())
	return bundle
}

func (bundle *testBundle) run(ctx context.Context, args ...string) int {
	bundle.errOut.Reset()
	bundle.out.Reset()
	return app.Run(ctx, app.Host{
		Environ: []string{"DATABASE_URL=" + bundle.db.URL, "TRUEGREEN_BROKER=" + bundle.broker.URL()},
		Streams: cli.Streams{Err: &bundle.errOut, In: bytes.NewBufferString(bundle.in), Out: &bundle.out},
		User:    "ana",
	}, args)
}

// publish appends events of stream wallet, sends them, and marks them as a worker
// would.
func (bundle *testBundle) publish(ctx context.Context, t *testing.T, numEvents int) []outbox.Event {
	t.Helper()
	publisher, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: 5 * time.Second, URL: bundle.broker.URL()})
	require.NoError(t, err)
	defer publisher.Close()
	for seq := range numEvents {
		_, err := bundle.db.Pool.Exec(ctx, `SELECT outbox_append('wallet', 'p-1/KRW', 'wallet.credited.v1', '{"n":1}', '{}', $1)`, seq+1)
		require.NoError(t, err)
	}
	rows, err := bundle.db.Pool.Query(ctx, `SELECT created_at, event_id, id, key, key_seq, payload, stream, type FROM outbox_event ORDER BY id`)
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event outbox.Event, err error) {
		err = row.Scan(&event.CreatedAt, &event.EventID, &event.ID, &event.Key, &event.KeySeq, &event.Payload, &event.Stream, &event.Type)
		return event, err
	})
	require.NoError(t, err)
	sendCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for i, outcome := range publisher.Publish(sendCtx, events) {
		require.Equal(t, outbox.ClassAcknowledged, outcome.Class)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET attempts = 1, broker_ref = $2, published_at = clock_timestamp() WHERE id = $1`, events[i].ID, outcome.BrokerRef)
	}
	return events
}

func (bundle *testBundle) exec(ctx context.Context, t *testing.T, query string, args ...any) {
	t.Helper()
	_, err := bundle.db.Pool.Exec(ctx, query, args...)
	require.NoError(t, err)
}

// walletStream is the broker's own view of it.
func (bundle *testBundle) walletStream(ctx context.Context, t *testing.T) jetstream.Stream {
	t.Helper()
	stream, err := bundle.jetStream(t).Stream(ctx, natspublish.StreamName(outbox.StreamWallet))
	require.NoError(t, err)
	return stream
}

// jetStream is the broker as another client sees it.
func (bundle *testBundle) jetStream(t *testing.T) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(bundle.broker.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	return js
}

// unmarshal reads what the last command printed as JSON.
func (bundle *testBundle) unmarshal(t *testing.T, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(bundle.out.Bytes(), into), bundle.out.String()+bundle.errOut.String())
}

// reconciled is what the command printed.
func (bundle *testBundle) reconciled(t *testing.T) (found []string, wallet cli.OutboxComparison) {
	t.Helper()
	var printed struct {
		Findings []cli.OutboxFinding    `json:"findings"`
		Streams  []cli.OutboxComparison `json:"streams"`
	}
	bundle.unmarshal(t, &printed)
	for _, finding := range printed.Findings {
		found = append(found, finding.Kind+" "+finding.EventID)
	}
	for _, stream := range printed.Streams {
		if stream.Stream == outbox.StreamWallet {
			wallet = stream
		}
	}
	return found, wallet
}

func TestRun_OutboxDecisions(t *testing.T) {
	t.Parallel()

	t.Run("AreCarriedOutAndRecordedUnderTheUser", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		var ids [2]uuid.UUID
		for i, key := range []string{"a-1", "a-2"} {
			require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT outbox_append('agent', $1, 'agent.earned.v1', '{}')`, key).Scan(&ids[i]))
		}
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "status"), bundle.out.String())
		bundle.exec(ctx, t, `
			UPDATE outbox_delivery
			SET last_error = 'refused', last_error_class = 'row', park_reason = 'row', parked_at = clock_timestamp() - interval '2 h'`)

		require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "status"), bundle.out.String())
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "parked", "--parked-before=1h", "--error-class=row", "--json"))
		require.Contains(t, bundle.out.String(), ids[0].String())
		require.Contains(t, bundle.out.String(), `"park_policy": "skip"`)

		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "redrive", "--parked-after=1h", "--dry-run"), bundle.errOut.String())
		require.Equal(t, "nothing matches\n", bundle.out.String())
		require.Equal(t, cli.ExitFailed, bundle.run(ctx, "outbox", "redrive", "--parked-after=1h", "--reason=x"))
		require.Equal(t, "truegreen: redrive events: no parked event matches; nothing was changed\n", bundle.errOut.String())

		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "redrive", "--key=a-1", "--reason=limits raised"), bundle.errOut.String())
		require.Contains(t, bundle.out.String(), "redriven: 1 event (agent 1)\n  warning: stream agent")
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "discard", ids[1].String(), "--reason=test data", "--as=bo"), bundle.errOut.String())
		require.Contains(t, bundle.out.String(), "discarded: 1 event (agent 1)\n")
		require.Equal(t, cli.ExitFailed, bundle.run(ctx, "outbox", "redrive", ids[0].String(), "--reason=x"))
		require.Contains(t, bundle.errOut.String(), "is pending, and only parked events can be redriven; nothing was changed")
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "discard", ids[0].String(), "--dry-run"), bundle.errOut.String())
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "discard", ids[0].String(), "--reason=x"), "it need not be parked")

		rows, err := bundle.db.Pool.Query(ctx, `SELECT format('%s %s by %s: %s', act, key, by_whom, reason) FROM outbox_intervention ORDER BY id`)
		require.NoError(t, err)
		recorded, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, []string{"redrive a-1 by cli:ana: limits raised", "discard a-2 by bo: test data", "discard a-1 by cli:ana: x"}, recorded)
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "status"))
	})
}

// TestRunbook_OutboxParked shows that the page's queries can be pasted.
func TestRunbook_OutboxParked(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	page, err := os.ReadFile("../../docs/runbooks/outbox-parked.md")
	require.NoError(t, err)
	tx := dbtest.Tx(ctx, t)
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.Len(t, blocks, 3)
	for _, block := range blocks {
		_, err := tx.Conn().PgConn().Exec(ctx, block[1]).ReadAll()
		require.NoError(t, err, block[1])
	}
}
