package natspublish_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
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
		require.Contains(t, durability, "file, 1 replica: an acknowledgement may not survive a power cut")
		require.NotContains(t, durability, "atomic")
	})

	t.Run("AcceptsAStreamWithoutBatchesAndSaysSo", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.AllowAtomicPublish = false })
		durability, err := bundle.publisher.Check(ctx, walletSpec())
		require.NoError(t, err)
		require.Contains(t, durability, "takes no atomic batches")

		provisioned, err := bundle.publisher.Provision(ctx, walletSpec())
		require.NoError(t, err)
		require.Equal(t, "updated", provisioned.Change)
		report, err := bundle.publisher.Inspect(ctx, walletSpec())
		require.NoError(t, err)
		require.True(t, report.Batches)
		provisioned, err = bundle.publisher.Provision(ctx, walletSpec())
		require.NoError(t, err)
		require.Equal(t, "unchanged", provisioned.Change)
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

func TestPublisher_Inspect(t *testing.T) {
	t.Parallel()

	// No server with three replicas is at hand: one keeps to what its stream says.
	for name, tc := range map[string]struct {
		change   func(*natspublish.StreamSpec, *oldServer)
		isAtRisk bool
		says     string
	}{
		"one replica": {
			change:   func(*natspublish.StreamSpec, *oldServer) {},
			isAtRisk: true,
			says:     "file, 1 replica: an acknowledgement may not survive a power cut, unless the server syncs always; for production: file storage with three replicas, or one server with sync_interval: always, which a client cannot see and an operator has to look up",
		},
		"one replica that is known to sync": {
			change: func(spec *natspublish.StreamSpec, _ *oldServer) { spec.SyncAlways = true },
			says:   "file, 1 replica, synced to disk before each acknowledgement",
		},
		"two replicas": {
			change:   func(_ *natspublish.StreamSpec, old *oldServer) { old.set("num_replicas", 2) },
			isAtRisk: true,
			says:     "file, 2 replicas: an acknowledgement may not survive",
		},
		"three replicas": {
			change: func(_ *natspublish.StreamSpec, old *oldServer) { old.set("num_replicas", 3) },
			says:   "file, 3 replicas",
		},
		"memory": {
			change: func(spec *natspublish.StreamSpec, old *oldServer) {
				spec.SyncAlways = true
				old.set("num_replicas", 3)
				old.set("storage", "memory")
			},
			isAtRisk: true,
			says:     "memory, 3 replicas: lost when they restart",
		},
		"acknowledges early": {
			change: func(spec *natspublish.StreamSpec, old *oldServer) {
				spec.SyncAlways = true
				old.set("persist_mode", "async")
			},
			isAtRisk: true,
			says:     "acknowledges before anything is written",
		},
		"limit per subject": {
			change: func(_ *natspublish.StreamSpec, old *oldServer) {
				old.set("num_replicas", 3)
				old.set("max_msgs_per_subject", 7)
			},
			says: "throws events away above 7 of one type",
		},
		"interest": {
			change: func(_ *natspublish.StreamSpec, old *oldServer) {
				old.set("num_replicas", 3)
				old.set("retention", "interest")
			},
			says: "throws events away once its consumers have them",
		},
	} {
		t.Run("SaysWhatAnAcknowledgementIsWorth/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			old := startOldServer(t)
			publisher := connect(t, old.url)
			_, err := publisher.Provision(ctx, walletSpec())
			require.NoError(t, err)
			spec := walletSpec()
			tc.change(&spec, old)
			report, err := publisher.Inspect(ctx, spec)
			require.NoError(t, err)
			require.Equal(t, tc.isAtRisk, report.IsAtRisk)
			require.Contains(t, report.String(), tc.says)
		})
	}

	t.Run("WarnsOfTheWalletAlone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		spec := walletSpec()
		spec.Stream = outbox.StreamRolling
		_, err := bundle.publisher.Provision(ctx, spec)
		require.NoError(t, err)
		report, err := bundle.publisher.Inspect(ctx, spec)
		require.NoError(t, err)
		require.False(t, report.IsAtRisk)
		require.NotEmpty(t, report.Notes)
	})
}

func TestPublisher_Provision(t *testing.T) {
	t.Parallel()

	for name, strict := range map[string]bool{"refuses": true, "leaves out": false} {
		t.Run("DoesWithoutBatchesOnAServerThat/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			old := startOldServer(t)
			old.strict = strict
			publisher := connect(t, old.url)
			for _, change := range []string{"created", "unchanged", "updated"} {
				if change == "updated" {
					old.set("discard", "old")
				}
				provisioned, err := publisher.Provision(ctx, walletSpec())
				require.NoError(t, err)
				require.Equal(t, change, provisioned.Change)
				require.Contains(t, provisioned.Note, "takes no atomic batches")
			}
			_, err := publisher.Check(ctx, walletSpec())
			require.NoError(t, err)
		})
	}

	t.Run("DoesWithoutBatchesBesideSettingsOfTheOwner", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.NoError(t, bundle.js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
		_, err := bundle.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "TRUEGREEN_WALLET", PersistMode: jetstream.AsyncPersistMode, Subjects: []string{"truegreen.wallet.>"},
		})
		require.NoError(t, err)
		provisioned, err := bundle.publisher.Provision(ctx, walletSpec())
		require.NoError(t, err)
		require.Equal(t, "updated", provisioned.Change)
		require.Contains(t, provisioned.Note, "takes no atomic batches")
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
