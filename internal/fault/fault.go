// Package fault names the kinds of failure that a caller can act on. An error
// without a kind is internal: it is retried, and only operators see its text.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what a caller can do about a failure.
type Kind string

// The kinds. There are no others.
const (
	// KindInvalid: the input is wrong and will be wrong again; mend it.
	KindInvalid Kind = "invalid"
	// KindNotFound: what the input names does not exist.
	KindNotFound Kind = "not_found"
	// KindNotReady: right, but too early; ask again later.
	KindNotReady Kind = "not_ready"
)

// Error is a failure of a known kind. Its text is meant for whoever sent the
// input. Find it in a chain with errors.As, or ask [Is].
type Error struct {
	Err  error // the text, and what it wraps; never nil
	Kind Kind
}

// Error returns the text without the kind.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns what the text was made from.
func (e *Error) Unwrap() error { return e.Err }

// Invalid returns an error of [KindInvalid] with a text as of fmt.Errorf, %w
// included.
func Invalid(format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf(format, args...), Kind: KindInvalid}
}

// NotFound returns an error of [KindNotFound] with a text as of fmt.Errorf.
func NotFound(format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf(format, args...), Kind: KindNotFound}
}

// NotReady returns an error of [KindNotReady] with a text as of fmt.Errorf.
func NotReady(format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf(format, args...), Kind: KindNotReady}
}

// Is reports whether the first [Error] in err's chain is of this kind.
func Is(err error, kind Kind) bool {
	var known *Error
	return errors.As(err, &known) && known.Kind == kind
}
