package natspublish

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"truegreen/internal/outbox"
)

// Headers of JetStream.
const (
	headerBatchCommit    = "Nats-Batch-Commit"
	headerBatchID        = "Nats-Batch-Id"
	headerBatchSequence  = "Nats-Batch-Sequence"
	headerExpectedStream = "Nats-Expected-Stream"
	headerMessageID      = "Nats-Msg-Id"
)

// StreamName is the JetStream stream of an outbox stream.
func StreamName(stream string) string { return "TRUEGREEN_" + strings.ToUpper(stream) }

// subject is where an event of a type goes; subjects covers all of them.
func subject(stream, eventType string) string { return "truegreen." + stream + "." + eventType }
func subjects(stream string) string           { return "truegreen." + stream + ".>" }

// slot is the place of a header's value among an encoder's values.
type slot int

const (
	slotBatchID slot = iota
	slotBatchSequence
	slotContentType
	slotEventID
	slotKey
	slotKeySeq
	slotSource
	slotSpecVersion
	slotStream
	slotTime
	slotType
	numSlots
)

// encoder makes messages of the events of one call: CloudEvents in binary mode,
// with the application's headers along as they are. It uses one message over and
// over, since the client copies what it sends.
//
// The header names follow the NATS binding of CloudEvents 1.0. partitionkey is an extension
// that the CloudEvents project documents. keysequence is one of our own, scoped to source and
// subject: the documented sequence is scoped to the source alone, and ordered as text.
type encoder struct {
	buffer   []byte
	extra    []string // names of headers that the last message alone has
	msg      nats.Msg
	stream   string // what the values that hang on the stream are for
	subjects map[string]string
	values   [numSlots]string
}

func newEncoder() *encoder {
	e := &encoder{subjects: make(map[string]string)}
	e.values[slotContentType] = "application/json"
	e.values[slotSpecVersion] = "1.0"
	e.msg.Header = make(nats.Header, 25)
	for name, place := range map[string]slot{
		"ce-id":              slotEventID,
		"ce-partitionkey":    slotKey,
		"ce-keysequence":     slotKeySeq,
		"ce-source":          slotSource,
		"ce-specversion":     slotSpecVersion,
		"ce-subject":         slotKey,
		"ce-time":            slotTime,
		"ce-type":            slotType,
		"ce-datacontenttype": slotContentType,
		"content-type":       slotContentType,
		headerExpectedStream: slotStream, // refused if another stream has taken the subject
		headerMessageID:      slotEventID,
	} {
		e.msg.Header[name] = e.values[place : place+1 : place+1]
	}
	return e
}

// encode returns the message of event, valid until the next call. The answer
// goes to reply and what; no answer is asked for if what is empty. position is
// the event's place in an atomic batch, from 1; 0 for one that goes by itself.
func (e *encoder) encode(event *outbox.Event, reply, what string, position int) *nats.Msg {
	if event.Stream != e.stream || e.values[slotStream] == "" {
		e.stream = event.Stream
		e.values[slotSource] = "/truegreen/" + event.Stream
		e.values[slotStream] = StreamName(event.Stream)
		clear(e.subjects)
	}
	to, known := e.subjects[event.Type]
	if !known {
		to = subject(event.Stream, event.Type)
		e.subjects[event.Type] = to
	}
	e.msg.Subject = to
	e.msg.Data = event.Payload
	e.values[slotKey] = event.Key
	e.values[slotType] = event.Type

	// One string for all that is made of numbers: this runs once per event and
	// attempt.
	var ends [5]int
	b := appendUUID(e.buffer[:0], event.EventID)
	ends[0] = len(b)
	b = strconv.AppendInt(b, event.KeySeq, 10)
	ends[1] = len(b)
	b = event.CreatedAt.UTC().AppendFormat(b, time.RFC3339Nano)
	ends[2] = len(b)
	b = strconv.AppendInt(b, int64(position), 10)
	ends[3] = len(b)
	if what != "" {
		b = append(append(b, reply...), what...)
	}
	ends[4] = len(b)
	e.buffer = b
	all := string(b)
	e.values[slotEventID] = all[:ends[0]]
	e.values[slotKeySeq] = all[ends[0]:ends[1]]
	e.values[slotTime] = all[ends[1]:ends[2]]
	e.values[slotBatchSequence] = all[ends[2]:ends[3]]
	e.msg.Reply = all[ends[3]:ends[4]]

	e.setExtra(event.Headers)
	return &e.msg
}

// streamName is [StreamName], without making it anew for the stream at hand.
func (e *encoder) streamName(stream string) string {
	if stream == e.stream && e.values[slotStream] != "" {
		return e.values[slotStream]
	}
	return StreamName(stream)
}

// setExtra replaces the application's headers of the message before.
func (e *encoder) setExtra(headers map[string]string) {
	for _, name := range e.extra {
		delete(e.msg.Header, name)
	}
	e.extra = e.extra[:0]
	for name, value := range headers {
		if _, ours := e.msg.Header[name]; ours {
			continue
		}
		e.add(name, value)
		if name == "traceparent" || name == "tracestate" {
			e.add("ce-"+name, value)
		}
	}
}

func (e *encoder) add(name, value string) {
	e.msg.Header[name] = []string{value}
	e.extra = append(e.extra, name)
}

// startBatch lets the messages that follow belong to an atomic batch.
func (e *encoder) startBatch(id string) {
	e.values[slotBatchID] = id
	e.msg.Header[headerBatchID] = e.values[slotBatchID : slotBatchID+1 : slotBatchID+1]
	e.msg.Header[headerBatchSequence] = e.values[slotBatchSequence : slotBatchSequence+1 : slotBatchSequence+1]
}

// commitBatch lets the message that follows be the last of its batch.
func (e *encoder) commitBatch() { e.msg.Header[headerBatchCommit] = []string{"1"} }

// endBatch lets the messages that follow go by themselves.
func (e *encoder) endBatch() {
	delete(e.msg.Header, headerBatchCommit)
	delete(e.msg.Header, headerBatchID)
	delete(e.msg.Header, headerBatchSequence)
}

// appendUUID appends the usual text of id.
func appendUUID(b []byte, id [16]byte) []byte {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
}

// size is how many bytes of an event count against the broker's limits, its
// envelope left out.
func size(event *outbox.Event) int {
	bytes := len(event.Payload)
	for name, value := range event.Headers {
		bytes += len(name) + len(value) + len(": \r\n")
	}
	return bytes
}
