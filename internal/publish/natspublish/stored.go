package natspublish

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// StoredMessage is what the broker holds at one sequence of a stream. What it
// says of the event is as written in the headers, which are not to be trusted;
// what is not there is empty or zero, and named in Problem.
type StoredMessage struct {
	Bytes    int    // of the body, which is not read
	EventID  string // ce-id
	Header   map[string][]string
	Key      string // ce-partitionkey
	KeySeq   int64  // ce-keysequence; ce-sequence in messages of earlier versions
	Problem  string // what is missing or not as published; empty if nothing
	Sequence uint64 // in the stream
	Source   string // ce-source
	StoredAt time.Time
	Subject  string
	Type     string // ce-type
}

// earlierKeySeq is the header that held an event's key_seq before it was ce-keysequence.
const earlierKeySeq = "ce-sequence"

// headerBodySize is put there by the broker where it leaves the body out.
const headerBodySize = "Nats-Msg-Size"

func storedMessage(msg *nats.Msg, sequence uint64, storedAt time.Time) StoredMessage {
	stored := StoredMessage{
		Bytes:    len(msg.Data),
		Header:   msg.Header,
		Sequence: sequence,
		StoredAt: storedAt,
		Subject:  msg.Subject,
	}
	if size, err := strconv.Atoi(msg.Header.Get(headerBodySize)); err == nil {
		stored.Bytes = size
		delete(msg.Header, headerBodySize)
	}
	var problems []string
	read := func(name string) string {
		values := msg.Header[name]
		switch {
		case len(values) == 0 || values[0] == "":
			problems = append(problems, "no "+name)
			return ""
		case len(values) > 1:
			problems = append(problems, name+" more than once")
		}
		return values[0]
	}
	stored.EventID = read("ce-id")
	stored.Key = read("ce-partitionkey")
	stored.Source = read("ce-source")
	stored.Type = read("ce-type")
	nameOfSeq := "ce-keysequence"
	if len(msg.Header[nameOfSeq]) == 0 && len(msg.Header[earlierKeySeq]) > 0 {
		nameOfSeq = earlierKeySeq
	}
	if text := read(nameOfSeq); text != "" {
		sequence, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			problems = append(problems, nameOfSeq+" is no number: "+strconv.Quote(text))
		} else {
			stored.KeySeq = sequence
		}
	}
	if id := read(headerMessageID); id != "" && id != stored.EventID {
		problems = append(problems, headerMessageID+" is not ce-id: "+strconv.Quote(id))
	}
	stored.Problem = strings.Join(problems, "; ")
	return stored
}

// maxGaps is how many gaps an error names.
const maxGaps = 100

// Gap are sequences of a stream that hold nothing any more.
type Gap struct{ First, Last uint64 }

// GapError says that messages between the first and the last of a stream are
// gone: somebody removed them, or a limit of the stream did.
type GapError struct {
	Gaps       []Gap // the first 100, rising
	NumMissing uint64
	Stream     string // of JetStream
}

// Error names the first gaps.
func (e *GapError) Error() string {
	const maxNamed = 3
	named := make([]string, 0, maxNamed)
	for _, gap := range e.Gaps[:min(len(e.Gaps), maxNamed)] {
		if gap.First == gap.Last {
			named = append(named, strconv.FormatUint(gap.First, 10))
			continue
		}
		named = append(named, fmt.Sprintf("%d to %d", gap.First, gap.Last))
	}
	more := ""
	if len(e.Gaps) > maxNamed {
		more = " and more"
	}
	return fmt.Sprintf("stream %s: messages are gone, %d in all, at sequences %s%s", e.Stream, e.NumMissing, strings.Join(named, ", "), more)
}
