package natspublish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/outbox"
)

// Error codes of JetStream's API.
const (
	codeAccountFull            jetstream.ErrorCode = 10002
	codeExpectedStreamMismatch jetstream.ErrorCode = 10060
	codeMessageTooLarge        jetstream.ErrorCode = 10054
	codeStreamSealed           jetstream.ErrorCode = 10109
)

var errBlockedByEarlier = errors.New("an earlier event of its key did not go")

// stallCheck is how long the oldest message in flight may keep its answer back
// before those behind it are looked at.
const stallCheck = 2 * time.Millisecond

// flight is one message that waits for its acknowledgement.
type flight struct {
	future jetstream.PubAckFuture
	index  int // into the batch
}

// batch is one call of Publish.
type batch struct {
	events    []outbox.Event
	inFlight  []flight // in order of sending
	next      []int    // see chain
	outcomes  []outbox.Outcome
	publisher *Publisher
	sendUntil time.Time // when nothing more is sent; zero for no such time
}

// Publish sends events, many keys at once and one event per key at a time; see
// [outbox.Publisher].
//
// In the second half of its time it sends nothing more, so that what it has sent
// has the time to be answered: an event that is cut off in flight looks like one
// that the broker does not take.
func (publisher *Publisher) Publish(ctx context.Context, events []outbox.Event) []outbox.Outcome {
	next, first := chain(events)
	b := &batch{
		events:    events,
		inFlight:  make([]flight, 0, len(first)),
		next:      next,
		outcomes:  make([]outbox.Outcome, len(events)),
		publisher: publisher,
	}
	if deadline, ok := ctx.Deadline(); ok {
		now := time.Now()
		b.sendUntil = now.Add(deadline.Sub(now) / 2)
	}
	for _, index := range first {
		b.send(ctx, index)
	}
	b.await(ctx)
	for i := range b.outcomes {
		if b.outcomes[i].Class == "" {
			b.outcomes[i] = outbox.Outcome{Class: outbox.ClassNotSent, Err: errBlockedByEarlier}
		}
	}
	return b.outcomes
}

func (b *batch) send(ctx context.Context, index int) {
	if !b.sendUntil.IsZero() && time.Now().After(b.sendUntil) {
		b.outcomes[index] = sendFailure(context.DeadlineExceeded)
		return
	}
	future, err := b.publisher.send(ctx, &b.events[index])
	if err != nil {
		b.outcomes[index] = sendFailure(err)
		return
	}
	b.inFlight = append(b.inFlight, flight{future: future, index: index})
}

// await takes the answers, mostly in the order of sending, which is about the
// order in which they come; each lets the next event of its key go. While the
// oldest keeps its answer back, the others are served all the same: one that is
// never acknowledged holds back its own key and no other.
func (b *batch) await(ctx context.Context) {
	ticker := time.NewTicker(stallCheck)
	defer ticker.Stop()
	for len(b.inFlight) > 0 {
		oldest := b.inFlight[0]
		select {
		case ack := <-oldest.future.Ok():
			b.inFlight = b.inFlight[1:]
			b.settle(ctx, oldest.index, acknowledged(ack, b.streamOf(oldest)))
		case err := <-oldest.future.Err():
			b.inFlight = b.inFlight[1:]
			b.settle(ctx, oldest.index, refusal(err))
		case <-ticker.C:
			b.serveAnswered(ctx)
		case <-ctx.Done():
			// Answers may have come all the same.
			b.serveAnswered(ctx)
			for _, silent := range b.inFlight {
				b.outcomes[silent.index] = outbox.Outcome{Class: outbox.ClassAmbiguous, Err: errors.New("the broker did not acknowledge in time")}
			}
			return
		}
	}
}

