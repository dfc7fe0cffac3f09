package crash_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestDrain_KilledAtAStep kills one process after the other at one step of its
// drain, and looks each time at what it left.
func TestDrain_KilledAtAStep(t *testing.T) {
	t.Parallel()

	for name, at := range map[string]step{
		"BeforeTheLease":              stepBeforeLease,
		"AfterTheLease":               stepAfterLease,
		"AfterTheClaim":               stepAfterClaim,
		"BeforeTheAcknowledgement":    stepBeforeAcknowledgment,
		"AfterTheAcknowledgement":     stepAfterAcknowledgement,
		"BeforeTheCommitOfTheMark":    stepBeforeMark,
		"AfterTheCommitOfTheMark":     stepAfterMark,
		"AfterTheCommitThatEndsAPass": stepAfterFinish,
	} {
		t.Run(name+"LosesAndInventsNothing", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), nil)
			w.application.commit(ctx, t, backlog(60)...)
			for range times(2) {
				p := w.start(t, order{Nth: 1 + w.random.IntN(6), Step: at})
				w.feedUntil(ctx, t, p.hasExited)
				w.requireLeftBehind(ctx, t, p, p.requireKilled(t))
			}
			w.drain(ctx, t)
			w.requireSound(ctx, t)
		})
	}
}

// requireLeftBehind checks that a process died where it was to die.
func (w *world) requireLeftBehind(ctx context.Context, t *testing.T, p *process, last report) {
	t.Helper()
	w.requireHonestJobs(ctx, t)
	found := w.gather(ctx, t)
	stored, at := make(map[string]bool), make(map[acknowledgement]string)
	for stream, messages := range found.messages {
		for _, message := range messages {
			stored[message.eventID] = true
			at[acknowledgement{sequence: message.sequence, stream: atBroker(stream)}] = message.eventID
		}
	}
	inHands, byEvent := make([]row, 0, len(last.IDs)), make(map[string]row)
	for _, row := range found.rows {
		byEvent[row.EventID] = row
		for _, id := range last.IDs {
			if row.ID == id {
				inHands = append(inHands, row)
			}
		}
	}
	require.Len(t, inHands, len(last.IDs))
	switch p.order.Step {
	case stepAfterClaim:
		require.NotEmpty(t, inHands)
		for _, row := range inHands {
			require.Nil(t, row.PublishedAt)
			require.True(t, row.Attempts > 0 || !stored[row.EventID], "event %d was sent", row.ID)
		}
	case stepAfterAcknowledgement, stepBeforeMark:
		require.NotEmpty(t, inHands)
		for _, row := range inHands {
			require.Nil(t, row.PublishedAt)
			require.True(t, stored[row.EventID])
		}
	case stepBeforeAcknowledgment:
		p.mu.Lock()
		withheld := p.withheld
		p.mu.Unlock()
		require.Contains(t, at, withheld)
		require.Nil(t, byEvent[at[withheld]].PublishedAt)
	case stepAfterMark:
		require.NotEmpty(t, inHands)
		for _, row := range inHands {
			require.NotNil(t, row.PublishedAt)
			require.True(t, stored[row.EventID])
		}
	default:
	}
}

// TestDrain_KilledAtAnyStep kills many processes, each at another step, with batches
// of all sizes.
func TestDrain_KilledAtAnyStep(t *testing.T) {
	t.Parallel()

	steps := []step{
		stepAfterAcknowledgement, stepAfterClaim, stepAfterFinish, stepAfterLease, stepAfterMark, stepAfterTakeOver, stepAnyTime,
		stepBeforeAcknowledgment, stepBeforeLease, stepBeforeMark, stepBeforeTakeOver,
	}
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"WithABrokerThatKnowsRepeats": nil,
		"WithABrokerThatStoresThemAgain": func(config *jetstream.StreamConfig) {
			config.AllowAtomicPublish, config.Duplicates = true, shortWindow
		},
	} {
		t.Run(name+"LosesAndInventsNothing", func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			w := setup(ctx, t, uint64(len(name)), change)
			steps := slices.Clone(steps)
			w.application.commit(ctx, t, backlog(150)...)
			for range times(1) {
				w.random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
				for _, at := range steps {
					if at == stepBeforeTakeOver || at == stepAfterTakeOver {
						w.killOnce(ctx, t, stepAfterClaim) // so that there is something to take over
					}
					w.killOnce(ctx, t, at)
				}
			}
			w.drain(ctx, t)
			w.requireSound(ctx, t)
			if change != nil {
				require.NotZero(t, w.numRepeats(ctx, t), "nothing was sent twice, so nothing was shown")
			}
		})
	}
}

// killOnce lets one process die at a step.
func (w *world) killOnce(ctx context.Context, t *testing.T, at step) {
	t.Helper()
	o := order{BatchSize: []int{5, 40, 300}[w.random.IntN(3)], Nth: 1 + w.random.IntN(8), Step: at}
	if at == stepBeforeTakeOver || at == stepAfterTakeOver {
		o.Nth = 1 // there may be no more than one
	}
	p := w.start(t, o)
	if at == stepAnyTime {
		p.waitFor(t, reportReady)
		killer := time.AfterFunc(time.Duration(w.random.IntN(400))*time.Millisecond, func() { _ = p.command.Process.Kill() })
		defer killer.Stop()
	}
	w.feedUntil(ctx, t, p.hasExited)
	p.requireKilled(t)
	w.requireHonestJobs(ctx, t)
}
