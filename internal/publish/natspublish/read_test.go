package natspublish_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// readAll reads the wallet's stream.
func readAll(ctx context.Context, publisher *natspublish.Publisher) (stored []natspublish.StoredMessage, first, last uint64, err error) {
	first, last, err = publisher.ReadStream(ctx, outbox.StreamWallet, func(message natspublish.StoredMessage) error {
		stored = append(stored, message)
		return nil
	})
	return stored, first, last, err
}

func (bundle *testBundle) requireNoReaders(ctx context.Context, t *testing.T) {
	t.Helper()
	stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().State.Consumers)
}

func TestPublisher_ReadStream(t *testing.T) {
	t.Parallel()

	t.Run("ReadsEachMessageOnceInOrderAndLeavesNothingBehind", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := many(20_000) // more than is asked for at once
		events[0].Headers = map[string]string{"tenant": "x"}
		for start := 0; start < len(events); start += 5000 {
			mustPublish(ctx, t, bundle.publisher, events[start:start+5000]...)
		}
		stored, first, last, err := readAll(ctx, bundle.publisher)
		require.NoError(t, err)
		require.Equal(t, uint64(1), first)
		require.Equal(t, uint64(20_000), last)
		require.Len(t, stored, 20_000)
		byID := make(map[string]outbox.Event)
		for _, event := range events {
			byID[event.EventID.String()] = event
		}
		for i, message := range stored {
			event := byID[message.EventID]
			require.Equal(t, uint64(i+1), message.Sequence)
			require.Equal(t, event.Key, message.Key)
			require.Equal(t, event.KeySeq, message.KeySeq)
			require.Equal(t, event.Type, message.Type)
			require.Equal(t, "/truegreen/wallet", message.Source)
			require.Equal(t, "truegreen.wallet."+event.Type, message.Subject)
			require.Equal(t, len(event.Payload), message.Bytes)
			require.Empty(t, message.Problem)
			require.WithinDuration(t, time.Now(), message.StoredAt, time.Hour)
			require.NotContains(t, message.Header, "Nats-Msg-Size")
		}
		require.Equal(t, []string{"x"}, stored[0].Header["tenant"])
		bundle.requireNoReaders(ctx, t)
	})

	t.Run("EndsWhereTheStreamEndedAtTheStart", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		numRead := 0
		_, last, err := bundle.publisher.ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			if numRead == 0 {
				mustPublish(ctx, t, bundle.publisher, freshKeys(300)...)
			}
			numRead++
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, uint64(300), last)
		require.Equal(t, 300, numRead)
		bundle.requireNoReaders(ctx, t)
	})

	t.Run("IsDoneAtOnceWithAnEmptyStream", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		stored, first, last, err := readAll(ctx, bundle.publisher)
		require.NoError(t, err)
		require.Empty(t, stored)
		require.Equal(t, []uint64{1, 0}, []uint64{first, last})

		mustPublish(ctx, t, bundle.publisher, many(10)...)
		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		require.NoError(t, stream.Purge(ctx))
		stored, first, last, err = readAll(ctx, bundle.publisher)
		require.NoError(t, err)
		require.Empty(t, stored)
		require.Equal(t, []uint64{11, 10}, []uint64{first, last})
	})

	t.Run("NamesWhatIsGone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		for _, sequence := range []uint64{1, 2, 10, 11, 50, 299, 300} {
			require.NoError(t, stream.DeleteMsg(ctx, sequence))
		}
		stored, first, last, err := readAll(ctx, bundle.publisher)
		var gaps *natspublish.GapError
		require.ErrorAs(t, err, &gaps)
		require.Equal(t, []natspublish.Gap{{First: 10, Last: 11}, {First: 50, Last: 50}, {First: 299, Last: 300}}, gaps.Gaps)
		require.Equal(t, uint64(5), gaps.NumMissing)
		require.EqualError(t, err, "stream TRUEGREEN_WALLET: messages are gone, 5 in all, at sequences 10 to 11, 50, 299 to 300")
		require.Equal(t, uint64(3), first, "what is missing before it is no gap")
		require.Equal(t, uint64(300), last)
		require.Len(t, stored, 293)
		bundle.requireNoReaders(ctx, t)
	})

	t.Run("NamesWhatIsGoneAtTheEndThoughMoreHasCome", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, freshKeys(20_000)...)
		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		numRead := 0
		_, last, err := bundle.publisher.ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			if numRead == 0 {
				require.NoError(t, stream.DeleteMsg(ctx, 20_000))
				mustPublish(ctx, t, bundle.publisher, freshKeys(10)...)
			}
			numRead++
			return nil
		})
		require.EqualError(t, err, "stream TRUEGREEN_WALLET: messages are gone, 1 in all, at sequences 20000")
		require.Equal(t, uint64(20_000), last)
		require.Equal(t, 19_999, numRead)
	})

	t.Run("GoesOnAfterABrokenConnection", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		events := many(3000)
		mustPublish(ctx, t, bundle.publisher, events...)
		proxy := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, proxy.url)
		var sequences []uint64
		_, last, err := publisher.ReadStream(ctx, outbox.StreamWallet, func(message natspublish.StoredMessage) error {
			sequences = append(sequences, message.Sequence)
			if message.Sequence == 100 || message.Sequence == 1500 {
				proxy.cut()
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, uint64(3000), last)
		require.Len(t, sequences, 3000)
		for i, sequence := range sequences {
			require.Equal(t, uint64(i+1), sequence)
		}
		bundle.requireNoReaders(ctx, t)
	})

	t.Run("SaysThatAStreamDoesNotExist", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		_, _, err := bundle.publisher.ReadStream(ctx, outbox.StreamAgent, nil)
		require.EqualError(t, err, "read stream TRUEGREEN_AGENT: it does not exist; run 'truegreen broker provision'")
	})

	t.Run("EndsWithTheErrorOfTheCaller", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(10)...)
		enough := errors.New("enough")
		numRead := 0
		_, _, err := bundle.publisher.ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			numRead++
			return enough
		})
		require.ErrorIs(t, err, enough)
		require.Equal(t, 1, numRead)
		bundle.requireNoReaders(ctx, t)
	})

	t.Run("EndsWithItsContext", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(9000)...)
		mustPublish(ctx, t, bundle.publisher, freshKeys(9000)...)
		_, _, err := bundle.publisher.ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			cancel()
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		bundle.requireNoReaders(t.Context(), t)
	})

	t.Run("NamesWhatIsNotAsPublished", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		for _, header := range []nats.Header{
			nil,
			{"ce-id": {"a"}, "ce-partitionkey": {"k"}, "ce-keysequence": {"1x"}, "ce-source": {"s"}, "ce-type": {"t"}, "Nats-Msg-Id": {"b"}},
			{"ce-id": {"e"}, "ce-partitionkey": {"k"}, "ce-sequence": {"3"}, "ce-source": {"s"}, "ce-type": {"t"}, "Nats-Msg-Id": {"e"}}, // of an earlier version
			{"ce-id": {"c", "d"}, "ce-partitionkey": {"k"}, "ce-keysequence": {"2"}, "ce-source": {"s"}, "ce-type": {""}, "Nats-Msg-Id": {"c"}},
		} {
			_, err := bundle.js.PublishMsg(ctx, &nats.Msg{Data: []byte("four"), Header: header, Subject: "truegreen.wallet.foreign"})
			require.NoError(t, err)
		}
		stored, _, _, err := readAll(ctx, bundle.publisher)
		require.NoError(t, err)
		require.Len(t, stored, 4)
		for i, want := range []natspublish.StoredMessage{
			{Problem: "no ce-id; no ce-partitionkey; no ce-source; no ce-type; no ce-keysequence; no Nats-Msg-Id"},
			{EventID: "a", Key: "k", Problem: `ce-keysequence is no number: "1x"; Nats-Msg-Id is not ce-id: "b"`, Source: "s", Type: "t"},
			{EventID: "e", Key: "k", KeySeq: 3, Source: "s", Type: "t"},
			{EventID: "c", Key: "k", KeySeq: 2, Problem: "ce-id more than once; no ce-type", Source: "s"},
		} {
			want.Bytes, want.Sequence, want.Subject = 4, uint64(i+1), "truegreen.wallet.foreign"
			got := stored[i]
			got.Header, got.StoredAt = nil, time.Time{}
			require.Equal(t, want, got)
		}
	})
}

// BenchmarkPublisher_ReadStream reads 100,000 messages.
func BenchmarkPublisher_ReadStream(b *testing.B) {
	ctx := b.Context()
	server := startBenchServer(b, false)
	publisher := connect(b, server.URL())
	_, err := publisher.Provision(ctx, walletSpec())
	require.NoError(b, err)
	const numMessages = 100_000
	for range numMessages / 1000 {
		mustPublish(ctx, b, publisher, freshKeys(1000)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		numRead := 0
		_, _, err := publisher.ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			numRead++
			return nil
		})
		require.NoError(b, err)
		require.Equal(b, numMessages, numRead)
	}
	b.ReportMetric(float64(b.N)*numMessages/b.Elapsed().Seconds(), "messages/s")
}
