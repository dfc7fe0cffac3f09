package natspublish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"truegreen/internal/outbox"
)

const (
	// proofType is the type of the message that asks. An application's events of that
	// type would be published like any others.
	proofType = "truegreen.proof.v1"

	// noStream is a name that no stream can have: a message that expects it is refused
	// after everything else about it was checked, and never stored.
	noStream = "no.stream"
)

// violation is a permission that the broker denied.
type violation struct {
	at  time.Time
	err error
}

func newViolation(err error) *violation {
	return &violation{
		at:  time.Now(),
		err: errors.New(strings.TrimPrefix(err.Error(), nats.ErrPermissionViolation.Error()+": ")),
	}
}

// Prove asks whether the stream is as it was provisioned, and whether this process may
// publish to it; see [outbox.Publisher]. The second question is a message of type
// [proofType] that the broker refuses to store.
func (publisher *Publisher) Prove(ctx context.Context, stream outbox.Stream) error {
	askedAt := time.Now()
	err := publisher.prove(ctx, stream)
	if err == nil {
		return nil
	}
	failure := &outbox.BrokerError{Address: publisher.address(), Err: err, Refused: true}
	denied := publisher.denied.Load()
	switch {
	case !publisher.conn.IsConnected():
		failure.Refused, failure.Err = publisher.whyNotConnected()
	case denied != nil && !denied.at.Before(askedAt):
		failure.Err = denied.err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errConnectionBroke):
		failure.Err, failure.Refused = errNoProof, false
	default:
		failure.Refused = !isTransient(err)
	}
	return failure
}

var (
	errConnectionBroke = errors.New("the connection broke")
	errNoProof         = errors.New("no answer in time")
)

func (publisher *Publisher) prove(ctx context.Context, stream outbox.Stream) error {
	if !publisher.conn.IsConnected() {
		return errNotConnected
	}
	_, err := publisher.Inspect(ctx, StreamSpec{
		MaxEventBytes: stream.MaxEventBytes, MinDuplicates: publisher.minDuplicates, Stream: stream.Name,
	})
	if err != nil {
		return err
	}
	return publisher.askToPublish(ctx, stream.Name)
}

// askToPublish sends what must be refused, and waits for the refusal.
func (publisher *Publisher) askToPublish(ctx context.Context, stream string) error {
	box := publisher.inbox.open()
	defer box.close()
	msg := nats.NewMsg(subject(stream, proofType))
	msg.Header.Set(headerExpectedStream, noStream)
	msg.Reply = box.prefix + "proof"
	if err := publisher.conn.PublishMsg(msg); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		select {
		case <-box.arrived:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // by the caller
		}
		answers, lost := box.take(nil)
		if len(answers) > 0 {
			return readProof(answers[0].msg, stream)
		}
		if lost {
			return errConnectionBroke
		}
	}
}

// readProof returns nil if the broker's only objection is the one that was asked for.
func readProof(msg *nats.Msg, stream string) error {
	_, err := readAnswer(msg, StreamName(stream))
	var apiErr *jetstream.APIError
	switch {
	case err == nil:
		return fmt.Errorf("it stored a message on %s that expects another stream", subject(stream, proofType))
	case errors.As(err, &apiErr) && apiErr.ErrorCode == codeExpectedStreamMismatch:
		return nil
	}
	return err
}

// isTransient says that the broker answered only that it cannot answer now: it has no
// leader, is too busy, or restarts.
func isTransient(err error) bool {
	var apiErr *jetstream.APIError
	return errors.As(err, &apiErr) && (apiErr.Code >= http.StatusInternalServerError || apiErr.Code == http.StatusTooManyRequests) &&
		apiErr.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabled && apiErr.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabledForAccount
}

// whyNotConnected is the cause of the last failed attempt to connect, and whether it was
// a refusal.
func (publisher *Publisher) whyNotConnected() (isRefusal bool, cause error) {
	var refused *credentialsError
	if errors.As(publisher.credentialsError(), &refused) {
		return true, fmt.Errorf("the credentials in its URL: %w", refused.cause)
	}
	last := publisher.lastError.Load()
	switch {
	case last == nil:
		return false, errNotConnected
	case errors.Is(*last, nats.ErrNoServers):
		return false, errors.New("connection refused") // all that the client says of it at its first attempt
	}
	return false, withoutURL(*last)
}

// address is the server that this process is connected to, or those that it tries.
func (publisher *Publisher) address() string {
	if connected := publisher.conn.ConnectedAddr(); connected != "" {
		return connected
	}
	var hosts []string
	for server := range strings.SplitSeq(publisher.servers, ",") {
		if parsed, err := url.Parse(strings.TrimSpace(server)); err == nil {
			hosts = append(hosts, parsed.Host)
		}
	}
	return strings.Join(hosts, ", ")
}
