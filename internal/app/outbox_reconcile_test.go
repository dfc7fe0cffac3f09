package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/app"
	"truegreen/internal/cli"
	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/reconcile"
)

func TestRun_OutboxReconcile(t *testing.T) {
	t.Parallel()

	t.Run("FindsWhatSomebodyRemovedFromABroker", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := bundle.publish(ctx, t, 5)
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s"), bundle.out.String())
		found, wallet := bundle.reconciled(t)
		require.Empty(t, found)
		require.EqualValues(t, 5, wallet.NumMessages)
		require.Equal(t, [2]uint64{1, 5}, [2]uint64{wallet.FirstSequence, wallet.LastSequence})
		require.Equal(t, "TRUEGREEN_WALLET", wallet.Name)

		// As it is provisioned, the stream removes nothing by itself.
		stream := bundle.walletStream(ctx, t)
		require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSequence(3)))
		require.NoError(t, stream.DeleteMsg(ctx, 4))
		require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s", "--stream=wallet"))
		found, wallet = bundle.reconciled(t)
		require.Equal(t, []string{"lost " + events[0].EventID.String(), "lost " + events[1].EventID.String(), "lost " + events[3].EventID.String()}, found)
		require.Zero(t, wallet.NumExpired)
		require.Equal(t, [2]uint64{3, 5}, [2]uint64{wallet.FirstSequence, wallet.LastSequence})

		// An hour is not over; and one that throws the oldest away may have done so.
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxAge = time.Hour })
		require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s", "--stream=wallet"))
		found, _ = bundle.reconciled(t)
		require.Len(t, found, 3)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Discard, config.MaxMsgs = jetstream.DiscardOld, 1000 })
		require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s", "--stream=wallet"))
		found, wallet = bundle.reconciled(t)
		require.Equal(t, []string{"lost " + events[3].EventID.String()}, found)
		require.EqualValues(t, 2, wallet.NumExpired)
	})

	t.Run("LeavesOutWhatOthersPublishOnTheStream", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.publish(ctx, t, 2)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Subjects = append(config.Subjects, "orders.>") })
		bundle.send(ctx, t, &nats.Msg{Data: []byte("hello"), Subject: "orders.placed"})
		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s"), bundle.out.String())
		_, wallet := bundle.reconciled(t)
		require.EqualValues(t, 2, wallet.NumMessages)
		require.EqualValues(t, 1, wallet.NumForeign)
		require.EqualValues(t, 3, wallet.LastSequence)
	})

	t.Run("AdoptsWhatARestoredDatabaseForgot", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := bundle.publish(ctx, t, 2)
		// As in a backup that was made before the acknowledgement was stored.
		bundle.exec(ctx, t, `ALTER TABLE outbox_delivery DISABLE TRIGGER USER`)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET broker_ref = NULL, published_at = NULL WHERE id = $1`, events[1].ID)
		bundle.exec(ctx, t, `ALTER TABLE outbox_delivery ENABLE TRIGGER USER`)

		require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s"))
		found, _ := bundle.reconciled(t)
		require.Equal(t, []string{"unmarked " + events[1].EventID.String()}, found)

		require.Equal(t, cli.ExitGood, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s", "--adopt", "--as=bo"), bundle.out.String())
		_, wallet := bundle.reconciled(t)
		require.EqualValues(t, 1, wallet.NumAdopted)
		var by, ref string
		require.NoError(t, bundle.db.Pool.QueryRow(ctx, `
			SELECT done.by_whom, event.broker_ref
			FROM outbox_intervention AS done JOIN outbox_events AS event ON event.event_id = done.event_id
			WHERE done.act = 'adopt' AND event.state = 'published'`).Scan(&by, &ref))
		require.Equal(t, "bo TRUEGREEN_WALLET/2", by+" "+ref)
	})

	t.Run("FailsWithoutABrokerOrAStream", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.Equal(t, cli.ExitFailed, bundle.run(ctx, "outbox", "reconcile", "--stream=walet"))
		require.Contains(t, bundle.errOut.String(), `there is no stream "walet"`)
		bundle.broker.Stop()
		require.Equal(t, cli.ExitFailed, bundle.run(ctx, "outbox", "reconcile"))
		require.Contains(t, bundle.errOut.String(), "truegreen: reconcile stream agent")
	})
}

// TestRun_OutboxReconcileUnreadable has messages that say what their rows say, and are
// not where or what consumers are promised.
func TestRun_OutboxReconcileUnreadable(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		change func(*nats.Msg)
		detail string
	}{
		"OnASubjectOfAnotherType": {
			func(msg *nats.Msg) { msg.Subject = "truegreen.wallet.wallet.debited.v1" },
			`it is on subject "truegreen.wallet.wallet.debited.v1", where type "wallet.credited.v1" does not belong`,
		},
		"OfAnotherSource": {
			func(msg *nats.Msg) { msg.Header["ce-source"] = []string{"/truegreen/agent"} },
			`its ce-source is "/truegreen/agent", not that of stream wallet`,
		},
		"OfAnotherCloudEventsSubject": {
			func(msg *nats.Msg) { msg.Header["ce-subject"] = []string{"p-2/KRW"} },
			`its ce-subject is "p-2/KRW", and not its key`,
		},
		"WithoutACloudEventsSubject": {
			func(msg *nats.Msg) { delete(msg.Header, "ce-subject") },
			`its ce-subject is "", and not its key`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			var eventID string
			require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT outbox_append('wallet', 'p-1/KRW', 'wallet.credited.v1', '{}', '{}', 1)::text`).Scan(&eventID))
			msg := nats.NewMsg("truegreen.wallet.wallet.credited.v1")
			for name, value := range map[string]string{
				"Nats-Msg-Id": eventID, "ce-id": eventID, "ce-partitionkey": "p-1/KRW", "ce-keysequence": "1", "ce-source": "/truegreen/wallet",
				"ce-subject": "p-1/KRW", "ce-type": "wallet.credited.v1",
			} {
				msg.Header[name] = []string{value}
			}
			tc.change(msg)
			bundle.send(ctx, t, msg)
			bundle.exec(ctx, t, `UPDATE outbox_delivery SET attempts = 1, broker_ref = 'TRUEGREEN_WALLET/1', published_at = clock_timestamp()`)

			require.Equal(t, cli.ExitFindings, bundle.run(ctx, "outbox", "reconcile", "--json", "--grace=0s"), bundle.out.String())
			found, _ := bundle.reconciled(t)
			require.Equal(t, []string{"unreadable " + eventID}, found)
			var printed struct {
				Findings []cli.OutboxFinding `json:"findings"`
			}
			bundle.unmarshal(t, &printed)
			require.Contains(t, printed.Findings[0].Detail, "is no event as consumers are promised: "+tc.detail)
		})
	}
}

