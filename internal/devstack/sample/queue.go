package sample

import (
	"cmp"
	"slices"
)

// eventKind says what happens at an event.
type eventKind uint8

const (
	eventWatermark eventKind = iota
	eventRegister
	eventFirstDeposit
	eventSession
	eventBet
	eventResult
	eventVoid
	eventWithdraw
	eventStatus
	eventPromote
)

// event is something that will happen to a player.
type event struct {
	at     int64  // milliseconds since 1970
	seq    uint64 // order of scheduling, which decides between equal times
	amount int64  // of a result its payout, of a status its index
	bet    uint64 // number of the bet that is settled or voided
	player uint32
	kind   eventKind
}

func (e *event) before(other *event) bool {
	return e.at < other.at || e.at == other.at && e.seq < other.seq
}

// queue hands out events in order of time, and equal ones in the order in which
// they were scheduled. A heap with four children per node: half as deep as the
// usual one, which counts once it outgrows the processor's cache.
type queue struct {
	events  []event
	lastSeq uint64
}

const numChildren = 4

func (q *queue) schedule(e event) {
	q.lastSeq++
	e.seq = q.lastSeq
	q.events = append(q.events, e)

	i := len(q.events) - 1
	for i > 0 {
		parent := (i - 1) / numChildren
		if !e.before(&q.events[parent]) {
			break
		}
		q.events[i] = q.events[parent]
		i = parent
	}
	q.events[i] = e
}

// nextAt returns when the next event is due; false if there is none.
func (q *queue) nextAt() (int64, bool) {
	if len(q.events) == 0 {
		return 0, false
	}
	return q.events[0].at, true
}

// pop takes out the next event. There must be one.
func (q *queue) pop() event {
	first := q.events[0]
	last := len(q.events) - 1
	moved := q.events[last]
	q.events = q.events[:last]
	if last > 0 {
		q.sink(moved)
	}
	return first
}

// sink puts an event in the place of the root, and moves it down to where it
// belongs.
func (q *queue) sink(moved event) {
	i := 0
	for {
		least := i*numChildren + 1
		if least >= len(q.events) {
			break
		}
		for child := least + 1; child < min(i*numChildren+1+numChildren, len(q.events)); child++ {
			if q.events[child].before(&q.events[least]) {
				least = child
			}
		}
		if !q.events[least].before(&moved) {
			break
		}
		q.events[i] = q.events[least]
		i = least
	}
	q.events[i] = moved
}

// remove takes out the events that match.
func (q *queue) remove(matches func(event) bool) {
	q.events = slices.DeleteFunc(q.events, matches)
	// What is sorted is a heap, too.
	slices.SortFunc(q.events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq))
	})
}
