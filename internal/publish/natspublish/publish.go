package natspublish

import (
	"context"
	"errors"
	"strconv"
	"time"

	"truegreen/internal/outbox"
)

const (
	// maxInFlight is how many messages of one call may wait for their answers: more
	// gains nothing, and the broker drops what it has no room for.
	maxInFlight = 4096

	// sendCheck is after how many messages of a batch the time and the answers are
	// looked at.
	sendCheck = 64
)

// call is one call of Publish. Its fields belong to the goroutine of the caller.
type call struct {
	*plan
	answers   []answer // taken from box, and its spare room
	box       *mailbox
	chunk     *chunk // the batch in flight; nil for none
	encoder   *encoder
	events    []outbox.Event
	inFlight  int // messages that went by themselves and have no answer
	outcomes  []outbox.Outcome
	publisher *Publisher
	ready     []int     // may go by themselves, as soon as there is room
	sendUntil time.Time // when nothing more is sent
	serial    int       // of the last batch
	waiting   []bool    // went by itself and has no answer
}

// Publish sends events; see [outbox.Publisher]. Many events, or many of one key,
// go in atomic batches where the stream takes them; all others go one at a time
// per key and many keys at once, and so do the keys of events that the broker may
// have. Where the broker refuses a batch its events go one at a time too, so that
// each meets its own answer.
//
// In the second half of its time it sends nothing more, so that what it has sent
// has the time to be answered: an event that is cut off in flight looks like one
// that the broker does not take. Without a deadline the time is
// [Config.AckTimeout].
func (publisher *Publisher) Publish(ctx context.Context, events []outbox.Event) []outbox.Outcome {
	now := time.Now()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = now.Add(publisher.ackTimeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	c := &call{
		box:       publisher.inbox.open(),
		encoder:   newEncoder(),
		events:    events,
		outcomes:  make([]outbox.Outcome, len(events)),
		plan:      newPlan(events, publisher.maxBatchedBytes(), publisher.pace.prefersBatches),
		publisher: publisher,
		sendUntil: now.Add(deadline.Sub(now) / 2),
		waiting:   make([]bool, len(events)),
	}
	defer c.box.close()
	c.ready = c.first
	inBatches := len(c.lots) > 0
	c.run(ctx)
	numAcknowledged := 0
	for i := range c.outcomes {
		if c.outcomes[i].Class == "" {
			c.outcomes[i] = outbox.Outcome{Class: outbox.ClassNotSent, Err: c.whyNotSent(i)}
		}
		if c.outcomes[i].Class == outbox.ClassAcknowledged {
			numAcknowledged++
		}
	}
	if c.wide {
		publisher.pace.note(inBatches, numAcknowledged, time.Since(now))
	}
	return c.outcomes
}

func (c *call) run(ctx context.Context) {
	for {
		c.sendReady(ctx)
		c.sendChunk(ctx)
		if len(c.ready) > 0 && c.inFlight < maxInFlight {
			continue // what a batch did not take
		}
		if c.inFlight == 0 && c.chunk == nil {
			return
		}
		select {
		case <-c.box.arrived:
			c.receive()
		case <-ctx.Done():
			// Answers may have come all the same.
			c.receive()
			c.lose(errNoAnswer)
			return
		}
	}
}

// isOver reports that nothing more is to be sent.
func (c *call) isOver(ctx context.Context) bool {
	return ctx.Err() != nil || time.Now().After(c.sendUntil)
}

// sendReady sends what may go by itself, as far as there is room.
func (c *call) sendReady(ctx context.Context) {
	for len(c.ready) > 0 && c.inFlight < maxInFlight {
		index := c.ready[0]
		c.ready = c.ready[1:]
		if c.isOver(ctx) {
			c.outcomes[index] = c.publisher.sendFailure(context.DeadlineExceeded)
			continue
		}
		msg := c.encoder.encode(&c.events[index], c.box.prefix, strconv.Itoa(index), 0)
		if err := c.publisher.conn.PublishMsg(msg); err != nil {
			c.outcomes[index] = c.publisher.sendFailure(err)
			continue
		}
		c.waiting[index] = true
		c.inFlight++
	}
}

// receive takes the answers that came.
func (c *call) receive() {
	answers, lost := c.box.take(c.answers)
	for _, one := range answers {
		if kind, serial, ok := readBatchAnswer(one.what); ok {
			c.receiveOfBatch(kind, serial, one.msg)
		} else if index, err := strconv.Atoi(one.what); err == nil && index < len(c.events) {
			c.receiveOne(index, one)
		}
	}
	clear(answers)
	c.answers = answers
	if lost {
		c.lose(errors.New("the connection broke before the broker answered"))
	}
}

func (c *call) receiveOne(index int, one answer) {
	if c.waiting[index] {
		c.waiting[index] = false
		c.inFlight--
	}
	stream := c.encoder.streamName(c.events[index].Stream)
	got, err := readAnswer(one.msg, stream)
	if err != nil {
		c.settle(index, refusal(err))
		return
	}
	c.settle(index, acknowledged(got, stream))
}

// settle notes an outcome, and lets the next event of the key go if this one
// went and the next is not to go in a batch.
func (c *call) settle(index int, outcome outbox.Outcome) {
	c.outcomes[index] = outcome
	if outcome.Class != outbox.ClassAcknowledged {
		return
	}
	if next := c.next[index]; next != none && !c.atomic[next] {
		c.ready = append(c.ready, next)
	}
}

// lose settles what is in flight: it gets no answer any more.
func (c *call) lose(why error) {
	why = c.publisher.explained(why)
	outcome := outbox.Outcome{Class: outbox.ClassAmbiguous, Err: why}
	for index, waits := range c.waiting {
		if waits {
			c.waiting[index] = false
			c.outcomes[index] = outcome
		}
	}
	c.inFlight = 0
	c.loseChunk(outcome)
}

// whyNotSent says why an event was not even tried.
func (c *call) whyNotSent(index int) error {
	before := c.previous[index]
	if before != none && c.outcomes[before].Class != outbox.ClassAcknowledged {
		return errBlockedByEarlier
	}
	return errTimeOver
}
