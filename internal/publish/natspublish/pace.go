package natspublish

import (
	"sync"
	"time"
)

const (
	// remeasureAfter is after how many calls the dearer way is tried again: a server
	// may have been replaced, or its disk become busy.
	remeasureAfter = 256

	// paceShare is which part of what a way costs is the last call's: a quarter.
	paceShare = 4
)

// pace learns which way is cheaper for many events of many keys. That depends on
// the server: where it syncs each message, or several servers agree on each, a batch
// is many times faster; where it does not, the batch's own cost is lost.
type pace struct {
	batched, single time.Duration // per event; 0: not known
	mu              sync.Mutex
	numCalls        int
}

// prefersBatches says which way the next call should go. What is not known is tried
// first, batches before the rest: they are never slow by much.
func (p *pace) prefersBatches() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.numCalls++
	switch {
	case p.batched == 0:
		return true
	case p.single == 0:
		return false
	case p.numCalls%remeasureAfter == 0:
		return p.batched > p.single
	default:
		return p.batched <= p.single
	}
}

// note remembers what a call cost, by the events that were acknowledged: one whose time
// was over before all were sent was dear. A call without any says nothing.
func (p *pace) note(batched bool, numAcknowledged int, took time.Duration) {
	if numAcknowledged == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	cost := &p.single
	if batched {
		cost = &p.batched
	}
	perEvent := took / time.Duration(numAcknowledged)
	if *cost == 0 {
		*cost = perEvent
	}
	*cost += (perEvent - *cost) / paceShare
}
