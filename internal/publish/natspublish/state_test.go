package natspublish_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

func TestPublisher_StreamState(t *testing.T) {
	t.Parallel()

	t.Run("SaysFromWhereOnAStreamHoldsMessages", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		state, err := bundle.publisher.StreamState(ctx, outbox.StreamWallet)
		require.NoError(t, err)
		require.Equal(t, uint64(1), state.First)
		mustPublish(ctx, t, bundle.publisher, many(5)...)
		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		require.NoError(t, stream.DeleteMsg(ctx, 1))
		state, err = bundle.publisher.StreamState(ctx, outbox.StreamWallet)
		require.NoError(t, err)
		require.Equal(t, uint64(2), state.First)
		require.NoError(t, stream.Purge(ctx))
		state, err = bundle.publisher.StreamState(ctx, outbox.StreamWallet)
		require.NoError(t, err)
		require.Equal(t, uint64(6), state.First)
		_, err = bundle.publisher.StreamState(ctx, outbox.StreamAgent)
		require.EqualError(t, err, "look at stream TRUEGREEN_AGENT: it does not exist; run 'truegreen broker provision'")
	})

	for name, tc := range map[string]struct {
		change func(*jetstream.StreamConfig)
		want   natspublish.StreamState
	}{
		"NothingAsItIsProvisioned": {func(*jetstream.StreamConfig) {}, natspublish.StreamState{}},
		"NothingThatIsRefusedWhenItIsFull": {func(config *jetstream.StreamConfig) {
			config.MaxBytes, config.MaxMsgs = 1<<20, 1000
		}, natspublish.StreamState{}},
		"TheOldestWhenThereAreTooMany": {func(config *jetstream.StreamConfig) {
			config.Discard, config.MaxMsgs = jetstream.DiscardOld, 1000
		}, natspublish.StreamState{RemovesAnyAge: true}},
		"TheOldestWhenTheyAreTooLarge": {func(config *jetstream.StreamConfig) {
			config.Discard, config.MaxBytes = jetstream.DiscardOld, 1<<20
		}, natspublish.StreamState{RemovesAnyAge: true}},
		"TheOldestOfASubject": {func(config *jetstream.StreamConfig) { config.MaxMsgsPerSubject = 3 }, natspublish.StreamState{RemovesAnyAge: true}},
		"WhatIsOld":           {func(config *jetstream.StreamConfig) { config.MaxAge = time.Hour }, natspublish.StreamState{MaxAge: time.Hour}},
		"WhatNobodyIsInterestedIn": {func(config *jetstream.StreamConfig) {
			config.Retention = jetstream.InterestPolicy
		}, natspublish.StreamState{RemovesAnyAge: true}},
	} {
		t.Run("SaysThatItRemoves"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			bundle.update(ctx, t, tc.change)
			state, err := bundle.publisher.StreamState(ctx, outbox.StreamWallet)
			require.NoError(t, err)
			tc.want.Duplicates, tc.want.First = 2*time.Minute, 1
			require.Equal(t, tc.want, state)
		})
	}
}
