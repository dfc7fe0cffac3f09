package e2e_test

import (
	"context"
	"net"
	"os/exec"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestWorker_Refusals keeps what a worker says when it cannot start: one clear
// error that names what is wrong and what to do.
func TestWorker_Refusals(t *testing.T) {
	t.Parallel()

	for name, refusal := range map[string]struct {
		arrange func(context.Context, *testing.T, *stack) []string
		says    []string
	}{
		"BrokerStreamIsWrong": {
			arrange: func(ctx context.Context, t *testing.T, s *stack) []string {
				conn, err := nats.Connect(s.broker.URL())
				require.NoError(t, err)
				defer conn.Close()
				js, err := jetstream.New(conn)
				require.NoError(t, err)
				stream, err := js.Stream(ctx, "TRUEGREEN_WALLET")
				require.NoError(t, err)
				config := stream.CachedInfo().Config
				config.Discard = jetstream.DiscardOld
				_, err = js.UpdateStream(ctx, config)
				require.NoError(t, err)
				require.NoError(t, js.DeleteStream(ctx, "TRUEGREEN_AGENT"))
				return nil
			},
			says: []string{"TRUEGREEN_WALLET", "discard: old", "TRUEGREEN_AGENT does not exist", "truegreen broker provision"},
		},
		"DatabaseIsNotThere": {
			arrange: func(context.Context, *testing.T, *stack) []string {
				return []string{"--database-url", "postgres://nobody:hush@127.0.0.1:1/nothing"}
			},
			says: []string{"127.0.0.1:1", "connection refused"},
		},
		"PasswordIsWrong": {
			arrange: func(ctx context.Context, t *testing.T, s *stack) []string {
				_, err := s.database.Pool.Exec(ctx, `DO $$ BEGIN
					IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'truegreen_e2e') THEN
						CREATE ROLE truegreen_e2e LOGIN PASSWORD 'right';
					END IF;
				END $$`)
				require.NoError(t, err)
				return []string{"--database-url", "postgres://truegreen_e2e:hush@" + hostOf(t, s.database.URL) + "/postgres?sslmode=disable"}
			},
			says: []string{"password authentication failed", "truegreen_e2e"},
		},
		"PortIsTaken": {
			arrange: func(_ context.Context, t *testing.T, _ *stack) []string {
				listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
				require.NoError(t, err)
				t.Cleanup(func() { _ = listener.Close() })
				return []string{"--listen", listener.Addr().String()}
			},
			says: []string{"address already in use", "TRUEGREEN_LISTEN"},
		},
		"SchemaIsTooOld": {
			arrange: func(ctx context.Context, t *testing.T, s *stack) []string {
				_, err := s.run(ctx, t, "", "migrate", "down")
				require.NoError(t, err)
				return nil
			},
			says: []string{"schema", "truegreen migrate up"},
		},
		"SettingIsUnknown": {
			arrange: func(context.Context, *testing.T, *stack) []string { return []string{"--loops", "outbox_walet"} },
			says:    []string{"outbox_walet", "outbox_wallet"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := setup(ctx, t)
			out, err := s.run(ctx, t, "", append([]string{"worker"}, refusal.arrange(ctx, t, s)...)...)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, out)
			for _, part := range refusal.says {
				require.Contains(t, out, part)
			}
			require.NotContains(t, out, "hush", "a password must not be shown")
		})
	}
}
