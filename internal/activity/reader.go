package activity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"truegreen/internal/fault"
)

// MaxLineBytes bounds a line, its newline included.
const MaxLineBytes = 64 * 1024

// Reader reads lines of activity one after the other.
type Reader struct {
	number int64
	source *bufio.Reader
}

// NewReader returns a Reader of plain or gzipped JSON Lines. Gzip is recognised
// by its first two bytes; a name that ends in .gz demands it.
//
// Fails with [fault.KindInvalid] when the source begins like gzip, or should,
// and is none, and with the source's own error.
func NewReader(name string, source io.Reader) (*Reader, error) {
	reader := &Reader{source: bufio.NewReaderSize(source, MaxLineBytes)}
	start, err := reader.source.Peek(len(gzipMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read: %w", err)
	}
	if string(start) != gzipMagic {
		if strings.HasSuffix(name, ".gz") {
			return nil, fault.Invalid("not gzip, though its name says so")
		}
		return reader, nil
	}
	unzipped, err := newUnzipper(reader.source)
	if err != nil {
		return nil, err
	}
	reader.source = bufio.NewReaderSize(unzipped, MaxLineBytes)
	return reader, nil
}

// Read returns the next line. Blank lines are passed over. At the end it fails
// with io.EOF; with [fault.KindInvalid] for a line that is none, or a gzip
// stream that is damaged or ends too early; with the source's own error
// otherwise. [Reader.Number] says where it was.
func (reader *Reader) Read() (Line, error) {
	for {
		reader.number++
		text, err := reader.source.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return Line{}, fault.Invalid("longer than %d bytes", MaxLineBytes)
		case errors.Is(err, io.EOF) && len(text) == 0:
			return Line{}, io.EOF
		case fault.Is(err, fault.KindInvalid):
			return Line{}, err //nolint:wrapcheck // of the unzipper, which says what is wrong
		case err != nil && !errors.Is(err, io.EOF):
			return Line{}, fmt.Errorf("read: %w", err)
		}
		if len(bytes.TrimSpace(text)) > 0 {
			return ParseLine(bytes.TrimSuffix(text, []byte("\n")))
		}
	}
}

// Number is the number of the line read last, from 1, blank ones counted.
func (reader *Reader) Number() int64 { return reader.number }
