package natspublish_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

func TestPublisher_Publish_Batches(t *testing.T) {
	t.Parallel()

	t.Run("ReferToEachMessageOfABatch", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, bundle.publisher, event("first", 1))[0].Class)

		events := many(1000)
		outcomes := publish(ctx, bundle.publisher, events...)
		for i, outcome := range outcomes {
			require.Equal(t, outbox.Outcome{BrokerRef: fmt.Sprintf("TRUEGREEN_WALLET/%d", i+2), Class: outbox.ClassAcknowledged}, outcome)
		}
		require.Equal(t, 1000, bundle.inBatches(ctx, t))
		// The broker knows them by their ids, as any others.
		repeated := publish(ctx, bundle.publisher, maybeSent(events[:3])...)
		for i, outcome := range repeated {
			require.Equal(t, outcomes[i].BrokerRef, outcome.BrokerRef)
			require.True(t, outcome.Duplicate)
		}
	})

	t.Run("ReferRightWhileOthersPublish", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		const numPublishers, numCalls = 4, 5
		var events []outbox.Event
		var outcomes []outbox.Outcome
		var mu sync.Mutex
		var all sync.WaitGroup
		for n := range numPublishers {
			// Two share a connection, the others have their own.
			publisher := bundle.publisher
			if n > 1 {
				publisher = connect(t, bundle.server.URL())
			}
			all.Go(func() {
				for call := range numCalls {
					sent := make([]outbox.Event, 300+n*10)
					for i := range sent {
						sent[i] = event(fmt.Sprintf("%d-%d-%d", n, call, i), 1)
						sent[i].MaybeSent = i%10 == 0 // some go beside the batch
					}
					got := publish(ctx, publisher, sent...)
					mu.Lock()
					events, outcomes = append(events, sent...), append(outcomes, got...)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		bundle.requireStored(ctx, t, events, outcomes)
		require.Positive(t, bundle.inBatches(ctx, t))
	})

	t.Run("KeepTheOrderOfEachKeyOverAllTheyAreCutInto", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := many(3100) // three batches, and a rest that goes by itself
		bundle.requireStored(ctx, t, events, publish(ctx, bundle.publisher, events...))
		bundle.requireOrder(ctx, t)
		require.Equal(t, 3000, bundle.inBatches(ctx, t))
	})

	t.Run("TakeNoKeyOfWhichTheBrokerMayHaveAnEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := many(1000)
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, bundle.publisher, events[7])[0].Class)
		events[7].MaybeSent = true   // the broker has it; the key's second is 507
		events[800].MaybeSent = true // the broker does not have it; the key's first is 300

		outcomes := publish(ctx, bundle.publisher, events...)
		bundle.requireStored(ctx, t, events, outcomes)
		bundle.requireOrder(ctx, t)
		require.True(t, outcomes[7].Duplicate)
		require.Equal(t, 996, bundle.inBatches(ctx, t))
	})

	t.Run("AreForManyEventsOrALongChainAlone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(200)...)
		require.Zero(t, bundle.inBatches(ctx, t))

		mustPublish(ctx, t, bundle.publisher, chain(100)...)
		require.Equal(t, 100, bundle.inBatches(ctx, t))
		bundle.requireOrder(ctx, t)
	})

	t.Run("ThatAreRefusedGoByThemselvesInTheSameCall", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := many(1500)
		// The broker has one, and nobody knows.
		require.Equal(t, outbox.ClassAcknowledged, publish(ctx, bundle.publisher, events[20])[0].Class)
		outcomes := publish(ctx, bundle.publisher, events...)
		bundle.requireStored(ctx, t, events, outcomes)
		bundle.requireOrder(ctx, t)
		require.Zero(t, bundle.inBatches(ctx, t))
		for i, outcome := range outcomes {
			require.Equal(t, i == 20, outcome.Duplicate, i)
		}
		// The next ones go in a batch again.
		mustPublish(ctx, t, bundle.publisher, chain(300)...)
		require.Equal(t, 300, bundle.inBatches(ctx, t))
	})

	t.Run("AreNotTriedAgainForAWhileWhereTheStreamTakesNone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.AllowAtomicPublish = false })
		tried, err := bundle.conn.SubscribeSync("truegreen.wallet.>")
		require.NoError(t, err)
		require.NoError(t, bundle.conn.Flush())

		events := many(900)
		outcomes := publish(ctx, bundle.publisher, events[:300]...)
		outcomes = append(outcomes, publish(ctx, bundle.publisher, events[300:600]...)...)
		outcomes = append(outcomes, publish(ctx, bundle.publisher, events[600:]...)...)
		bundle.requireStored(ctx, t, events, outcomes)
		numTried := 0
		for range 901 {
			msg, err := tried.NextMsg(ackTimeout)
			require.NoError(t, err)
			if msg.Header.Get("Nats-Batch-Id") != "" {
				numTried++
			}
		}
		require.Equal(t, 1, numTried)

		_, err = bundle.publisher.Provision(ctx, walletSpec())
		require.NoError(t, err)
		mustPublish(ctx, t, bundle.publisher, chain(300)...)
		require.Equal(t, 300, bundle.inBatches(ctx, t))
	})

	t.Run("AreGivenUpWhereTheServerKnowsNone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		old := startOldServer(t)
		publisher := connect(t, old.url)
		events := many(600)
		outcomes := publish(ctx, publisher, events...)
		require.Equal(t, map[outbox.Class]int{outbox.ClassAcknowledged: 600}, classes(outcomes))
		require.True(t, outcomes[0].Duplicate, "what was tried with is stored")
		require.Equal(t, 601, old.numReceived())
		require.Equal(t, 600, old.numStored())
	})

	t.Run("ThatAreRefusedKeepBackWhatFollowsARefusedEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgSize = 5000 })
		events := many(1500)
		events[5].Payload = json.RawMessage(`"` + strings.Repeat("x", 6000) + `"`)
		outcomes := publish(ctx, bundle.publisher, events...)
		require.Equal(t, outbox.ClassPermanent, outcomes[5].Class)
		require.Equal(t, outbox.ClassNotSent, outcomes[505].Class)
		require.Equal(t, outbox.ClassNotSent, outcomes[1005].Class)
		require.Equal(t, 1497, classes(outcomes)[outbox.ClassAcknowledged])
		bundle.requireOrder(ctx, t)
	})

	t.Run("LeaveOutWhatIsTooLargeToBeSent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := freshKeys(400)
		events[5].Payload = json.RawMessage(`"` + strings.Repeat("x", 2<<20) + `"`)
		outcomes := publish(ctx, bundle.publisher, events...)
		require.Equal(t, outbox.ClassPermanent, outcomes[5].Class)
		require.Equal(t, 399, bundle.inBatches(ctx, t))
	})

	t.Run("CarryTheHeadersOfEachEventAlone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := freshKeys(301)
		events[0].Headers = map[string]string{"tenant": "x", "traceparent": "00-aa-bb-01"}
		events[299].Headers = map[string]string{"content-type": "text/plain"}
		events[300].MaybeSent = true // goes by itself
		mustPublish(ctx, t, bundle.publisher, events...)
		ids := make(map[string]map[string][]string)
		for _, message := range bundle.messages(ctx, t) {
			ids[message.Headers().Get("ce-id")] = message.Headers()
		}
		header := func(index int) map[string][]string { return ids[events[index].EventID.String()] }
		batch := header(1)["Nats-Batch-Id"]
		common := func(index int) map[string][]string {
			id := events[index].EventID.String()
			return map[string][]string{
				"Nats-Batch-Id":        batch,
				"Nats-Batch-Sequence":  {fmt.Sprint(index + 1)},
				"Nats-Expected-Stream": {"TRUEGREEN_WALLET"},
				"Nats-Msg-Id":          {id},
				"ce-datacontenttype":   {"application/json"},
				"ce-id":                {id},
				"ce-partitionkey":      {events[index].Key},
				"ce-keysequence":       {"1"},
				"ce-source":            {"/truegreen/wallet"},
				"ce-specversion":       {"1.0"},
				"ce-subject":           {events[index].Key},
				"ce-time":              {"2026-11-02T03:04:05.000006Z"},
				"ce-type":              {"wallet.deposited.v1"},
				"content-type":         {"application/json"},
			}
		}
		first, last, single := common(0), common(299), common(300)
		first["tenant"], first["traceparent"], first["ce-traceparent"] = []string{"x"}, []string{"00-aa-bb-01"}, []string{"00-aa-bb-01"}
		last["Nats-Batch-Commit"] = []string{"1"}
		delete(single, "Nats-Batch-Id")
		delete(single, "Nats-Batch-Sequence")
		require.Equal(t, first, header(0))
		require.Equal(t, common(1), header(1))
		require.Equal(t, last, header(299))
		require.Equal(t, single, header(300))
	})

	for name, ack := range map[string]string{
		"count":    `{"stream":"TRUEGREEN_WALLET","seq":300,"batch":%q,"count":299}`,
		"sequence": `{"stream":"TRUEGREEN_WALLET","seq":299,"batch":%q,"count":300}`,
		"batch":    `{"stream":"TRUEGREEN_WALLET","seq":300,"batch":"%.3s","count":300}`,
		"stream":   `{"stream":"OTHER","seq":300,"batch":%q,"count":300}`,
		"plain":    `{"stream":"TRUEGREEN_WALLET", "seq":300}%.0s`,
	} {
		t.Run("AreNotBelievedIfTheAcknowledgementIsNotOfAllOfIt/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			old := startOldServer(t)
			old.batchAck = ack
			publisher := connect(t, old.url)
			outcomes := mustPublish(ctx, t, publisher, freshKeys(300)...)
			require.Equal(t, 300, old.numStored(), "each went by itself")
			for i, outcome := range outcomes {
				require.Equal(t, fmt.Sprintf("TRUEGREEN_WALLET/%d", i+1), outcome.BrokerRef)
			}
		})
	}
}
