package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestConnection_Options keeps that a URL means the same to every command.
func TestConnection_Options(t *testing.T) {
	t.Parallel()

	t.Run("EveryCommandTakesThoseOfThePool", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := setup(ctx, t)
		s.dbURL += "&pool_max_conns=4&pool_min_conns=1&pool_max_conn_lifetime=1m&statement_cache_capacity=100&connect_timeout=5" +
			"&options=-c%20work_mem%3D8MB"
		s.worksThroughout(ctx, t)
	})

	t.Run("EveryCommandRefusesTheSame", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := setup(ctx, t)
		url := s.dbURL
		for option, says := range map[string]string{
			"pool_max_conns=none":    `DATABASE_URL: option "pool_max_conns" has a value that cannot be used`,
			"keepalives=1":           `DATABASE_URL: option "keepalives" is not supported: remove it`,
			"client_encoding=LATIN1": `DATABASE_URL: option "client_encoding" must be "UTF8", which Truegreen relies on, got "LATIN1": remove it`,
			"no_such_setting=1":      `unrecognized configuration parameter "no_such_setting"`,
		} {
			s.dbURL = url + "&" + option
			for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"worker"}, {"status"}, {"audit"}, {"import", "-"}} {
				out, err := s.run(ctx, t, "", command...)
				require.NotZero(t, exitCode(err), "%s: %s", command, out)
				require.Contains(t, out, says, strings.Join(command, " "))
			}
		}
	})
}

// worksThroughout runs what the product is for: migrate, import, append, publish,
// settle, audit.
func (s *stack) worksThroughout(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"broker", "provision"}, {"programmes", "list"}} {
		out, err := s.run(ctx, t, "", command...)
		require.NoError(t, err, "%s: %s", command, out)
	}
	s.lose(ctx, t, 3, allOf("active"))
	s.promote(ctx, t, cashback+autoApproved)
	p := s.startWorker(t, s.settlementEnvironment()...)
	p.waitReady(t)
	out, code := s.settle(ctx, t)
	require.Zero(t, code, out)
	s.appendEvent(ctx, t, "key")
	s.waitPublished(ctx, t)
	s.checkDelivery(ctx, t)
	out, err := s.run(ctx, t, "", "status")
	require.NoError(t, err, out)
	s.requireTrueBooks(ctx, t)
}
