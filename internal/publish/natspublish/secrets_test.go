package natspublish_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// lockedBuffer may be written to by many.
type lockedBuffer struct {
	buffer bytes.Buffer
	mu     sync.Mutex
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestConnect_Secrets(t *testing.T) {
	t.Parallel()

	for _, url := range []string{
		"s3cr3t@127.0.0.1:4222",
		"user:s3cr3t@127.0.0.1:4222",
		"s3cr3t:127.0.0.1",
		"http://s3cr3t@127.0.0.1:4222",
		"http://user:s3cr3t@127.0.0.1:4222",
		"nats://user:s3cr3t@",
		"nats://s3cr3t@:4222",
		"nats://user:s3cr3t@127.0.0.1:port",
		"nats://user:s3cr3t %@127.0.0.1",
		"nats://user:s3cr3t@[::1",
		"nats://127.0.0.1:4222,nats://user:s3cr3t\x7f@127.0.0.1",
		"nats://user:s3cr3t@127.0.0.1:4222, tls//s3cr3t@127.0.0.1",
	} {
		t.Run("AreNotInTheRefusalOf/"+url, func(t *testing.T) {
			t.Parallel()
			_, err := natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{URL: url})
			require.ErrorContains(t, err, "looks like nats://host:4222")
			require.NotContains(t, err.Error(), "s3cr3t")
		})
	}

	t.Run("AreNotInWhatIsLoggedAndReturnedLater", func(t *testing.T) {
		t.Parallel()
		for name, tc := range map[string]struct{ config, userinfo string }{
			"token":    {`authorization { token: "other" }`, "s3cr3t"},
			"password": {`authorization { user: u, password: "other" }`, "u:s3cr3t"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				proxy := startProxy(t, startServer(t, tc.config), nil)
				for _, url := range []string{proxy.url, "nats://127.0.0.1:1"} {
					log := &lockedBuffer{}
					logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
					publisher, err := natspublish.Connect(logger, natspublish.Config{AckTimeout: ackTimeout, URL: strings.Replace(url, "nats://", "nats://"+tc.userinfo+"@", 1)})
					require.NoError(t, err)
					t.Cleanup(publisher.Close)
					texts := []string{publish(ctx, publisher, event("p-1", 1))[0].Err.Error()}
					_, err = publisher.Check(ctx, walletSpec())
					texts = append(texts, err.Error())
					_, err = publisher.Provision(ctx, walletSpec())
					texts = append(texts, err.Error())
					_, _, err = publisher.ReadStream(ctx, outbox.StreamWallet, nil)
					texts = append(texts, err.Error())
					publisher.Close()
					_, err = io.WriteString(log, strings.Join(texts, "\n"))
					require.NoError(t, err)
					require.NotContains(t, log.String(), "s3cr3t")
				}
			})
		}
	})

	t.Run("AreNotInTheLogOfALostConnection", func(t *testing.T) {
		t.Parallel()
		proxy := startProxy(t, startServer(t, `authorization { user: u, password: "s3cr3t" }`), nil)
		log := &lockedBuffer{}
		publisher, err := natspublish.Connect(slog.New(slog.NewTextHandler(log, nil)), natspublish.Config{URL: strings.Replace(proxy.url, "nats://", "nats://u:s3cr3t@", 1)})
		require.NoError(t, err)
		t.Cleanup(publisher.Close)
		proxy.cut()
		require.Eventually(t, func() bool {
			return strings.Contains(log.String(), "broker connection lost") && strings.Contains(log.String(), "broker connected again")
		}, deadline, interval)
		require.NotContains(t, log.String(), "s3cr3t")
	})
}

func TestPublisher_Check_Credentials(t *testing.T) {
	t.Parallel()

	const config = `
		jetstream: enabled
		authorization { user: u, password: right }`

	t.Run("NamesThatTheyAreRefused", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		url := startServer(t, config)
		for _, userinfo := range []string{"", "u:wrong@"} {
			publisher := connect(t, strings.Replace(url, "nats://", "nats://"+userinfo, 1))
			requireRefused := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, natspublish.ErrUnreachable)
				require.ErrorIs(t, err, natspublish.ErrCredentials)
				require.ErrorContains(t, err, "refuses the credentials in its URL: nats: authorization violation")
				require.NotContains(t, err.Error(), "does not answer")
			}
			_, err := publisher.Check(ctx, walletSpec())
			requireRefused(err)
			_, err = publisher.Provision(ctx, walletSpec())
			requireRefused(err)
			_, _, err = publisher.ReadStream(ctx, outbox.StreamWallet, nil)
			requireRefused(err)
		}
	})

	t.Run("IsNotWhatAnAbsentBrokerIsCalled", func(t *testing.T) {
		t.Parallel()
		publisher := connect(t, "nats://u:wrong@127.0.0.1:1")
		ctx, cancel := context.WithTimeout(t.Context(), ackTimeout)
		defer cancel()
		_, err := publisher.Check(ctx, walletSpec())
		require.ErrorIs(t, err, natspublish.ErrUnreachable)
		require.NotErrorIs(t, err, natspublish.ErrCredentials)
		require.NotErrorIs(t, publish(ctx, publisher, event("p-1", 1))[0].Err, natspublish.ErrCredentials)
	})

	t.Run("IsForgottenOnceTheyAreLetIn", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		publisher := connect(t, strings.Replace(startServer(t, config), "nats://", "nats://u:right@", 1))
		_, err := publisher.Provision(ctx, walletSpec())
		require.NoError(t, err)
	})
}
