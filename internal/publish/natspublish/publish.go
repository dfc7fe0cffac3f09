package natspublish

import (
	"context"
	"errors"
	"fmt"
	"net/http"

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

// flight is one message that waits for its acknowledgement.
type flight struct {
	future jetstream.PubAckFuture
	index  int // into the batch
}

// Publish sends events, many keys at once and one event per key at a time; see
// [outbox.Publisher].
func (publisher *Publisher) Publish(ctx context.Context, events []outbox.Event) []outbox.Outcome {
	outcomes := make([]outbox.Outcome, len(events))
	next, first := chain(events)

	// Answers are awaited in the order of sending, which is about the order in
	// which they come; each lets the next event of its key go.
	queue := make([]flight, 0, len(events))
	send := func(index int) {
		future, err := publisher.send(ctx, &events[index])
		if err != nil {
			outcomes[index] = sendFailure(err)
			return
		}
		queue = append(queue, flight{future: future, index: index})
	}
	for _, index := range first {
		send(index)
	}
	for i := 0; i < len(queue); i++ { //nolint:intrange // the queue grows on the way
		flight := queue[i]
		outcomes[flight.index] = await(ctx, flight.future, StreamName(events[flight.index].Stream))
		if following := next[flight.index]; following > 0 && outcomes[flight.index].Class == outbox.ClassAcknowledged {
			send(following)
		}
	}
	for i := range outcomes {
		if outcomes[i].Class == "" {
			outcomes[i] = outbox.Outcome{Class: outbox.ClassNotSent, Err: errBlockedByEarlier}
		}
	}
	return outcomes
}

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

// await returns what became of a message that was sent.
func await(ctx context.Context, future jetstream.PubAckFuture, stream string) outbox.Outcome {
	select {
	case ack := <-future.Ok():
		return acknowledged(ack, stream)
	case err := <-future.Err():
		return refusal(err)
	case <-ctx.Done():
	}
	// Both may have been ready.
	select {
	case ack := <-future.Ok():
		return acknowledged(ack, stream)
	case err := <-future.Err():
		return refusal(err)
	default:
		return outbox.Outcome{Class: outbox.ClassAmbiguous, Err: errors.New("the broker did not acknowledge in time")}
	}
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
