package delivery_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// answerInterval is how often a slow link lets an answer through: at some 120 bytes
// each it carries 12 kB/s.
const answerInterval = 10 * time.Millisecond

// TestSlowLink_BlamesNobody has a link carry far fewer answers than events may be
// claimed at once. That is no fault of any event, and what is sent twice is an answer
// that the link carried in vain.
func TestSlowLink_BlamesNobody(t *testing.T) {
	t.Parallel()
	numEvents := 1500
	if os.Getenv("TRUEGREEN_PROOF") != "" {
		numEvents = 50_000
	}
	ctx := t.Context()
	config := outbox.Config{ParkAfter: 10 * time.Second, ParkAfterFailures: 3}
	bundle := setup(ctx, t, config)
	stream := bundle.streams[1]
	require.Equal(t, outbox.StreamRolling, stream.Name)
	bundle.broker.update(ctx, t, stream, func(config *jetstream.StreamConfig) { config.AllowAtomicPublish = false })
	bundle.link.limit(t, answerInterval)
	for first := 0; first < numEvents; first += 10_000 {
		facts := make([]fact, min(10_000, numEvents-first))
		for i := range facts {
			facts[i].key = "slow-" + strconv.Itoa(first+i)
		}
		bundle.stage(ctx, t, stream.Name, facts...)
	}
	bundle.start(ctx, t)
	bundle.sweep(ctx, t)

	deadline := time.NewTimer(patience + time.Duration(4*numEvents)*answerInterval)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for bundle.states(ctx, t, stream)["published"] < numEvents {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited in vain until all of %d events are published: %v", numEvents, bundle.states(ctx, t, stream))
		}
	}
	numAnswers := bundle.link.answered()
	t.Logf("%d events published with %d answers", numEvents, numAnswers)
	for _, row := range bundle.rows(ctx, t, stream) {
		require.Zero(t, row.Failures, "%+v", row)
		require.Nil(t, row.NotBefore, "%+v", row)
		require.Empty(t, row.ParkReason)
	}
	require.GreaterOrEqual(t, 10*numEvents, 8*numAnswers, "%d answers for %d events", numAnswers, numEvents)
}
