package crash_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestDrain_Frozen stops a process for longer than its lease, lets another one
// publish what it had in its hands, and lets it go on. The broker stores again
// whatever comes again.
func TestDrain_Frozen(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		at        step
		otherDies bool // the first that takes over
		sendsLate bool
	}{
		"BeforeItsSendItSendsNothingLate":   {at: stepFreezeBeforeSend},
		"BeforeItsMarkItChangesNoMark":      {at: stepFreezeAfterSend},
		"BeforeItsMarkWhileTheOtherOneDies": {at: stepFreezeAfterSend, otherDies: true},
		"WithinItsSendItOnlyRepeats":        {at: stepFreezeWithinSend, sendsLate: true},
		"WithinItsSendWhileTheOtherOneDies": {at: stepFreezeWithinSend, otherDies: true, sendsLate: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), func(config *jetstream.StreamConfig) { config.Duplicates = shortWindow })
			w.application.commit(ctx, t, backlog(60)...)
			frozen := w.start(t, order{Nth: 1 + w.random.IntN(4), Step: tc.at})
			w.feedUntil(ctx, t, func() bool { return frozen.hasSaid(reportFrozen) || frozen.hasExited() })
			inHands := frozen.waitFor(t, reportFrozen).IDs
			require.NotEmpty(t, inHands)
			if tc.otherDies {
				w.killOnce(ctx, t, stepAfterAcknowledgement)
			}

			other := w.start(t, order{})
			w.waitUntilDelivered(ctx, t, other)
			before := w.rowsOf(ctx, t, inHands)
			numBefore := w.numStored(ctx, t, before)
			require.NoError(t, frozen.command.Process.Signal(syscall.SIGCONT))
			frozen.waitFor(t, reportSent)
			for range 10 {
				w.application.appendTwo(ctx, t)
			}
			w.waitUntilDelivered(ctx, t, other)
			frozen.stop(t)
			w.waitUntilDelivered(ctx, t, other)
			other.stop(t)

			require.Equal(t, before, w.rowsOf(ctx, t, inHands), "what was published stays as it is")
			if numAfter := w.numStored(ctx, t, before); tc.sendsLate {
				require.Greater(t, numAfter, numBefore, "it did not send, so nothing was shown")
			} else {
				require.Equal(t, numBefore, numAfter)
			}
			w.requireSound(ctx, t)
		})
	}
}

// rowsOf returns the rows of some events.
func (w *world) rowsOf(ctx context.Context, t *testing.T, ids []int64) []row {
	t.Helper()
	wanted := make(map[int64]bool)
	for _, id := range ids {
		wanted[id] = true
	}
	var found []row
	for _, row := range w.rows(ctx, t) {
		if wanted[row.ID] {
			found = append(found, row)
		}
	}
	require.Len(t, found, len(wanted))
	return found
}

// numStored counts the messages of some events.
func (w *world) numStored(ctx context.Context, t *testing.T, rows []row) int {
	t.Helper()
	num := 0
	wanted := make(map[string]bool)
	for _, row := range rows {
		wanted[row.EventID] = true
	}
	for _, stream := range streamNames() {
		messages, err := readBroker(ctx, w.js, stream)
		require.NoError(t, err)
		for _, message := range messages {
			if wanted[message.eventID] {
				num++
			}
		}
	}
	return num
}
