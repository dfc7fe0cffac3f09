package peers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
)

const (
	fillBatch   = 1000   // events that one transaction stores
	numKeys     = 10_000 // the events are spread over
	pollEvery   = 5 * time.Millisecond
	waitAtMost  = 5 * time.Minute
	headerKey   = "ce-partitionkey"
	headerSeq   = "ce-keysequence"
	eventType   = "wallet.staked.v1"
	maxInFlight = 4000 // messages of one connection
)

// relay is one way to get stored events to the broker.
type relay interface {
	// fill stores events.
	fill(ctx context.Context, b *testing.B, events []event)

	// ids returns the ids that the events of the last fill got.
	ids() []string

	// start begins to publish what is stored, until the stop that it returns is
	// called.
	start(ctx context.Context, b *testing.B) (stop func())

	// isDone says whether it has stored of all events that the broker has them.
	isDone(ctx context.Context, b *testing.B) bool

	// database is where its events are.
	database() *pgxpool.Pool

	// stream is the JetStream stream that it publishes to.
	stream() string
}

// event is what every relay stores and publishes.
type event struct {
	key     string
	keySeq  int64
	payload []byte
}

// newEvents returns events in the order of appending, of random keys, the same in
// every call. The sequences of each key follow those of earlier rounds.
func newEvents(round, numEvents int) []event {
	events := make([]event, numEvents)
	// 500 bytes of JSON.
	payload := fmt.Appendf(nil, `{"amount":"1000","note":"%s"}`, strings.Repeat("x", 471))
	random := rand.New(rand.NewPCG(1, uint64(round)))
	lastSeq := make([]int, numKeys)
	for n := range events {
		key := random.IntN(numKeys)
		lastSeq[key]++
		events[n] = event{
			key:     fmt.Sprintf("p-%d/KRW", key),
			keySeq:  int64(round*numEvents + lastSeq[key]),
			payload: payload,
		}
	}
	return events
}

// broker is a broker of this process, and a connection to look at it.
type broker struct {
	js     jetstream.JetStream
	server *devstack.NATS
}

func startBroker(b *testing.B) *broker {
	b.Helper()
	// Not b.TempDir: files of a stopped server may still be under removal.
	dir, err := os.MkdirTemp("", "truegreen-peers-")
	require.NoError(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: dir})
	require.NoError(b, err)
	b.Cleanup(server.Stop)
	return &broker{js: connect(b, server.URL()), server: server}
}

// connect opens a connection of its own, as each relay has one.
func connect(b *testing.B, url string) jetstream.JetStream {
	b.Helper()
	conn, err := nats.Connect(url)
	require.NoError(b, err)
	b.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(maxInFlight))
	require.NoError(b, err)
	return js
}

// createStream makes a stream with the settings of one that Truegreen's broker
// provisioning makes.
func (br *broker) createStream(ctx context.Context, b *testing.B, name string) {
	b.Helper()
	_, err := br.js.CreateStream(ctx, jetstream.StreamConfig{
		AllowAtomicPublish: true,
		Discard:            jetstream.DiscardNew,
		Duplicates:         2 * time.Minute,
		Name:               name,
		Storage:            jetstream.FileStorage,
		Subjects:           []string{name + ".>"},
	})
	require.NoError(b, err)
}

// publish sends one event of a peer, without waiting for its acknowledgement. It has
// the headers of a message of Truegreen.
func publish(js jetstream.JetStream, stream, id, key, keySeq string, payload []byte) (jetstream.PubAckFuture, error) {
	return js.PublishMsgAsync(&nats.Msg{
		Data: payload,
		Header: nats.Header{
			headerKey:                      {key},
			headerSeq:                      {keySeq},
			"ce-id":                        {id},
			"ce-source":                    {"/truegreen/wallet"},
			"ce-specversion":               {"1.0"},
			"ce-subject":                   {key},
			"ce-time":                      {time.Now().UTC().Format(time.RFC3339Nano)},
			"ce-type":                      {eventType},
			"content-type":                 {"application/json"},
			jetstream.ExpectedStreamHeader: {stream},
			jetstream.MsgIDHeader:          {id},
		},
		Subject: stream + "." + eventType,
	}, jetstream.WithStallWait(time.Minute))
}

