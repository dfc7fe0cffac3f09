package natspublish_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/publish/natspublish"
)

func TestPublisher_Check(t *testing.T) {
	t.Parallel()

	t.Run("AcceptsWhatProvisionMade", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		durability, err := bundle.publisher.Check(ctx, walletSpec())
		require.NoError(t, err)
		require.Contains(t, durability, "may not survive a power cut")
	})

	for name, wrong := range map[string]struct {
		change func(*jetstream.StreamConfig)
		says   string
	}{
		"acknowledgements off": {func(config *jetstream.StreamConfig) { config.NoAck = true }, "no acknowledgements"},
		"discards old":         {func(config *jetstream.StreamConfig) { config.Discard = jetstream.DiscardOld }, "discard: old"},
		"short memory of ids":  {func(config *jetstream.StreamConfig) { config.Duplicates = time.Second }, "forgets duplicates after 1s"},
		"subjects elsewhere":   {func(config *jetstream.StreamConfig) { config.Subjects = []string{"other"} }, "does not cover truegreen.wallet.>"},
		"takes less":           {func(config *jetstream.StreamConfig) { config.MaxMsgSize = 9000 }, "at most 4904 bytes"},
	} {
		t.Run("RefusesWithReasonAndProvisionMends/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			bundle.update(ctx, t, wrong.change)
			_, err := bundle.publisher.Check(ctx, walletSpec())
			require.ErrorContains(t, err, "stream TRUEGREEN_WALLET")
			require.ErrorContains(t, err, wrong.says)
			require.NotErrorIs(t, err, natspublish.ErrUnreachable)

			provisioned, err := bundle.publisher.Provision(ctx, walletSpec())
			require.NoError(t, err)
			spec := walletSpec()
			spec.MaxEventBytes = provisioned.MaxEventBytes
			_, err = bundle.publisher.Check(ctx, spec)
			require.NoError(t, err)
		})
	}

	t.Run("RefusesASealedStreamForGood", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Sealed = true })
		_, err := bundle.publisher.Check(ctx, walletSpec())
		require.ErrorContains(t, err, "is sealed")
		_, err = bundle.publisher.Provision(ctx, walletSpec())
		require.ErrorContains(t, err, "sealed")
	})

	t.Run("NamesAMissingStream", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.NoError(t, bundle.js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
		_, err := bundle.publisher.Check(ctx, walletSpec())
		require.ErrorContains(t, err, "stream TRUEGREEN_WALLET does not exist; run 'truegreen broker provision'")
	})

	t.Run("TellsAnAbsentBrokerFromAWrongOne", func(t *testing.T) {
		t.Parallel()
		publisher := connect(t, "nats://127.0.0.1:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := publisher.Check(ctx, walletSpec())
		require.ErrorIs(t, err, natspublish.ErrUnreachable)
	})
}

func TestConnect(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "127.0.0.1:4222", "http://127.0.0.1:4222", "nats://"} {
		t.Run("RefusesURL/"+url, func(t *testing.T) {
			t.Parallel()
			_, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{URL: url})
			require.ErrorContains(t, err, "looks like nats://host:4222")
		})
	}
}