// serveAnswered settles what is answered, wherever it stands.
func (b *batch) serveAnswered(ctx context.Context) {
	before := b.inFlight
	b.inFlight = make([]flight, 0, len(before))
	for _, waiting := range before {
		select {
		case ack := <-waiting.future.Ok():
			b.settle(ctx, waiting.index, acknowledged(ack, b.streamOf(waiting)))
		case err := <-waiting.future.Err():
			b.settle(ctx, waiting.index, refusal(err))
		default:
			b.inFlight = append(b.inFlight, waiting)
		}
	}
}

// settle notes an outcome, and lets the next event of the key go if this one
// went.
func (b *batch) settle(ctx context.Context, index int, outcome outbox.Outcome) {
	b.outcomes[index] = outcome
	if following := b.next[index]; following > 0 && outcome.Class == outbox.ClassAcknowledged {
		b.send(ctx, following)
	}
}

func (b *batch) streamOf(waiting flight) string { return StreamName(b.events[waiting.index].Stream) }

// chain returns for each event the index of the next one of its key, 0 for none,
// and the first event of each key.
func chain(events []outbox.Event) (next, first []int) {
	type keyOfStream struct{ stream, key string }
	next = make([]int, len(events))
	first = make([]int, 0, len(events))
	last := make(map[keyOfStream]int, len(events))
	for i := range events {
		key := keyOfStream{stream: events[i].Stream, key: events[i].Key}
		if before, seen := last[key]; seen {
			next[before] = i
		} else {
			first = append(first, i)
		}
		last[key] = i
	}
	return next, first
}

func (publisher *Publisher) send(ctx context.Context, event *outbox.Event) (jetstream.PubAckFuture, error) {
	if err := ctx.Err(); err != nil {
		return nil, err //nolint:wrapcheck // classified by sendFailure
	}
	return publisher.js.PublishMsgAsync(message(event), publisher.opts...) //nolint:wrapcheck // same
}

// sendFailure classifies an error of sending: nothing has left.
func sendFailure(err error) outbox.Outcome {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return outbox.Outcome{Class: outbox.ClassPermanent, Err: fmt.Errorf("larger than the broker's max_payload: %w", err)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return outbox.Outcome{Class: outbox.ClassNotSent, Err: errors.New("the time for this batch was over")}
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: errors.New("the broker is not connected")}
	}
	return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: fmt.Errorf("send to broker: %w", err)}
}

func acknowledged(ack *jetstream.PubAck, stream string) outbox.Outcome {
	if ack.Stream != stream || ack.Sequence == 0 {
		return outbox.Outcome{
			Class: outbox.ClassInfrastructure,
			Err:   fmt.Errorf("stream %s acknowledged at sequence %d instead of stream %s; run 'truegreen broker provision'", ack.Stream, ack.Sequence, stream),
		}
	}
	return outbox.Outcome{
		BrokerRef: fmt.Sprintf("%s/%d", ack.Stream, ack.Sequence),
		Class:     outbox.ClassAcknowledged,
		Duplicate: ack.Duplicate,
	}
}

// refusal classifies an answer that is no acknowledgement, or its absence.
func refusal(err error) outbox.Outcome {
	var apiErr *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: errors.New("no stream takes this subject; run 'truegreen broker provision'")}
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return outbox.Outcome{Class: outbox.ClassAmbiguous, Err: errors.New("the broker did not acknowledge in time")}
	case !errors.As(err, &apiErr):
		// The connection broke, or the answer could not be read.
		return outbox.Outcome{Class: outbox.ClassAmbiguous, Err: fmt.Errorf("await acknowledgement: %w", err)}
	case apiErr.ErrorCode == codeMessageTooLarge:
		return outbox.Outcome{Class: outbox.ClassPermanent, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
	case apiErr.ErrorCode == codeAccountFull, apiErr.ErrorCode == codeExpectedStreamMismatch,
		apiErr.ErrorCode == codeStreamSealed, apiErr.Code >= http.StatusInternalServerError:
		// Another stream's subject, a full stream or disk, no leader.
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
	}
	return outbox.Outcome{Class: outbox.ClassRow, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
}
