package natspublish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/outbox"
)

// What an answer to a message of a batch is to; the number of the batch follows
// in the subject.
const (
	ofFirst  = "f" // the first message: does the stream take the batch?
	ofCommit = "c" // the last one: is it stored?
)

var errNoBatches = errors.New("the server knows no atomic batches")

// chunk is a batch in flight.
type chunk struct {
	accepted  bool // the stream takes batches, as far as is known
	committed bool // the last message has left
	id        string
	indexes   []int     // into the events of the call
	refused   error     // the answer to the first message
	sent      int       // how many messages have left
	sentAt    time.Time // of the last of them
	serial    int
	stream    string // of JetStream
}

// sendChunk starts the next batch once the one before it is through, since a key
// may have events in both, and sends as much of it as is known to be welcome.
// What is not worth a batch, or was refused as one, is left to go by itself.
func (c *call) sendChunk(ctx context.Context) {
	for {
		switch {
		case c.chunk == nil && len(c.lots) == 0:
			return
		case c.chunk == nil:
			c.startChunk(ctx)
		case c.chunk.committed, c.chunk.sent > 0 && !c.chunk.accepted && c.chunk.refused == nil:
			return // until it is answered
		default:
			c.fill(ctx)
		}
	}
}

func (c *call) startChunk(ctx context.Context) {
	current := &c.lots[0]
	stream := StreamName(current.stream)
	worth, known := c.publisher.support.isWorthATry(stream)
	if !worth || c.isOver(ctx) || current.isRest() {
		c.releaseLot()
		return
	}
	c.serial++
	c.chunk = &chunk{accepted: known, id: uuid.NewString(), indexes: current.cut(c.events), serial: c.serial, stream: stream}
}

// fill sends the messages of the batch, the commit last; until that has left
// nothing of the batch can be stored. Unless the stream is known to take batches
// it sends the first message alone: a server that knows no batches would store
// each message as it comes.
func (c *call) fill(ctx context.Context) {
	current := c.chunk
	if current.refused != nil {
		c.abandon(current.refused)
		return
	}
	c.encoder.startBatch(current.id)
	defer c.encoder.endBatch()
	for last := len(current.indexes) - 1; current.sent <= last; current.sent++ {
		if current.sent%sendCheck == 0 || current.sent == last {
			c.receive()
			if c.chunk != current {
				return // the connection broke
			}
			if current.refused != nil || c.isOver(ctx) {
				c.abandon(current.refused)
				return
			}
		}
		if current.sent == 1 && !current.accepted {
			current.sentAt = time.Now()
			return
		}
		what := ""
		switch current.sent {
		case 0:
			what = ofFirst + strconv.Itoa(current.serial)
		case last:
			what = ofCommit + strconv.Itoa(current.serial)
			c.encoder.commitBatch()
		}
		msg := c.encoder.encode(&c.events[current.indexes[current.sent]], c.box.prefix, what, current.sent+1)
		if err := c.publisher.conn.PublishMsg(msg); err != nil {
			c.abandon(nil) // its events go by themselves, and meet the error again
			return
		}
	}
	current.committed = true
	current.sentAt = time.Now()
}

// receiveOfBatch takes an answer to a message of a batch.
func (c *call) receiveOfBatch(kind string, serial int, msg *nats.Msg) {
	current := c.chunk
	if current == nil || current.serial != serial {
		return // it was given up on
	}
	if kind == ofFirst {
		switch {
		case len(msg.Data) == 0 && len(msg.Header) == 0:
			current.accepted = true
			c.publisher.support.accept(current.stream)
		case current.refused == nil:
			_, current.refused = readAnswer(msg, current.stream)
			if current.refused == nil {
				current.refused = errNoBatches
			}
		}
		return
	}
	got, err := readAnswer(msg, current.stream)
	if err == nil && !current.isStored(got) {
		err = fmt.Errorf("the broker acknowledged %d events of batch %q up to sequence %d of stream %s", got.Count, got.Batch, got.Sequence, got.Stream)
	}
	if err != nil {
		if current.refused != nil {
			err = current.refused // the commit of a batch that was refused before says less
		}
		c.abandon(err)
		return
	}
	c.chunk = nil
	c.settleChunk(current, got.Sequence)
	c.noteAcknowledged(current.indexes[0], current.sentAt)
}

