package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// guardedBroker lets in only whom it knows.
type guardedBroker struct {
	dir    string
	server *server.Server
}

// users lets the worker do everything but what denied says.
func (b *guardedBroker) options(t *testing.T, port int, denied string) *server.Options {
	t.Helper()
	options := &server.Options{}
	require.NoError(t, options.ProcessConfigString(fmt.Sprintf(`
		jetstream: { store_dir: %q }
		authorization { users: [
			{ user: admin, password: "hush-admin" }
			{ user: worker, password: "hush-right", permissions: { publish: { deny: [%s] } } }
		] }`, b.dir, denied)))
	options.Host, options.Port, options.NoSigs = "127.0.0.1", port, true
	return options
}

// deny changes what the worker must not publish to, while it is connected.
func (b *guardedBroker) deny(t *testing.T, denied string) {
	t.Helper()
	address, ok := b.server.Addr().(*net.TCPAddr)
	require.True(t, ok)
	require.NoError(t, b.server.ReloadOptions(b.options(t, address.Port, denied)))
}

func (b *guardedBroker) url(userinfo string) string {
	return "nats://" + userinfo + "@" + b.server.Addr().String()
}

// setupGuarded is setup with a broker that asks for a password. Workers are told the right
// one.
func setupGuarded(ctx context.Context, t *testing.T) (*stack, *guardedBroker) {
	t.Helper()
	broker := &guardedBroker{dir: t.TempDir()}
	var err error
	broker.server, err = server.NewServer(broker.options(t, server.RANDOM_PORT, ""))
	require.NoError(t, err)
	go broker.server.Start()
	t.Cleanup(func() {
		broker.server.Shutdown()
		broker.server.WaitForShutdown()
	})
	require.True(t, broker.server.ReadyForConnections(patience))

	s := &stack{brokerURL: broker.url("admin:hush-admin"), database: dbtest.Database(ctx, t)}
	s.dbURL = s.database.URL
	out, err := s.run(ctx, t, "", "broker", "provision")
	require.NoError(t, err, out)
	s.brokerURL = broker.url("worker:hush-right")
	return s, broker
}

// redFirst waits for a top reason, and shows that the process was never ready before.
func (p *process) redFirst(t *testing.T, code string) answer {
	t.Helper()
	return p.waitFor(t, "/readyz", "red for "+code, func(a answer) bool {
		require.NotEqual(t, http.StatusOK, a.Code, "ready without a broker")
		return a.Reasons[0].Code == code
	})
}

// turnsRed waits for a top reason.
func (p *process) turnsRed(t *testing.T, code string) answer {
	t.Helper()
	return p.waitFor(t, "/readyz", "red for "+code, func(a answer) bool {
		return a.Code == http.StatusServiceUnavailable && a.Reasons[0].Code == code
	})
}

// requireStatus runs status until it has the exit code and says all parts.
func (s *stack) requireStatus(ctx context.Context, t *testing.T, code int, parts ...string) {
	t.Helper()
	var out string
	require.Eventually(t, func() bool {
		var err error
		out, err = s.run(ctx, t, "", "status")
		if exitCode(err) != code {
			return false
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				return false
			}
		}
		return true
	}, patience, poll, "status with exit code %d and %q", code, parts)
	require.NotContains(t, out, "hush")
}

// TestWorker_Broker has no event anywhere: a broker that would take none must be seen
// before the first one needs it.
func TestWorker_Broker(t *testing.T) {
	t.Parallel()

	t.Run("NobodyListens", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		s.broker.Stop()
		address := hostOf(t, s.brokerURL)
		s.brokerURL = "nats://worker:hush@" + address
		worker := s.startWorker(t)
		red := worker.redFirst(t, "broker_unreachable")
		require.Contains(t, red.Reasons[0].Message, address)
		require.Contains(t, red.Reasons[0].Message, "connection refused")
		require.Equal(t, "docs/runbooks/broker-unreachable.md", red.Reasons[0].Runbook)
		require.Equal(t, http.StatusOK, worker.probe(t, "/livez").Code)
		s.requireStatus(ctx, t, 2, "broker_unreachable", "connection refused")
		require.Contains(t, worker.logs.find("broker proof failed", "error"), "connection refused")
		require.NotContains(t, worker.logs.String(), "hush")

		s.restartBroker(t)
		worker.waitReady(t)
	})

	t.Run("ThePasswordIsWrongOnOneOfTwoHosts", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s, broker := setupGuarded(ctx, t)
		// While one of two fails the loops are slower than these short times allow.
		patient := []string{"TRUEGREEN_LEADER_CHANGE=30s", "TRUEGREEN_OUTBOX_ITEM_RED_AFTER=60s"}
		right := s.startWorker(t, patient...)
		right.waitReady(t)
		s.brokerURL = broker.url("worker:hush-wrong")
		wrong := s.startWorker(t, patient...)
		red := wrong.redFirst(t, "broker_refused")
		require.Contains(t, red.Reasons[0].Message, "credentials")
		s.requireStatus(ctx, t, 1, "broker_refused")

		// Rare events, each published by the other one, change nothing.
		for i := range 8 {
			s.appendEvent(ctx, t, fmt.Sprintf("key-%d", i))
			require.Eventually(t, func() bool {
				a := wrong.probe(t, "/readyz")
				require.Equal(t, http.StatusServiceUnavailable, a.Code)
				require.Equal(t, "broker_refused", a.Reasons[0].Code)
				return s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE state <> 'published'`) == 0
			}, patience, poll)
		}
		require.Equal(t, http.StatusOK, right.probe(t, "/readyz").Code)
		require.NotContains(t, wrong.logs.String(), "hush")
	})

	t.Run("AStreamIsDeleted", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)
		s.deleteStream(ctx, t, "TRUEGREEN_AGENT")
		red := worker.turnsRed(t, "broker_refused")
		require.Contains(t, red.Reasons[0].Message, "TRUEGREEN_AGENT does not exist; run 'truegreen broker provision'")
		s.requireStatus(ctx, t, 2, "broker_refused", "TRUEGREEN_AGENT does not exist")

		out, err := s.run(ctx, t, "", "broker", "provision")
		require.NoError(t, err, out)
		worker.waitReady(t)
	})

	t.Run("APermissionIsRevoked", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s, broker := setupGuarded(ctx, t)
		worker := s.startWorker(t)
		worker.waitReady(t)
		broker.deny(t, `"truegreen.wallet.>"`)
		red := worker.turnsRed(t, "broker_refused")
		require.Contains(t, red.Reasons[0].Message, "Permissions Violation for Publish")
		s.requireStatus(ctx, t, 2, "broker_refused", "Permissions Violation")
		broker.deny(t, "")
		worker.waitReady(t)
	})

	t.Run("AllIdleProcessesComeBackAfterAnOutage", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		workers := []*process{s.startWorker(t), s.startWorker(t), s.startWorker(t)}
		for _, worker := range workers {
			worker.waitReady(t)
		}
		s.broker.Stop()
		for _, worker := range workers {
			worker.turnsRed(t, "broker_unreachable")
			require.Equal(t, http.StatusOK, worker.probe(t, "/livez").Code)
		}
		s.restartBroker(t)
		for _, worker := range workers {
			worker.waitReady(t)
		}
	})
}

func (s *stack) deleteStream(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	conn, err := nats.Connect(s.broker.URL())
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(ctx, name))
}
