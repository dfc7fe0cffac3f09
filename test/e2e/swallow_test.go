package e2e_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// TestReadiness_SwallowedMarks: events are sent, and the database keeps none of the marks,
// without an error.
func TestReadiness_SwallowedMarks(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	s := setup(ctx, t)
	p := s.startWorker(t)
	p.waitReady(t)
	dbtest.Swallow(ctx, t, s.database.Pool, "trigger", "outbox_delivery", "UPDATE")
	s.appendEvent(ctx, t, "key")

	red := p.waitFor(t, "/readyz", "red", func(a answer) bool {
		return a.Code == http.StatusServiceUnavailable && (a.has("loop_failing", "outbox_rolling") || a.has("loop_stalled", "outbox_rolling"))
	})
	require.NotEmpty(t, red.Reasons)
	out, err := s.run(ctx, t, "", "status")
	require.Equal(t, 2, exitCode(err), out)
	out, err = s.run(ctx, t, "", "status", "--json")
	require.Equal(t, 2, exitCode(err), out)
	require.Contains(t, out, "the outcomes of 1 of 1 events were not stored")

	_, err = s.database.Pool.Exec(ctx, `DROP FUNCTION swallow CASCADE`)
	require.NoError(t, err)
	s.waitPublished(ctx, t)
	p.waitReady(t)
}
