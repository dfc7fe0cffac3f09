package crash_test

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/reconcile"
)

// message is what the broker holds, as a consumer sees it.
type message struct {
	eventID  string
	key      string
	keySeq   int64
	payload  string
	problem  string // what is wrong with its headers
	sequence uint64
	storedAt time.Time
	typ      string
}

// readBroker returns all messages of a stream, from the first.
func readBroker(ctx context.Context, js jetstream.JetStream, stream string) ([]message, error) {
	consumer, err := js.CreateConsumer(ctx, atBroker(stream), jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		InactiveThreshold: time.Minute,
		MemoryStorage:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("consume %s: %w", stream, err)
	}
	numPending := int(consumer.CachedInfo().NumPending)
	messages := make([]message, 0, numPending)
	for len(messages) < numPending {
		fetched, err := consumer.Fetch(min(500, numPending-len(messages)), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return nil, fmt.Errorf("fetch from %s: %w", stream, err)
		}
		numBefore := len(messages)
		for raw := range fetched.Messages() {
			one, err := readMessage(stream, raw)
			if err != nil {
				return nil, err
			}
			messages = append(messages, one)
		}
		if len(messages) == numBefore {
			return nil, fmt.Errorf("fetch from %s: %d of %d messages came: %w", stream, numBefore, numPending, fetched.Error())
		}
	}
	return messages, nil
}

func readMessage(stream string, raw jetstream.Msg) (message, error) {
	metadata, err := raw.Metadata()
	if err != nil {
		return message{}, fmt.Errorf("read a message of %s: %w", stream, err)
	}
	headers := raw.Headers()
	one := message{
		eventID:  headers.Get("ce-id"),
		key:      headers.Get("ce-partitionkey"),
		payload:  string(raw.Data()),
		sequence: metadata.Sequence.Stream,
		storedAt: metadata.Timestamp,
		typ:      headers.Get("ce-type"),
	}
	one.keySeq, err = strconv.ParseInt(headers.Get("ce-keysequence"), 10, 64)
	switch {
	case err != nil:
		one.problem = "its ce-keysequence is no number"
	case headers.Get("Nats-Msg-Id") != one.eventID:
		one.problem = fmt.Sprintf("the broker knows it as %q", headers.Get("Nats-Msg-Id"))
	case headers.Get("ce-source") != "/truegreen/"+stream:
		one.problem = fmt.Sprintf("it comes from %q", headers.Get("ce-source"))
	case headers.Get("ce-subject") != one.key:
		one.problem = fmt.Sprintf("its subject is %q", headers.Get("ce-subject"))
	case raw.Subject() != "truegreen."+stream+"."+one.typ:
		one.problem = fmt.Sprintf("it is at %q", raw.Subject())
	}
	return one, nil
}

// source shows the broker to the product's checker.
type source struct{ js jetstream.JetStream }

// Read calls each with all messages of a stream.
func (s source) Read(ctx context.Context, stream string, each func(reconcile.Message) error) (reconcile.Extent, error) {
	messages, err := readBroker(ctx, s.js, stream)
	if err != nil {
		return reconcile.Extent{}, err
	}
	info, err := s.js.Stream(ctx, atBroker(stream))
	if err != nil {
		return reconcile.Extent{}, fmt.Errorf("look at %s: %w", stream, err)
	}
	state := info.CachedInfo().State
	for _, one := range messages {
		err := each(reconcile.Message{
			EventID: one.eventID, Key: one.key, KeySeq: one.keySeq, Problem: one.problem,
			Sequence: one.sequence, StoredAt: one.storedAt, Type: one.typ,
		})
		if err != nil {
			return reconcile.Extent{}, err
		}
	}
	return reconcile.Extent{First: state.FirstSeq, Last: state.LastSeq, Name: atBroker(stream)}, nil
}
