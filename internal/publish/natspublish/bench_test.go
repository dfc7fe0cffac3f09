package natspublish_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
)

// BenchmarkPublish publishes in calls of 1,000 events of 500 bytes, with a new id
// each, to a server in this process. "limit" is the client's own asynchronous
// publishing, which keeps no order; "single" is one event per key at a time.
func BenchmarkPublish(b *testing.B) {
	for _, sync := range []string{"lazy", "always"} {
		for _, load := range []struct {
			name    string
			numKeys int
		}{{"10000_keys", 10_000}, {"hot_key", 1}} {
			for _, way := range []string{"limit", "single", "atomic"} {
				b.Run(sync+"/"+load.name+"/"+way, func(b *testing.B) {
					benchmark(b, benchmarkCase{events: 1000, keys: load.numKeys, syncAlways: sync == "always", way: way})
				})
			}
		}
	}
}

// BenchmarkPublish_Size finds from how many events on a batch pays.
func BenchmarkPublish_Size(b *testing.B) {
	for _, events := range []int{64, 100, 250, 500, 1000} {
		for _, numKeys := range []int{1, 10_000} {
			for _, way := range []string{"single", "atomic"} {
				b.Run(fmt.Sprintf("%d_events/%d_keys/%s", events, numKeys, way), func(b *testing.B) {
					benchmark(b, benchmarkCase{events: events, keys: numKeys, way: way})
				})
			}
		}
	}
}

type benchmarkCase struct {
	events     int // per call
	keys       int
	syncAlways bool
	way        string
}

func benchmark(b *testing.B, tc benchmarkCase) {
	b.Helper()
	ctx := b.Context()
	server := startBenchServer(b, tc.syncAlways)
	publisher := connect(b, server.URL())
	_, err := publisher.Provision(ctx, walletSpec())
	require.NoError(b, err)
	conn, err := nats.Connect(server.URL())
	require.NoError(b, err)
	b.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	require.NoError(b, err)

	events := make([]outbox.Event, tc.events)
	for i := range events {
		events[i] = event("", 1)
		events[i].MaybeSent = tc.way == "single"
		events[i].Payload = json.RawMessage(fmt.Sprintf(`{"amount":"1000","note":"%s"}`, strings.Repeat("x", 471)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += len(events) {
		for i := range events {
			events[i].EventID = uuid.New()
			events[i].Key = fmt.Sprintf("player-%d", (sent+i)%tc.keys)
		}
		if tc.way == "limit" {
			publishUnordered(b, js, events)
			continue
		}
		sendCtx, cancel := context.WithTimeout(ctx, time.Minute)
		for _, outcome := range publisher.Publish(sendCtx, events) {
			if outcome.Class != outbox.ClassAcknowledged {
				b.Fatal(outcome)
			}
		}
		cancel()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func startBenchServer(b *testing.B, syncAlways bool) *devstack.NATS {
	b.Helper()
	// Not b.TempDir: files of a stopped server may still be under removal.
	dir, err := os.MkdirTemp("", "truegreen-bench-")
	require.NoError(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: dir, SyncAlways: syncAlways})
	require.NoError(b, err)
	b.Cleanup(server.Stop)
	return server
}

// publishUnordered is what the client does by itself.
func publishUnordered(b *testing.B, js jetstream.JetStream, events []outbox.Event) {
	b.Helper()
	futures := make([]jetstream.PubAckFuture, len(events))
	for i := range events {
		event := &events[i]
		future, err := js.PublishMsgAsync(&nats.Msg{
			Data: event.Payload,
			Header: nats.Header{
				"Nats-Msg-Id":     {event.EventID.String()},
				"ce-id":           {event.EventID.String()},
				"ce-partitionkey": {event.Key},
				"ce-keysequence":  {"1"},
				"ce-source":       {"/truegreen/wallet"},
				"ce-specversion":  {"1.0"},
				"ce-subject":      {event.Key},
				"ce-time":         {event.CreatedAt.Format(time.RFC3339Nano)},
				"ce-type":         {event.Type},
				"content-type":    {"application/json"},
			},
			Subject: "truegreen.wallet." + event.Type,
		})
		require.NoError(b, err)
		futures[i] = future
	}
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			b.Fatal(err)
		}
	}
}
