package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// TestRelay_Drain_LateCommit has a transaction take its place before another one that
// is sent first, and commit just after: the next event of its key must not pass it by.
func TestRelay_Drain_LateCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t)
	keys := bundle.neighbours(ctx, t, 2)
	late, other := keys[0], keys[1]
	tx, err := bundle.db.Pool.Begin(ctx)
	require.NoError(t, err)
	_, err = outbox.Append(ctx, tx, outbox.StreamRolling, outbox.Message{Key: late, Payload: []byte(`{}`), Type: "rolling.accrued.v1"})
	require.NoError(t, err)
	bundle.stage(ctx, t, other)
	first := true
	bundle.broker.hook = func() {
		if first {
			first = false
			require.NoError(t, tx.Commit(ctx))
			bundle.stage(ctx, t, late)
		}
	}
	_, err = bundle.relay.Drain(ctx, bundle.pass(ctx, t, late))
	require.NoError(t, err)
	require.Equal(t, []string{other + "#1", late + "#1", late + "#2"}, bundle.broker.keys())
}
