package natspublish_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

const (
	// ackTimeout is how long tests wait for answers that do not come.
	ackTimeout = 3 * time.Second

	// deadline is for what does come, however busy the machine is.
	deadline = 30 * time.Second
	interval = 5 * time.Millisecond
)

// testBundle is a broker with the wallet's stream, a publisher, and another
// client.
type testBundle struct {
	conn      *nats.Conn
	js        jetstream.JetStream
	publisher *natspublish.Publisher
	server    *devstack.NATS
}

func walletSpec() natspublish.StreamSpec {
	return natspublish.StreamSpec{MaxEventBytes: 512 << 10, MinDuplicates: 20 * time.Second, Stream: outbox.StreamWallet}
}

func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Stop)

	bundle := &testBundle{publisher: connect(t, server.URL()), server: server}
	_, err = bundle.publisher.Provision(ctx, walletSpec())
	require.NoError(t, err)

	bundle.conn, err = nats.Connect(server.URL())
	require.NoError(t, err)
	t.Cleanup(bundle.conn.Close)
	bundle.js, err = jetstream.New(bundle.conn)
	require.NoError(t, err)
	return bundle
}

func connect(t testing.TB, url string) *natspublish.Publisher {
	t.Helper()
	publisher, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: ackTimeout, URL: url})
	require.NoError(t, err)
	t.Cleanup(publisher.Close)
	return publisher
}

func event(key string, keySeq int64) outbox.Event {
	return outbox.Event{
		CreatedAt: time.Date(2026, 11, 2, 3, 4, 5, 6000, time.UTC),
		EventID:   uuid.New(),
		Key:       key,
		KeySeq:    keySeq,
		Payload:   json.RawMessage(`{"amount":"1000"}`),
		Stream:    outbox.StreamWallet,
		Type:      "wallet.deposited.v1",
	}
}

// publish sends with time for all of it.
func publish(ctx context.Context, publisher *natspublish.Publisher, events ...outbox.Event) []outbox.Outcome {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return publisher.Publish(ctx, events)
}

// publishBriefly sends with the deadline that the relay would set.
func publishBriefly(ctx context.Context, publisher *natspublish.Publisher, events ...outbox.Event) []outbox.Outcome {
	return publishWithin(ctx, publisher, ackTimeout, events...)
}

func publishWithin(ctx context.Context, publisher *natspublish.Publisher, timeout time.Duration, events ...outbox.Event) []outbox.Outcome {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return publisher.Publish(ctx, events)
}

// mustPublish sends events that the broker takes.
func mustPublish(ctx context.Context, t testing.TB, publisher *natspublish.Publisher, events ...outbox.Event) []outbox.Outcome {
	t.Helper()
	outcomes := publish(ctx, publisher, events...)
	for _, outcome := range outcomes {
		require.Equal(t, outbox.ClassAcknowledged, outcome.Class, "%v", outcome.Err)
	}
	return outcomes
}

// update changes the stream behind the publisher's back.
func (bundle *testBundle) update(ctx context.Context, t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	change(&config)
	_, err = bundle.js.UpdateStream(ctx, config)
	require.NoError(t, err)
}

// messages reads the whole stream, from its first sequence.
func (bundle *testBundle) messages(ctx context.Context, t *testing.T) []jetstream.Msg {
	t.Helper()
	stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
	require.NoError(t, err)
	if stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	batch, err := consumer.Fetch(int(stream.CachedInfo().State.Msgs))
	require.NoError(t, err)
	var messages []jetstream.Msg
	for message := range batch.Messages() {
		messages = append(messages, message)
	}
	require.NoError(t, batch.Error())
	return messages
}

// many are num events of 500 keys at most, each key's in order.
func many(num int) []outbox.Event {
	const numKeys = 500
	events := make([]outbox.Event, num)
	for i := range events {
		events[i] = event(fmt.Sprintf("many-%d", i%numKeys), int64(i/numKeys+1))
	}
	return events
}

// chain are events of one key, which always go in batches.
func chain(num int) []outbox.Event {
	events := make([]outbox.Event, num)
	for i := range events {
		events[i] = event("chain", int64(i+1))
	}
	return events
}

// maybeSent are the same events, of which none can go in a batch.
func maybeSent(events []outbox.Event) []outbox.Event {
	marked := slices.Clone(events)
	for i := range marked {
		marked[i].MaybeSent = true
	}
	return marked
}

// classes counts the outcomes.
func classes(outcomes []outbox.Outcome) map[outbox.Class]int {
	counts := make(map[outbox.Class]int)
	for _, outcome := range outcomes {
		counts[outcome.Class]++
	}
	return counts
}

// inBatches counts the messages of the stream that came in an atomic batch.
func (bundle *testBundle) inBatches(ctx context.Context, t *testing.T) (num int) {
	t.Helper()
	for _, message := range bundle.messages(ctx, t) {
		if message.Headers().Get("Nats-Batch-Id") != "" {
			num++
		}
	}
	return num
}

// requireStored looks up each reference, and that the stream holds nothing else.
func (bundle *testBundle) requireStored(ctx context.Context, t *testing.T, events []outbox.Event, outcomes []outbox.Outcome) {
	t.Helper()
	stored := make(map[string]jetstream.Msg)
	for _, message := range bundle.messages(ctx, t) {
		meta, err := message.Metadata()
		require.NoError(t, err)
		stored[fmt.Sprintf("TRUEGREEN_WALLET/%d", meta.Sequence.Stream)] = message
	}
	require.Len(t, stored, len(events))
	require.Len(t, outcomes, len(events))
	for i, outcome := range outcomes {
		require.Equal(t, outbox.ClassAcknowledged, outcome.Class, "%v", outcome.Err)
		message := stored[outcome.BrokerRef]
		require.NotNil(t, message, outcome.BrokerRef)
		require.Equal(t, events[i].EventID.String(), message.Headers().Get("ce-id"))
		require.Equal(t, events[i].EventID.String(), message.Headers().Get("Nats-Msg-Id"))
		require.Equal(t, events[i].Key, message.Headers().Get("ce-partitionkey"))
		require.Equal(t, fmt.Sprint(events[i].KeySeq), message.Headers().Get("ce-keysequence"))
	}
}

// requireOrder looks that each key's events are stored in order, without a hole.
func (bundle *testBundle) requireOrder(ctx context.Context, t *testing.T) {
	t.Helper()
	lastSeq := make(map[string]int)
	for _, message := range bundle.messages(ctx, t) {
		key := message.Headers().Get("ce-subject")
		lastSeq[key]++
		require.Equal(t, fmt.Sprint(lastSeq[key]), message.Headers().Get("ce-keysequence"), key)
	}
}

// freshKeys are events of as many new keys.
func freshKeys(num int) []outbox.Event {
	events := make([]outbox.Event, num)
	run := uuid.NewString()
	for i := range events {
		events[i] = event(fmt.Sprintf("%s-%d", run, i), 1)
	}
	return events
}

func (bundle *testBundle) numMessages(ctx context.Context) uint64 {
	stream, err := bundle.js.Stream(ctx, natspublish.StreamName(outbox.StreamWallet))
	if err != nil {
		return 0
	}
	return stream.CachedInfo().State.Msgs
}
