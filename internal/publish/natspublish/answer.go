package natspublish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/outbox"
)

// Error codes of JetStream's API.
const (
	codeAccountFull            jetstream.ErrorCode = 10002
	codeExpectedStreamMismatch jetstream.ErrorCode = 10060
	codeHeaderTooLarge         jetstream.ErrorCode = 10097
	codeMessageTooLarge        jetstream.ErrorCode = 10054
	codeNoBatches              jetstream.ErrorCode = 10174
	codeStreamSealed           jetstream.ErrorCode = 10109
)

var (
	errBlockedByEarlier = errors.New("an earlier event of its key did not go")
	errNoAnswer         = errors.New("the broker did not acknowledge in time")
	errNoStream         = errors.New("no stream takes this subject; run 'truegreen broker provision'")
	errNotConnected     = errors.New("the broker is not connected")
	errTimeOver         = errors.New("the time for this batch was over")
)

// ack is an acknowledgement of JetStream.
type ack struct {
	Batch     string `json:"batch"` // of an atomic batch
	Count     uint64 `json:"count"` // of an atomic batch
	Duplicate bool   `json:"duplicate"`
	Sequence  uint64 `json:"seq"` // of an atomic batch: of its last message
	Stream    string `json:"stream"`
}

// readAnswer returns the acknowledgement in msg, or an error that [refusal]
// classifies. stream is the one that is expected, which makes it faster.
func readAnswer(msg *nats.Msg, stream string) (ack, error) {
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		return ack{}, errNoStream
	}
	if quick, ok := readQuickly(msg.Data, stream); ok {
		return quick, nil
	}
	var full struct {
		ack
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &full); err != nil {
		return ack{}, fmt.Errorf("the broker's answer cannot be read: %w", err)
	}
	if full.Error != nil {
		return ack{}, full.Error
	}
	if full.Stream == "" {
		return ack{}, errors.New("the broker's answer cannot be read: no stream in it")
	}
	return full.ack, nil
}

// readQuickly reads the answer that almost every message gets.
func readQuickly(data []byte, stream string) (ack, bool) {
	const before, between, duplicate = `{"stream":"`, `", "seq":`, `,"duplicate": true`
	rest, ok := bytes.CutPrefix(data, []byte(before))
	if !ok || len(rest) < len(stream) || string(rest[:len(stream)]) != stream {
		return ack{}, false
	}
	if rest, ok = bytes.CutPrefix(rest[len(stream):], []byte(between)); !ok {
		return ack{}, false
	}
	if rest, ok = bytes.CutSuffix(rest, []byte("}")); !ok {
		return ack{}, false
	}
	rest, isDuplicate := bytes.CutSuffix(rest, []byte(duplicate))
	sequence, err := strconv.ParseUint(string(rest), 10, 64)
	return ack{Duplicate: isDuplicate, Sequence: sequence, Stream: stream}, err == nil
}

// acknowledged is the outcome of an event that got an acknowledgement.
func acknowledged(got ack, stream string) outbox.Outcome {
	if got.Stream != stream || got.Sequence == 0 {
		return outbox.Outcome{
			Class: outbox.ClassInfrastructure,
			Err:   fmt.Errorf("stream %s acknowledged at sequence %d instead of stream %s; run 'truegreen broker provision'", got.Stream, got.Sequence, stream),
		}
	}
	return outbox.Outcome{
		BrokerRef: stream + "/" + strconv.FormatUint(got.Sequence, 10),
		Class:     outbox.ClassAcknowledged,
		Duplicate: got.Duplicate,
	}
}

// refusal classifies an answer that is no acknowledgement.
func refusal(err error) outbox.Outcome {
	var apiErr *jetstream.APIError
	switch {
	case errors.Is(err, errNoStream):
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: err}
	case !errors.As(err, &apiErr):
		return outbox.Outcome{Class: outbox.ClassAmbiguous, Err: err}
	case apiErr.ErrorCode == codeMessageTooLarge, apiErr.ErrorCode == codeHeaderTooLarge:
		return outbox.Outcome{Class: outbox.ClassPermanent, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
	case apiErr.ErrorCode == codeAccountFull, apiErr.ErrorCode == codeExpectedStreamMismatch, apiErr.ErrorCode == codeStreamSealed,
		apiErr.Code == http.StatusTooManyRequests, apiErr.Code >= http.StatusInternalServerError:
		// Another stream's subject, a full stream or disk, too busy, no leader.
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
	}
	return outbox.Outcome{Class: outbox.ClassRow, Err: fmt.Errorf("refused by the broker: %w", apiErr)}
}

// sendFailure classifies an error of sending: nothing has left.
func (publisher *Publisher) sendFailure(err error) outbox.Outcome {
	switch {
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg), errors.Is(err, nats.ErrInvalidMsg):
		return outbox.Outcome{Class: outbox.ClassPermanent, Err: fmt.Errorf("%w: %w", outbox.ErrUnsendable, err)}
	case errors.Is(err, nats.ErrMaxPayload):
		return outbox.Outcome{Class: outbox.ClassPermanent, Err: fmt.Errorf("larger than the broker's max_payload: %w", err)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return outbox.Outcome{Class: outbox.ClassNotSent, Err: errTimeOver}
	case !publisher.conn.IsConnected():
		return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: publisher.absence()}
	}
	return outbox.Outcome{Class: outbox.ClassInfrastructure, Err: fmt.Errorf("send to broker: %w", err)}
}
