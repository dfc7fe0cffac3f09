package activity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

// Bounds of [ImportOptions.BatchSize].
const (
	DefaultBatchSize = 5_000
	MaxBatchSize     = 50_000
)

// ImportOptions say how a file is imported. The zero value is good.
type ImportOptions struct {
	// BatchSize is how many lines a transaction takes, from 1 to 50,000. The
	// outcome does not depend on it. Defaults to 5,000.
	BatchSize int

	// Progress, if given, is called after each batch, by the caller's goroutine.
	Progress func(ImportProgress)
}

// ImportProgress is how far an import has come.
type ImportProgress struct {
	NumBytes int64 // read from the source, as they are there, a little ahead of the lines
	NumLines int64 // applied
}

// ImportResult is what an import did.
type ImportResult struct {
	Result

	NumBatches int64
	Refused    []Refused // the first of them, at most MaxRefused
}

// ImportError says where an import stopped. All lines up to LastApplied are
// applied and stay so, none after it is. Once the cause is mended, the same file
// is imported again; the lines that were applied change nothing then.
type ImportError struct {
	Err         error
	LastApplied int64  // number of the last line applied, 0 for none
	Line        int64  // number of the line that is wrong, 0 if it is no line's fault
	Name        string // of the file
}

// Error names file, line, reason, and how to go on.
func (e *ImportError) Error() string {
	place := e.Name
	if e.Line > 0 {
		place = fmt.Sprintf("%s, line %d", e.Name, e.Line)
	}
	state := "no line of it is applied"
	if e.LastApplied > 0 {
		state = fmt.Sprintf("the last line applied is %d", e.LastApplied)
	}
	return fmt.Sprintf("%s: %s; %s; once that is fixed, import the same file again", place, e.Err, state)
}

// Unwrap returns the reason.
func (e *ImportError) Unwrap() error { return e.Err }

// Import applies the lines of a file in batches, each in a transaction of its
// own, in their order. name is the file's, for messages; see [NewReader] for
// what source may hold. Reading and parsing run ahead while a batch is applied,
// so source may still be read from for a moment after Import has failed.
//
// Fails with an [ImportError]. The batch that holds a bad line is rolled back
// whole. Importing a file again is harmless.
func (service *Service) Import(
	ctx context.Context, db pgtx.Beginner, name string, source io.Reader, options ImportOptions,
) (ImportResult, error) {
	if options.BatchSize == 0 {
		options.BatchSize = DefaultBatchSize
	}
	if options.BatchSize < 1 || options.BatchSize > MaxBatchSize {
		return ImportResult{}, fault.Invalid("batch size must be from 1 to %d, got %d", MaxBatchSize, options.BatchSize)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	counted := &countingReader{source: source}
	var result ImportResult
	var lastApplied int64
	chunks := readChunks(ctx, name, counted, options.BatchSize)
	for {
		next, err := receive(ctx, chunks)
		switch {
		case err != nil:
			return result, &ImportError{Err: err, LastApplied: lastApplied, Name: name}
		case next == nil:
			return result, nil
		case next.err != nil:
			return result, &ImportError{Err: next.err, LastApplied: lastApplied, Line: next.errLine, Name: name}
		}
		applied, refusals, err := service.submit(ctx, db, next.lines)
		if err != nil {
			return result, next.failed(err, name, lastApplied)
		}
		result.add(applied)
		result.NumBatches++
		for _, refusal := range refusals[:min(len(refusals), MaxRefused-len(result.Refused))] {
			refusal.Line = next.numbers[refusal.Index]
			result.Refused = append(result.Refused, refusal)
		}
		lastApplied = next.numbers[len(next.numbers)-1]
		if options.Progress != nil {
			options.Progress(ImportProgress{NumBytes: counted.num.Load(), NumLines: result.NumLines})
		}
	}
}

// chunk is a batch of lines with their numbers, or what came instead of one.
type chunk struct {
	err     error
	errLine int64 // 0 if err is no line's fault
	lines   []Line
	numbers []int64
}

// failed is the error of a chunk that could not be applied.
func (c *chunk) failed(err error, name string, lastApplied int64) *ImportError {
	failed := &ImportError{Err: err, LastApplied: lastApplied, Name: name}
	var lineErr *LineError
	if errors.As(err, &lineErr) {
		failed.Err, failed.Line = lineErr.Err, c.numbers[lineErr.Index]
		return failed
	}
	failed.Err = fmt.Errorf("apply lines %d to %d: %w", c.numbers[0], c.numbers[len(c.numbers)-1], err)
	return failed
}

// readChunks reads ahead by up to two chunks. The channel is closed at the end,
// behind an error, or when ctx is done.
func readChunks(ctx context.Context, name string, source io.Reader, size int) <-chan *chunk {
	chunks := make(chan *chunk, 1)
	go func() {
		defer close(chunks)
		reader, err := NewReader(name, source)
		if err != nil {
			send(ctx, chunks, &chunk{err: err})
			return
		}
		for more := true; more; {
			var next *chunk
			next, more = readChunk(reader, size)
			if len(next.lines) == 0 && next.err == nil {
				return
			}
			if !send(ctx, chunks, next) {
				return
			}
		}
	}()
	return chunks
}

// receive waits for the next chunk, nil at the end, but no longer than for ctx:
// the source may block for ever, as a terminal does.
func receive(ctx context.Context, chunks <-chan *chunk) (*chunk, error) {
	select {
	case next := <-chunks:
		// The channel is also closed when ctx was done before the end.
		if next != nil || ctx.Err() == nil {
			return next, nil
		}
	case <-ctx.Done():
	}
	return nil, fmt.Errorf("wait for lines: %w", ctx.Err())
}

func send(ctx context.Context, chunks chan<- *chunk, next *chunk) bool {
	select {
	case chunks <- next:
		return true
	case <-ctx.Done():
		return false
	}
}

func readChunk(reader *Reader, size int) (next *chunk, more bool) {
	next = &chunk{lines: make([]Line, 0, size), numbers: make([]int64, 0, size)}
	for len(next.lines) < size {
		line, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return next, false
		case err != nil:
			next.err, next.errLine = err, reader.Number()
			return next, false
		}
		next.lines = append(next.lines, line)
		next.numbers = append(next.numbers, reader.Number())
	}
	return next, true
}

// countingReader counts what is read through it.
type countingReader struct {
	num    atomic.Int64
	source io.Reader
}

func (counted *countingReader) Read(p []byte) (int, error) {
	n, err := counted.source.Read(p)
	counted.num.Add(int64(n))
	return n, err
}
