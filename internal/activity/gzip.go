package activity

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"truegreen/internal/fault"
)

// gzipMagic are the first bytes of whatever is packed with gzip.
const gzipMagic = "\x1f\x8b"

// unzipper reads the members of a gzip file one after the other. The library does
// that by itself, but takes anything that follows them for one more, cut off.
type unzipper struct {
	member *gzip.Reader
	packed *bufio.Reader
}

func newUnzipper(packed *bufio.Reader) (*unzipper, error) {
	member, err := gzip.NewReader(packed)
	if err != nil {
		return nil, explainGzip(err)
	}
	member.Multistream(false)
	return &unzipper{member: member, packed: packed}, nil
}

// Read fails with [fault.KindInvalid] for what is damaged, cut off, or followed by
// something else.
func (u *unzipper) Read(p []byte) (int, error) {
	for {
		n, err := u.member.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if !errors.Is(err, io.EOF) {
			return 0, explainGzip(err)
		}
		if err := u.next(); err != nil {
			return 0, err
		}
	}
}

// next goes on to the next member. Fails with io.EOF when there is none.
func (u *unzipper) next() error {
	start, err := u.packed.Peek(len(gzipMagic))
	switch {
	case errors.Is(err, io.EOF) && len(start) == 0:
		return io.EOF
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read: %w", err)
	case !bytes.HasPrefix([]byte(gzipMagic), start):
		return fault.Invalid("the gzip data ends, and something else follows it in the file, starting with the bytes % x: remove that, or pack the file again", start)
	}
	if err := u.member.Reset(u.packed); err != nil {
		return explainGzip(err)
	}
	u.member.Multistream(false)
	return nil
}

func explainGzip(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Invalid("the gzip data ends too early: the file is cut off")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &corrupt):
		return fault.Invalid("the gzip data is damaged: %w", err)
	default:
		return fmt.Errorf("read: %w", err)
	}
}
