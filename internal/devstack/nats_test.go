package devstack_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
)

func TestStartNATS(t *testing.T) {
	t.Parallel()

	startNATS := func(t *testing.T, config devstack.NATSConfig) (*devstack.NATS, *notices) {
		t.Helper()
		told := &notices{}
		config.Notice = told.add
		broker, err := devstack.StartNATS(config)
		require.NoError(t, err)
		t.Cleanup(broker.Stop)
		return broker, told
	}

	t.Run("KeepsMessagesBetweenStartsOnOnePort", func(t *testing.T) {
		t.Parallel()

		for name, syncAlways := range map[string]bool{"Lazy": false, "Durable": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				ctx := t.Context()
				store := makeDir(t)
				first, _ := startNATS(t, devstack.NATSConfig{StoreDir: store, SyncAlways: syncAlways})
				stream := openStream(ctx, t, first.URL())
				stream.publish(ctx, t, "one")
				first.Stop()
				first.Stop()

				second, told := startNATS(t, devstack.NATSConfig{Port: first.Port(), StoreDir: store, SyncAlways: syncAlways})
				require.Equal(t, first.URL(), second.URL())
				require.Empty(t, told.String())
				again := openStream(ctx, t, second.URL())
				again.publish(ctx, t, "two")
				require.Equal(t, uint64(2), again.numMessages(ctx, t))
			})
		}
	})

	t.Run("LetsAClientThatStayedReconnect", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		store := makeDir(t)
		first, _ := startNATS(t, devstack.NATSConfig{StoreDir: store})
		stream := openStream(ctx, t, first.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(interval))
		stream.publish(ctx, t, "one")
		first.Stop()
		require.Eventually(t, func() bool { return !stream.conn.IsConnected() }, deadline, interval)

		startNATS(t, devstack.NATSConfig{Port: first.Port(), StoreDir: store})
		require.Eventually(t, stream.conn.IsConnected, deadline, interval)
		stream.publish(ctx, t, "two")
		require.Equal(t, uint64(2), stream.numMessages(ctx, t))
	})

	t.Run("ListensOnLoopbackAlone", func(t *testing.T) {
		t.Parallel()

		broker, _ := startNATS(t, devstack.NATSConfig{StoreDir: makeDir(t)})
		require.Contains(t, broker.URL(), "nats://127.0.0.1:")
	})

	t.Run("TakesAnotherPortAndSaysSoWhenThePreferredOneIsTaken", func(t *testing.T) {
		t.Parallel()

		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { _ = listener.Close() }()
		taken := listener.Addr().(*net.TCPAddr).Port

		broker, told := startNATS(t, devstack.NATSConfig{Port: taken, StoreDir: makeDir(t)})
		require.NotEqual(t, taken, broker.Port())
		require.Contains(t, told.String(), "is taken: NATS listens on")
		openStream(t.Context(), t, broker.URL())

		faster, told := startNATS(t, devstack.WithNATSPortTakenMeanwhile(devstack.NATSConfig{Port: taken, StoreDir: makeDir(t)}))
		require.NotEqual(t, taken, faster.Port())
		require.Contains(t, told.String(), "is taken: NATS listens on")
		openStream(t.Context(), t, faster.URL())
	})

	t.Run("RefusesAStoreThatIsInUse", func(t *testing.T) {
		t.Parallel()

		store := makeDir(t)
		startNATS(t, devstack.NATSConfig{StoreDir: store})
		_, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: store})
		require.ErrorContains(t, err, "is in use by another truegreen")
	})

	t.Run("RefusesAStoreThatIsForeign", func(t *testing.T) {
		t.Parallel()

		store := makeDir(t)
		require.NoError(t, os.WriteFile(filepath.Join(store, "thesis.txt"), nil, 0o600))
		_, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: store})
		require.ErrorContains(t, err, "was not made by truegreen")
	})

	t.Run("RefusesAStoreThatItCannotUse", func(t *testing.T) {
		t.Parallel()

		file := filepath.Join(makeDir(t), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		_, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: file})
		require.ErrorContains(t, err, "not a directory")

		store := filepath.Join(makeDir(t), "store")
		broker, _ := startNATS(t, devstack.NATSConfig{StoreDir: store})
		broker.Stop()
		require.NoError(t, os.RemoveAll(filepath.Join(store, "jetstream")))
		require.NoError(t, os.WriteFile(filepath.Join(store, "jetstream"), nil, 0o600))
		_, err = devstack.StartNATS(devstack.NATSConfig{StoreDir: store})
		require.ErrorContains(t, err, "use store "+store)
		require.ErrorContains(t, err, "--data-dir")

		// What was in the way is gone: the failed start holds on to nothing.
		require.NoError(t, os.Remove(filepath.Join(store, "jetstream")))
		startNATS(t, devstack.NATSConfig{StoreDir: store})
	})

	t.Run("RefusesWrongSettings", func(t *testing.T) {
		t.Parallel()

		_, err := devstack.StartNATS(devstack.NATSConfig{})
		require.ErrorContains(t, err, "StoreDir is required")
		_, err = devstack.StartNATS(devstack.NATSConfig{Port: 70000, StoreDir: makeDir(t)})
		require.ErrorContains(t, err, "port must be from 0 (any) to 65535, got 70000")
	})
}

// testStream is a stream in a broker, and a client of it.
type testStream struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
}

func openStream(ctx context.Context, t *testing.T, brokerURL string, options ...nats.Option) *testStream {
	t.Helper()
	conn, err := nats.Connect(brokerURL, options...)
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "TEST", Subjects: []string{"test.>"}})
	require.NoError(t, err)
	return &testStream{conn: conn, js: js, stream: stream}
}

func (s *testStream) publish(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	_, err := s.js.Publish(ctx, "test.messages", []byte(text))
	require.NoError(t, err)
}

func (s *testStream) numMessages(ctx context.Context, t *testing.T) uint64 {
	t.Helper()
	info, err := s.stream.Info(ctx)
	require.NoError(t, err)
	return info.State.Msgs
}