// isStored reports that got says that the whole batch is stored, and nothing else.
func (ch *chunk) isStored(got ack) bool {
	count := uint64(len(ch.indexes))
	return got.Stream == ch.stream && got.Batch == ch.id && got.Count == count && got.Sequence >= count
}

// settleChunk notes that the whole batch is stored, its messages one after the
// other, last at the sequence.
func (c *call) settleChunk(stored *chunk, last uint64) {
	// One string for all references: they are kept as long as the outcomes are.
	refs := make([]byte, 0, len(stored.indexes)*(len(stored.stream)+8))
	ends := make([]int, len(stored.indexes))
	for i := range stored.indexes {
		refs = append(append(refs, stored.stream...), '/')
		refs = strconv.AppendUint(refs, last-uint64(len(stored.indexes)-1-i), 10)
		ends[i] = len(refs)
	}
	all, start := string(refs), 0
	for i, index := range stored.indexes {
		c.settle(index, outbox.Outcome{BrokerRef: all[start:ends[i]], Class: outbox.ClassAcknowledged})
		start = ends[i]
	}
}

// abandon gives up a batch of which nothing is stored, or which the broker has
// answered: its events, and those that were to follow, go by themselves. Should
// one of them be stored all the same, the broker knows it by its id.
func (c *call) abandon(refused error) {
	given := c.chunk
	c.chunk = nil
	var apiErr *jetstream.APIError
	if errors.Is(refused, errNoBatches) || errors.As(refused, &apiErr) && apiErr.ErrorCode == codeNoBatches {
		c.publisher.support.refuse(given.stream)
		c.publisher.logger.Info("broker stream takes no atomic batches, sending one at a time",
			slog.Any("error", refused), slog.String("stream", given.stream))
	} else {
		c.publisher.support.doubt(given.stream)
	}
	c.release(given.indexes)
	c.releaseLot()
}

// releaseLot lets the rest of the current lot go by itself.
func (c *call) releaseLot() {
	rest := c.lots[0].indexes
	c.lots = c.lots[1:]
	c.release(rest)
}

// release lets events go by themselves: at once if the event before it of its key
// went, else after that one.
func (c *call) release(indexes []int) {
	for _, index := range indexes {
		c.atomic[index] = false
		before := c.previous[index]
		if before == none || c.outcomes[before].Class == outbox.ClassAcknowledged {
			c.ready = append(c.ready, index)
		}
	}
}

// loseChunk settles the batch in flight, which gets no answer any more.
func (c *call) loseChunk(why error) {
	given := c.chunk
	if given == nil {
		return
	}
	c.publisher.support.doubt(given.stream)
	outcome := c.ambiguous(why, given.sentAt)
	switch {
	case given.committed:
		for _, index := range given.indexes {
			c.outcomes[index] = outcome
		}
		c.chunk = nil
		c.releaseLot()
	case given.accepted:
		// The commit has not left.
		c.abandon(nil)
	default:
		// A server that knows no batches has stored the first message.
		if given.sent > 0 {
			c.outcomes[given.indexes[0]] = outcome
			given.indexes = given.indexes[1:]
		}
		c.abandon(nil)
	}
}

// readBatchAnswer reads what an answer is to, if it is to a message of a batch.
func readBatchAnswer(what string) (kind string, serial int, ok bool) {
	if len(what) < 2 || what[:1] != ofFirst && what[:1] != ofCommit {
		return "", 0, false
	}
	serial, err := strconv.Atoi(what[1:])
	return what[:1], serial, err == nil
}
