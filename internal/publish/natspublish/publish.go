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
	answers    []answer // taken from box, and its spare room
	box        *mailbox
	chunk      *chunk // the batch in flight; nil for none
	encoder    *encoder
	events     []outbox.Event
	inFlight   int       // messages that went by themselves and have no answer
	lastSentAt time.Time // of the acknowledged messages: when the last one was sent
	numAnswers int       // to messages that went by themselves
	outcomes   []outbox.Outcome
	publisher  *Publisher
	ready      []int         // may go by themselves, as soon as there is room
	sendUntil  time.Time     // when nothing more is sent
	sentAt     []time.Time   // when each message that went by itself was sent
	serial     int           // of the last batch
	timeout    time.Duration // for all of it
	waiting    []bool        // went by itself and has no answer
}

// Publish sends events; see [outbox.Publisher]. Many events, or many of one key,
// go in atomic batches where the stream takes them; all others go one at a time
// per key and many keys at once, and so do the keys of events that the broker may
// have. Where the broker refuses a batch its events go one at a time too, so that
// each meets its own answer.
//
// How many go by themselves at once follows from how long answers take, so that a
// slow broker can answer all of them. In the second half of its time a call sends
// nothing more: what is cut off in flight must be sent again. Without a deadline the
// time is [Config.AckTimeout].
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
		sentAt:    make([]time.Time, len(events)),
		timeout:   deadline.Sub(now),
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
		if len(c.ready) > 0 && c.hasRoom() {
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
			c.noteSilence()
			c.lose(errNoAnswer)
			return
		}
	}
}

// noteSilence has the next calls send fewer at once where answers are missing.
func (c *call) noteSilence() {
	var sentAt time.Time
	for index, waits := range c.waiting {
		if waits && c.sentAt[index].After(sentAt) {
			sentAt = c.sentAt[index]
		}
	}
	if c.inFlight > 0 {
		c.publisher.window.unanswered(sentAt, c.numAnswers == 0)
	}
}

// isOver reports that nothing more is to be sent.
func (c *call) isOver(ctx context.Context) bool {
	return ctx.Err() != nil || time.Now().After(c.sendUntil)
}

// hasRoom reports that another message may wait for its answer.
func (c *call) hasRoom() bool { return c.inFlight < c.publisher.window.limit() }

// sendReady sends what may go by itself, as far as there is room.
func (c *call) sendReady(ctx context.Context) {
	for numSent := 1; len(c.ready) > 0 && c.hasRoom(); numSent++ {
		if numSent%sendCheck == 0 {
			c.receive() // an answer that waits for its reader would look like a slow one
		}
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
		c.sentAt[index] = time.Now()
		c.waiting[index] = true
		c.inFlight++
	}
}

// receive takes the answers that came.
func (c *call) receive() {
	answers, lost := c.box.take(c.answers)
	numOnes, slowest := 0, none
	for _, one := range answers {
		if kind, serial, ok := readBatchAnswer(one.what); ok {
			c.receiveOfBatch(kind, serial, one.msg)
		} else if index, err := strconv.Atoi(one.what); err == nil && index < len(c.events) {
			if c.waiting[index] {
				numOnes++
				if slowest == none || c.sentAt[index].Before(c.sentAt[slowest]) {
					slowest = index
				}
			}
			c.receiveOne(index, one)
		}
	}
	if slowest != none {
		sentAt := c.sentAt[slowest]
		c.publisher.window.answered(numOnes, sentAt, time.Since(sentAt), c.timeout)
		c.numAnswers += numOnes
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
	c.noteAcknowledged(index, c.sentAt[index])
}

// noteAcknowledged remembers how far the broker has come.
func (c *call) noteAcknowledged(index int, sentAt time.Time) {
	if c.outcomes[index].Class == outbox.ClassAcknowledged && sentAt.After(c.lastSentAt) {
		c.lastSentAt = sentAt
	}
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

// lose settles what is in flight: it gets no answer any more. The broker answers in
// the order of a connection, so it ignored what was sent before an event that it
// acknowledged, and may not have come to what was sent after.
func (c *call) lose(why error) {
	why = c.publisher.explained(why)
	for index, waits := range c.waiting {
		if waits {
			c.waiting[index] = false
			c.outcomes[index] = c.ambiguous(why, c.sentAt[index])
		}
	}
	c.inFlight = 0
	c.loseChunk(why)
	// What follows goes over another connection.
	c.lastSentAt = time.Time{}
}

func (c *call) ambiguous(why error, sentAt time.Time) outbox.Outcome {
	return outbox.Outcome{Class: outbox.ClassAmbiguous, Err: why, Overtaken: sentAt.Before(c.lastSentAt)}
}

// whyNotSent says why an event was not even tried.
func (c *call) whyNotSent(index int) error {
	before := c.previous[index]
	if before != none && c.outcomes[before].Class != outbox.ClassAcknowledged {
		return errBlockedByEarlier
	}
	return errTimeOver
}
