package natspublish

import (
	"sync"
	"time"
)

const (
	// firstWindow is how many messages of one call may wait for their answers before
	// anything is known about the link.
	firstWindow = 64

	// minWindow is the fewest: above the number of events that a broker may ignore
	// at once without holding up the others.
	minWindow = 8

	// quickPart and slowPart are parts of a call's time. Answers that take less than
	// the first let the window grow; answers that take more than the second halve it.
	// Both are far below the half that is left to the last message sent.
	quickPart = 8
	slowPart  = 4
)

// window bounds how many messages of one call wait for their answers, so that a slow
// broker answers all of them in time. It follows from how long answers take, and is
// shared by all calls, since they share the link.
type window struct {
	changedAt time.Time // what was sent before says nothing about the present size
	mu        sync.Mutex
	size      int
}

func newWindow() *window { return &window{size: firstWindow} }

// limit is the present size.
func (w *window) limit() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// answered learns from answers that came together: from the one that took longest,
// which was to a message sent at sentAt. A call has timeout for everything.
func (w *window) answered(numAnswers int, sentAt time.Time, took, timeout time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case took < timeout/quickPart:
		w.size = min(w.size+numAnswers, maxInFlight)
	case took > timeout/slowPart:
		w.halve(sentAt)
	}
}

// unanswered learns from a call that ended without some answers; sentAt is when the
// last of those messages was sent. silent says that the call got no answer at all.
func (w *window) unanswered(sentAt time.Time, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if silent && w.size == minWindow {
		// Fewer do not help. If these few are what the broker ignores, the others must
		// go past them.
		w.size, w.changedAt = maxInFlight, time.Now()
		return
	}
	w.halve(sentAt)
}

func (w *window) halve(sentAt time.Time) {
	if sentAt.Before(w.changedAt) {
		return
	}
	w.size, w.changedAt = max(w.size/2, minWindow), time.Now()
}