// result is what one drain showed.
type result struct {
	cpuMicros float64 // of processor time for each event, with broker and database
	rate      float64 // events per second
	unordered float64 // share of the keys whose events the broker has out of order
}

// measure drains once: from the start of the relay to when it has stored of the
// last event that the broker has it.
func (br *broker) measure(ctx context.Context, b *testing.B, measured relay, events []event) result {
	b.Helper()
	measured.fill(ctx, b, events)
	stream, err := br.js.Stream(ctx, measured.stream())
	require.NoError(b, err)
	wanted := uint64(len(events))

	usedBefore := processorTime(ctx, b, measured.database())
	started := time.Now()
	stop := measured.start(ctx, b)
	require.Eventually(b, func() bool {
		info, err := stream.Info(ctx)
		return err == nil && info.State.Msgs >= wanted
	}, waitAtMost, pollEvery)
	require.Eventually(b, func() bool { return measured.isDone(ctx, b) }, waitAtMost, pollEvery)
	elapsed := time.Since(started)
	used := processorTime(ctx, b, measured.database()) - usedBefore
	stop()

	unordered := br.verify(ctx, b, stream, measured.ids())
	require.NoError(b, stream.Purge(ctx))
	numEvents := float64(len(events))
	return result{
		cpuMicros: float64(used.Microseconds()) / numEvents,
		rate:      numEvents / elapsed.Seconds(),
		unordered: unordered,
	}
}

// verify requires that the stream has one message of each id and nothing else,
// and returns the share of keys that are out of order.
func (br *broker) verify(ctx context.Context, b *testing.B, stream jetstream.Stream, ids []string) float64 {
	b.Helper()
	info, err := stream.Info(ctx)
	require.NoError(b, err)
	require.EqualValues(b, len(ids), info.State.Msgs, "messages of the broker")

	missing := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		missing[id] = struct{}{}
	}
	require.Len(b, missing, len(ids), "ids must be unique")
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	require.NoError(b, err)
	messages, err := consumer.Messages()
	require.NoError(b, err)
	defer messages.Stop()
	last := make(map[string]int64, numKeys)
	unordered := make(map[string]struct{})
	for range ids {
		message, err := messages.Next()
		require.NoError(b, err)
		headers := message.Headers()
		id := headers.Get(jetstream.MsgIDHeader)
		_, isMissing := missing[id]
		require.True(b, isMissing, "message %s must be one that was stored, once", id)
		delete(missing, id)
		key := headers.Get(headerKey)
		keySeq, err := strconv.ParseInt(headers.Get(headerSeq), 10, 64)
		require.NoError(b, err)
		if keySeq < last[key] {
			unordered[key] = struct{}{}
		}
		last[key] = keySeq
	}
	require.Empty(b, missing)
	return float64(len(unordered)) / float64(len(last))
}

// freshPlans are the settings of the peers' sessions: a plan that is kept may be one
// for tables that were empty.
var freshPlans = map[string]string{"plan_cache_mode": "force_custom_plan"}

// openPool makes a database of its own on the server that all relays share; settings
// are those of its sessions.
func openPool(ctx context.Context, b *testing.B, maxConns int32, settings map[string]string) *pgxpool.Pool {
	b.Helper()
	config, err := pgxpool.ParseConfig(dbtest.Durable(ctx, b).URL)
	require.NoError(b, err)
	config.MaxConns = maxConns
	for name, value := range settings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}

// settle leaves no work of the filling to the measured time.
func settle(ctx context.Context, b *testing.B, pool *pgxpool.Pool) {
	b.Helper()
	_, err := pool.Exec(ctx, "VACUUM ANALYZE")
	require.NoError(b, err)
	_, err = pool.Exec(ctx, "CHECKPOINT")
	require.NoError(b, err)
}

func newIDs(num int) []string {
	ids := make([]string, num)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	return ids
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
