package natspublish

import "truegreen/internal/outbox"

const (
	// minBatchChain is how long the chain of one key must be for a batch to be
	// faster than one event at a time.
	minBatchChain = 64

	// minBatchEvents is from how many events on a batch may be faster than many keys
	// at once: the broker sets a batch up and tears it down.
	minBatchEvents = 250

	// maxBatchEvents is the most that a broker takes in one batch by default.
	maxBatchEvents = 1000

	// maxBatchBytes keeps one batch well below what a broker lets wait in memory.
	maxBatchBytes = 8 << 20
)

// none is the index of no event.
const none = -1

// plan is the order in which the events of one call may go.
type plan struct {
	atomic   []bool // goes in a batch
	first    []int  // the first event of each key that goes by itself
	lots     []lot  // what goes in batches, one lot per stream
	next     []int  // for each event, the next one of its key
	previous []int  // and the one before it
	wide     bool   // many events in chains that are short: both ways are open
}

// lot are events of one stream that may go in batches, in their order.
type lot struct {
	indexes []int
	started bool // a batch was cut off
	stream  string
}

type keyOfStream struct{ key, stream string }

// keyPlan is what a plan knows about one key.
type keyPlan struct {
	first  int
	last   int
	length int
	single bool // all its events go by themselves
}

// newPlan sorts events into those that go in batches and those that go by
// themselves, one at a time per key. A key goes by itself as a whole if the
// broker would refuse a batch for one of its events: it may have it already, or
// it has more than maxBytes. prefersBatches is asked where both ways are open.
func newPlan(events []outbox.Event, maxBytes int, prefersBatches func() bool) *plan {
	p := &plan{
		atomic:   make([]bool, len(events)),
		next:     make([]int, len(events)),
		previous: make([]int, len(events)),
	}
	keys := make(map[keyOfStream]*keyPlan, len(events))
	plans := make([]keyPlan, 0, len(events)) // one array for all that keys points to
	keyOf := make([]*keyPlan, len(events))
	for i := range events {
		name := keyOfStream{key: events[i].Key, stream: events[i].Stream}
		key, seen := keys[name]
		if !seen {
			plans = append(plans, keyPlan{first: i, last: none})
			key = &plans[len(plans)-1]
			keys[name] = key
		}
		p.next[i], p.previous[i] = none, key.last
		if key.last != none {
			p.next[key.last] = i
		}
		key.last = i
		key.length++
		key.single = key.single || events[i].MaybeSent || size(&events[i]) > maxBytes
		keyOf[i] = key
	}
	p.fillLots(events, keyOf, prefersBatches)
	for i := range plans {
		if !p.atomic[plans[i].first] {
			p.first = append(p.first, plans[i].first)
		}
	}
	return p
}

// fillLots puts into lots what is worth it.
func (p *plan) fillLots(events []outbox.Event, keyOf []*keyPlan, prefersBatches func() bool) {
	var lots []lot
	longest := make(map[string]int)
	for i := range events {
		if keyOf[i].single {
			continue
		}
		stream := events[i].Stream
		at := len(lots) - 1
		for at >= 0 && lots[at].stream != stream {
			at--
		}
		if at < 0 {
			at = len(lots)
			lots = append(lots, lot{indexes: make([]int, 0, len(events)-i), stream: stream})
		}
		lots[at].indexes = append(lots[at].indexes, i)
		longest[stream] = max(longest[stream], keyOf[i].length)
	}
	for _, one := range lots {
		if longest[one.stream] < minBatchChain {
			if len(one.indexes) < minBatchEvents {
				continue
			}
			p.wide = true
			if !prefersBatches() {
				continue
			}
		}
		p.lots = append(p.lots, one)
		for _, index := range one.indexes {
			p.atomic[index] = true
		}
	}
}

// cut takes the events of the next batch off the lot.
func (l *lot) cut(events []outbox.Event) []int {
	bytes := 0
	end := 0
	for end < min(len(l.indexes), maxBatchEvents) {
		bytes += size(&events[l.indexes[end]])
		if end > 0 && bytes > maxBatchBytes {
			break
		}
		end++
	}
	indexes := l.indexes[:end]
	l.indexes, l.started = l.indexes[end:], true
	return indexes
}

// isRest reports that too little is left of a lot that went in batches for
// another one.
func (l *lot) isRest() bool { return l.started && len(l.indexes) < minBatchEvents }
