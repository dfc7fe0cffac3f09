package natspublish_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

func TestPublisher_Publish(t *testing.T) {
	t.Parallel()

	t.Run("SendsCloudEventsAndReturnsWhereTheyAre", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)

		sent := event("p-1/KRW", 7)
		sent.Headers = map[string]string{"traceparent": "00-aa-bb-01", "tenant": "x"}
		outcomes := publish(ctx, bundle.publisher, sent)
		require.Equal(t, []outbox.Outcome{{BrokerRef: "TRUEGREEN_WALLET/1", Class: outbox.ClassAcknowledged}}, outcomes)

		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		message, err := stream.GetMsg(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, "truegreen.wallet.wallet.deposited.v1", message.Subject)
		require.JSONEq(t, string(sent.Payload), string(message.Data))
		want := map[string]string{
			"Nats-Expected-Stream": "TRUEGREEN_WALLET",
			"Nats-Msg-Id":          sent.EventID.String(),
			"ce-datacontenttype":   "application/json",
			"ce-id":                sent.EventID.String(),
			"ce-partitionkey":      "p-1/KRW",
			"ce-keysequence":       "7",
			"ce-source":            "/truegreen/wallet",
			"ce-specversion":       "1.0",
			"ce-subject":           "p-1/KRW",
			"ce-time":              "2026-11-02T03:04:05.000006Z",
			"ce-traceparent":       "00-aa-bb-01",
			"ce-type":              "wallet.deposited.v1",
			"content-type":         "application/json",
			"tenant":               "x",
			"traceparent":          "00-aa-bb-01",
		}
		got := make(map[string]string, len(message.Header))
		for name, values := range message.Header {
			got[name] = strings.Join(values, ",")
		}
		require.Equal(t, want, got)
	})

	t.Run("KeepsTheOrderOfEachKey", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)

		var events []outbox.Event
		for seq := range int64(50) {
			for key := range 20 {
				events = append(events, event(fmt.Sprintf("p-%d", key), seq+1))
			}
		}
		for _, outcome := range publish(ctx, bundle.publisher, events...) {
			require.Equal(t, outbox.ClassAcknowledged, outcome.Class)
		}
		lastSeq := make(map[string]int)
		for _, message := range bundle.messages(ctx, t) {
			key := message.Headers().Get("ce-subject")
			lastSeq[key]++
			require.Equal(t, fmt.Sprint(lastSeq[key]), message.Headers().Get("ce-keysequence"))
		}
		require.Len(t, lastSeq, 20)
	})

	t.Run("CountsARepeatAsAcknowledged", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)

		sent := event("p-1", 1)
		first := publish(ctx, bundle.publisher, sent)[0]
		second := publish(ctx, bundle.publisher, sent)[0]
		require.Equal(t, first.BrokerRef, second.BrokerRef)
		require.False(t, first.Duplicate)
		require.True(t, second.Duplicate)
		require.Len(t, bundle.messages(ctx, t), 1)
	})

	t.Run("StopsTheKeyOfARefusedEventAndNoOther", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgSize = 2000 })

		tooLarge := event("p-1", 1)
		tooLarge.Payload = json.RawMessage(`"` + strings.Repeat("x", 3000) + `"`)
		outcomes := publish(ctx, bundle.publisher, tooLarge, event("p-1", 2), event("p-2", 1), event("p-1", 3), event("p-2", 2))
		classes := make([]outbox.Class, len(outcomes))
		for i, outcome := range outcomes {
			classes[i] = outcome.Class
		}
		require.Equal(t, []outbox.Class{
			outbox.ClassPermanent, outbox.ClassNotSent, outbox.ClassAcknowledged, outbox.ClassNotSent, outbox.ClassAcknowledged,
		}, classes)
		require.Len(t, bundle.messages(ctx, t), 2)
	})

	t.Run("RefusesWhatTheServerWouldNotEvenRead", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		tooLarge := event("p-1", 1)
		tooLarge.Payload = json.RawMessage(`"` + strings.Repeat("x", 2<<20) + `"`)
		require.Equal(t, outbox.ClassPermanent, publish(ctx, bundle.publisher, tooLarge)[0].Class)
	})

	t.Run("CallsAnOutageAnOutage", func(t *testing.T) {
		t.Parallel()
		for name, cause := range map[string]func(context.Context, *testing.T, *testBundle){
			"stream is gone": func(ctx context.Context, t *testing.T, bundle *testBundle) {
				require.NoError(t, bundle.js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
			},
			"stream is full": func(ctx context.Context, t *testing.T, bundle *testBundle) {
				publish(ctx, bundle.publisher, event("p-9", 1))
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgs = 1 })
			},
			"subject belongs to another stream": func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Subjects = []string{"elsewhere"} })
				_, err := bundle.js.CreateStream(ctx, jetstream.StreamConfig{Name: "THIEF", Subjects: []string{"truegreen.>"}})
				require.NoError(t, err)
			},
			"server is stopped": func(_ context.Context, _ *testing.T, bundle *testBundle) { bundle.server.Stop() },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle := setup(ctx, t)
				cause(ctx, t, bundle)
				// The client may notice a stopped server only after the first send.
				require.Eventually(t, func() bool {
					return publish(ctx, bundle.publisher, event("p-1", 1))[0].Class == outbox.ClassInfrastructure
				}, 10*time.Second, 10*time.Millisecond)
			})
		}
	})

	t.Run("CallsSilenceAmbiguousAndSendsNothingMoreOfTheKey", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		proxy := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, proxy.url)
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, publisher, event("p-1", 1))[0].Class)

		proxy.mute()
		outcomes := publishBriefly(ctx, publisher, event("p-2", 1), event("p-2", 2))
		require.Equal(t, outbox.ClassAmbiguous, outcomes[0].Class)
		require.Equal(t, outbox.ClassNotSent, outcomes[1].Class)
		// It did arrive: that is what ambiguous means.
		require.Len(t, bundle.messages(ctx, t), 2)
	})

	t.Run("AMissingAcknowledgementHoldsBackItsKeyAlone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		// One type of event goes to a stream that stores it and never says so.
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Subjects = []string{"truegreen.wallet.wallet.>"} })
		_, err := bundle.js.CreateStream(ctx, jetstream.StreamConfig{Name: "SILENT", NoAck: true, Subjects: []string{"truegreen.wallet.silent.>"}})
		require.NoError(t, err)
		silent := event("p-1", 1)
		silent.Type = "silent.v1"
		events := []outbox.Event{silent, event("p-1", 2)}
		for seq := range int64(50) {
			events = append(events, event("p-2", seq+1))
		}

		outcomes := publishBriefly(ctx, bundle.publisher, events...)
		require.Equal(t, outbox.ClassAmbiguous, outcomes[0].Class)
		require.Equal(t, outbox.ClassNotSent, outcomes[1].Class)
		for _, outcome := range outcomes[2:] {
			require.Equal(t, outbox.ClassAcknowledged, outcome.Class)
		}
	})

	t.Run("SendsNothingThatCouldNotBeAnsweredInTime", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		// One key, and a way to the broker that takes a while: what its time does not
		// suffice for is left, and nothing is cut off in flight.
		slow := startProxy(t, bundle.server.URL(), func(p *proxy) { p.delay.Store(int64(50 * time.Millisecond)) })
		publisher := connect(t, slow.url)
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, publisher, event("p-1", 1))[0].Class)
		events := make([]outbox.Event, 200)
		for i := range events {
			events[i] = event("p-1", int64(i+2))
			events[i].MaybeSent = true // or else they go in one batch
		}
		classes := make(map[outbox.Class]int)
		for _, outcome := range publishBriefly(ctx, publisher, events...) {
			classes[outcome.Class]++
		}
		require.Positive(t, classes[outbox.ClassAcknowledged])
		require.Positive(t, classes[outbox.ClassNotSent])
		require.Equal(t, 200, classes[outbox.ClassAcknowledged]+classes[outbox.ClassNotSent], "%v", classes)
	})

	t.Run("ReportsAnAcknowledgementThatCameBeforeTheEnd", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		bundle := setup(ctx, t)
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, bundle.publisher, event("p-1", 1))[0].Class)
		cancel()
		outcomes := bundle.publisher.Publish(ctx, []outbox.Event{event("p-1", 2)})
		require.Equal(t, outbox.ClassNotSent, outcomes[0].Class)
		require.Len(t, bundle.messages(t.Context(), t), 1)
	})
}