// TestBrokerSource_Read reads a stream that loses its front meanwhile, also where the
// reader has not come to yet.
func TestBrokerSource_Read(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	publisher, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: 30 * time.Second, URL: broker.URL()})
	require.NoError(t, err)
	t.Cleanup(publisher.Close)
	_, err = publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 64 << 10, MinDuplicates: 20 * time.Second, Stream: outbox.StreamWallet})
	require.NoError(t, err)
	// More than a reader has asked for when it hands over the first.
	const numMessages, numPurged = 20_000, 15_000
	events := make([]outbox.Event, numMessages)
	for i := range events {
		events[i] = outbox.Event{
			CreatedAt: time.Now(), EventID: uuid.New(), Key: fmt.Sprint(i), KeySeq: 1, Payload: []byte("{}"), Stream: outbox.StreamWallet, Type: "wallet.credited.v1",
		}
	}
	for start := 0; start < numMessages; start += 5000 {
		for _, outcome := range publisher.Publish(ctx, events[start:start+5000]) {
			require.Equal(t, outbox.ClassAcknowledged, outcome.Class)
		}
	}
	conn, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, "TRUEGREEN_WALLET")
	require.NoError(t, err)

	numRead, lastRead := 0, uint64(0)
	extent, err := app.NewBrokerSource(publisher).Read(ctx, outbox.StreamWallet, func(message reconcile.Message) error {
		if numRead == 0 {
			require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSequence(numPurged+1)))
		}
		numRead++
		lastRead = message.Sequence
		require.Empty(t, message.Problem)
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, numMessages, lastRead)
	require.Less(t, numRead, numMessages, "nothing was removed before it was read, so nothing was shown")
	require.Equal(t, reconcile.Extent{First: numPurged + 1, Last: numMessages, Name: "TRUEGREEN_WALLET"}, extent)

	// All of it, and more has come.
	numRead = 0
	extent, err = app.NewBrokerSource(publisher).Read(ctx, outbox.StreamWallet, func(reconcile.Message) error {
		if numRead == 0 {
			require.NoError(t, stream.Purge(ctx))
			_, err := js.Publish(ctx, "truegreen.wallet.more", nil)
			require.NoError(t, err)
			_, err = js.Publish(ctx, "truegreen.wallet.more", nil)
			require.NoError(t, err)
			require.NoError(t, stream.DeleteMsg(ctx, numMessages+1))
		}
		numRead++
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, numMessages+1, extent.First, "one above the last that was read")
}

// update changes the wallet's stream as its owner would.
func (bundle *testBundle) update(ctx context.Context, t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	js := bundle.jetStream(t)
	stream, err := js.Stream(ctx, natspublish.StreamName(outbox.StreamWallet))
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	change(&config)
	_, err = js.UpdateStream(ctx, config)
	require.NoError(t, err)
}

// send publishes by another client.
func (bundle *testBundle) send(ctx context.Context, t *testing.T, msg *nats.Msg) {
	t.Helper()
	_, err := bundle.jetStream(t).PublishMsg(ctx, msg)
	require.NoError(t, err)
}
