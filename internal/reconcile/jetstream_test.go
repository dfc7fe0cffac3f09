package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/reconcile"
)

// readBack is a source for JetStream that is written for this test alone, from what
// consumers are promised, and not from the code that publishes.
type readBack struct{ js jetstream.JetStream }

func (source readBack) Read(ctx context.Context, name string, each func(reconcile.Message) error) (reconcile.Extent, error) {
	extent := reconcile.Extent{Name: "TRUEGREEN_" + strings.ToUpper(name)}
	stream, err := source.js.Stream(ctx, extent.Name)
	if err != nil {
		return extent, err
	}
	begin := stream.CachedInfo().State
	extent.Last = begin.LastSeq
	if begin.Msgs > 0 {
		if err := source.readTo(ctx, stream, begin.LastSeq, each); err != nil {
			return extent, err
		}
	}
	end, err := stream.Info(ctx)
	if err != nil {
		return extent, err
	}
	extent.First = end.State.FirstSeq
	return extent, nil
}

func (source readBack) readTo(ctx context.Context, stream jetstream.Stream, last uint64, each func(reconcile.Message) error) error {
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		message, err := messages.Next(jetstream.NextMaxWait(10 * time.Second))
		if err != nil {
			return err
		}
		meta, err := message.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > last {
			return nil
		}
		header := message.Headers()
		keySeq, err := strconv.ParseInt(header.Get("ce-keysequence"), 10, 64)
		read := reconcile.Message{
			EventID: header.Get("ce-id"), Key: header.Get("ce-partitionkey"), KeySeq: keySeq, Sequence: meta.Sequence.Stream,
			StoredAt: meta.Timestamp, Type: header.Get("ce-type"),
		}
		if err != nil {
			read.Problem = fmt.Sprintf("ce-keysequence is %q", header.Get("ce-keysequence"))
		}
		if err := each(read); err != nil {
			return err
		}
		if meta.Sequence.Stream == last || meta.NumPending == 0 {
			return nil
		}
	}
}

func TestRun_JetStream(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	publisher, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: 5 * time.Second, URL: server.URL()})
	require.NoError(t, err)
	t.Cleanup(publisher.Close)
	_, err = publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: 20 * time.Second, Stream: wallet})
	require.NoError(t, err)
	conn, err := nats.Connect(server.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)

	w := &world{DB: dbtest.Database(ctx, t), events: make(map[string]event), t: t}
	events := append(w.append(ctx, wallet, "p-1/KRW", "p-2/KRW"), w.append(ctx, wallet, "p-1/KRW", "p-2/KRW")...)
	batch := make([]outbox.Event, len(events))
	for i, e := range events {
		batch[i] = outbox.Event{
			CreatedAt: time.Now(), EventID: uuid.MustParse(e.eventID), ID: e.id, Key: e.key, KeySeq: e.keySeq,
			Payload: json.RawMessage("{}"), Stream: wallet, Type: e.kind,
		}
	}
	publishCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for i, outcome := range publisher.Publish(publishCtx, batch) {
		require.Equal(t, outbox.ClassAcknowledged, outcome.Class)
		w.mark(ctx, events[i], outcome.BrokerRef)
	}
	options := reconcile.Options{Streams: []string{wallet}}
	report, err := reconcile.Run(ctx, w.Pool, readBack{js: js}, options)
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	require.Equal(t, reconcile.Extent{First: 1, Last: 4, Name: "TRUEGREEN_WALLET"}, report.Streams[0].Extent)
	require.EqualValues(t, 4, report.Streams[0].NumMessages)

	// The broker loses one, and somebody else publishes another.
	stream, err := js.Stream(ctx, "TRUEGREEN_WALLET")
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(ctx, 2))
	gone, err := w.published(ctx, "TRUEGREEN_WALLET/2")
	require.NoError(t, err)
	_, err = js.Publish(ctx, "truegreen.wallet.foreign", []byte("hello"))
	require.NoError(t, err)
	report, err = reconcile.Run(ctx, w.Pool, readBack{js: js}, options)
	require.NoError(t, err)
	require.Equal(t, []string{"lost " + gone.String(), "unreadable"}, w.found(report))

	// A stream that is provisioned removes nothing by itself.
	require.NoError(t, stream.Purge(ctx))
	report, err = reconcile.Run(ctx, w.Pool, readBack{js: js}, options)
	require.NoError(t, err)
	require.Len(t, report.Findings, 4)
	require.Contains(t, report.Findings[0].Detail, "it was purged, or removed by hand")
	require.Zero(t, report.Streams[0].NumExpired)

	// A stream that was made anew does not have it either.
	require.NoError(t, js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
	_, err = reconcile.Run(ctx, w.Pool, readBack{js: js}, options)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	_, err = publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: 20 * time.Second, Stream: wallet})
	require.NoError(t, err)
	report, err = reconcile.Run(ctx, w.Pool, readBack{js: js}, options)
	require.NoError(t, err)
	require.Len(t, report.Findings, 4)
	require.Contains(t, report.Findings[0].Detail, "the stream ends at 0: the broker was restored or made anew without it")
}

// published returns the event whose acknowledgement names this place.
func (w *world) published(ctx context.Context, brokerRef string) (event, error) {
	var id string
	err := w.Pool.QueryRow(ctx, "SELECT event_id::text FROM outbox_events WHERE broker_ref = $1", brokerRef).Scan(&id)
	return w.events[id], err
}
