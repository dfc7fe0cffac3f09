package natspublish

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrUnreachable says that the broker did not answer: it may be away for now.
var ErrUnreachable = errors.New("the broker does not answer")

// ErrCredentials says that the broker is there and does not let us in, which may
// be mended while we wait: an error that is this one is [ErrUnreachable] too.
var ErrCredentials = errors.New("the broker refuses the credentials in its URL")

// credentialsError is both errors, and reads as one of them alone.
type credentialsError struct{ cause error }

// Error says what the broker said.
func (e *credentialsError) Error() string { return fmt.Sprintf("%s: %s", ErrCredentials, e.cause) }

// Is makes it both kinds.
func (e *credentialsError) Is(target error) bool {
	return target == ErrCredentials || target == ErrUnreachable
}

// Unwrap returns what the broker said.
func (e *credentialsError) Unwrap() error { return e.cause }

// absence says why there is no connection.
func (publisher *Publisher) absence() error {
	if err := publisher.credentialsError(); err != nil {
		return err
	}
	if _, cause := publisher.whyNotConnected(); !errors.Is(cause, errNotConnected) {
		return fmt.Errorf("%w: %w", errNotConnected, cause)
	}
	return errNotConnected
}

// credentialsError is not nil if the last attempt to connect was not let in.
func (publisher *Publisher) credentialsError() error {
	attempts := []error{publisher.conn.LastError()}
	if last := publisher.lastError.Load(); last != nil {
		attempts = append(attempts, *last)
	}
	for _, err := range attempts {
		for _, kind := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
			if errors.Is(err, kind) {
				return &credentialsError{cause: kind}
			}
		}
	}
	return nil
}

// explained adds to the absence of an answer what may be the reason for it.
func (publisher *Publisher) explained(err error) error {
	last := publisher.conn.LastError()
	if errors.Is(last, nats.ErrPermissionViolation) {
		return fmt.Errorf("%w; the broker said before: %w", err, last)
	}
	return err
}

// reachError turns the client's ways of saying that nobody answers into one.
func (publisher *Publisher) reachError(err error) error {
	var apiErr *jetstream.APIError
	switch {
	case errors.As(err, &apiErr):
		return err
	case !publisher.conn.IsConnected():
		if refused := publisher.credentialsError(); refused != nil {
			return refused
		}
		// Not err, which is what the client makes of a message that it cannot send.
		_, cause := publisher.whyNotConnected()
		return fmt.Errorf("%w: %w", ErrUnreachable, cause)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnreachable, publisher.explained(err))
	}
	return err
}

// maxBatchedBytes is how large an event may be to go in a batch: a larger one is
// answered for itself, and there are never few of them in one.
func (publisher *Publisher) maxBatchedBytes() int {
	return min(int(publisher.conn.MaxPayload())-envelopeBytes, maxBatchBytes/8)
}
