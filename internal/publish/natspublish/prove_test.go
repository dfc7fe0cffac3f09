package natspublish_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

func walletStream() outbox.Stream {
	return outbox.Stream{MaxEventBytes: walletSpec().MaxEventBytes, Name: outbox.StreamWallet}
}

// prove asks with the time that the relay would give.
func prove(ctx context.Context, publisher *natspublish.Publisher) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	return publisher.Prove(ctx, walletStream())
}

func requireFailure(t *testing.T, err error, refused bool, says string) *outbox.BrokerError {
	t.Helper()
	var failure *outbox.BrokerError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, refused, failure.Refused, "%v", err)
	require.ErrorContains(t, err, says)
	return failure
}

func TestPublisher_Prove(t *testing.T) {
	t.Parallel()

	t.Run("SucceedsAndStoresNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.NoError(t, prove(ctx, bundle.publisher))
		require.Zero(t, bundle.numMessages(ctx))
		mustPublish(ctx, t, bundle.publisher, event("p-1", 1))
		require.NoError(t, prove(ctx, bundle.publisher))
		require.EqualValues(t, 1, bundle.numMessages(ctx))
	})

	for name, tc := range map[string]struct {
		breakIt func(config *jetstream.StreamConfig)
		says    string
	}{
		"NamesSubjectsThatWereTaken":   {func(config *jetstream.StreamConfig) { config.Subjects = []string{"elsewhere"} }, "does not cover truegreen.wallet.>"},
		"NamesEventsThatAreThrownAway": {func(config *jetstream.StreamConfig) { config.Discard = jetstream.DiscardOld }, "discard: old"},
		"NamesASmallerLimit":           {func(config *jetstream.StreamConfig) { config.MaxMsgSize = 9000 }, "takes events of at most"},
		"NamesASealedStream":           {func(config *jetstream.StreamConfig) { config.Sealed = true }, "is sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			require.NoError(t, prove(ctx, bundle.publisher))
			bundle.update(ctx, t, tc.breakIt)
			failure := requireFailure(t, prove(ctx, bundle.publisher), true, tc.says)
			require.Equal(t, strings.TrimPrefix(bundle.server.URL(), "nats://"), failure.Address)
		})
	}

	t.Run("NamesAStreamThatIsGone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.NoError(t, bundle.js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
		requireFailure(t, prove(ctx, bundle.publisher), true, "TRUEGREEN_WALLET does not exist")
	})

	t.Run("NamesWhyNobodyAnswers", func(t *testing.T) {
		t.Parallel()
		err := prove(t.Context(), connect(t, "nats://u:s3cr3t@127.0.0.1:1"))
		failure := requireFailure(t, err, false, "connection refused")
		require.Equal(t, "127.0.0.1:1", failure.Address)
		require.NotContains(t, err.Error(), "outbound buffer")
		require.NotContains(t, err.Error(), "s3cr3t")
	})

	t.Run("NamesABrokerThatWentAwayAndProvesItOnceItIsBack", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		proxy := startProxy(t, bundle.server.URL(), nil)
		publisher := connect(t, proxy.url)
		require.NoError(t, prove(ctx, publisher))
		proxy.mute()
		requireFailure(t, prove(ctx, publisher), false, "no answer in time")
	})

	t.Run("NamesCredentialsThatAreRefused", func(t *testing.T) {
		t.Parallel()
		url := startServer(t, `
			jetstream: enabled
			authorization { user: u, password: right }`)
		err := prove(t.Context(), connect(t, strings.Replace(url, "nats://", "nats://u:s3cr3t@", 1)))
		requireFailure(t, err, true, "credentials in its URL: nats: authorization violation")
		require.NotContains(t, err.Error(), "s3cr3t")
	})
}

// TestPublisher_Prove_Permissions lets a user have all permissions but one.
func TestPublisher_Prove_Permissions(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct{ denied, says string }{
		"Publish":    {`publish: { deny: "truegreen.wallet.>" }`, `Publish to "truegreen.wallet.truegreen.proof.v1"`},
		"StreamInfo": {`publish: { deny: "$JS.API.STREAM.INFO.>" }`, `Publish to "$JS.API.STREAM.INFO.TRUEGREEN_WALLET"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			url := startServer(t, `
				jetstream: enabled
				authorization { users: [
					{ user: admin, password: right }
					{ user: u, password: right, permissions: { `+tc.denied+` } }
				] }`)
			_, err := connect(t, strings.Replace(url, "nats://", "nats://admin:right@", 1)).Provision(ctx, walletSpec())
			require.NoError(t, err)
			publisher := connect(t, strings.Replace(url, "nats://", "nats://u:right@", 1))
			requireFailure(t, prove(ctx, publisher), true, tc.says)
		})
	}
}

// TestPublisher_Prove_Consumers shows what a core subscriber of the subjects sees.
func TestPublisher_Prove_Consumers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t)
	sub, err := bundle.conn.SubscribeSync("truegreen.wallet.>")
	require.NoError(t, err)
	require.NoError(t, bundle.conn.Flush())
	require.NoError(t, prove(ctx, bundle.publisher))
	msg, err := sub.NextMsg(deadline)
	require.NoError(t, err)
	require.Equal(t, "truegreen.wallet.truegreen.proof.v1", msg.Subject)
	require.Empty(t, msg.Data)
	require.Empty(t, msg.Header.Get("ce-id"))
	_, err = sub.NextMsg(time.Millisecond)
	require.ErrorIs(t, err, nats.ErrTimeout)
}
