package reconcile

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// copySize is how many messages go to the database at once.
	copySize = 10_000

	// eventIDLength is the length of an event's id as text.
	eventIDLength = 36

	// maxTextBytes bounds what is kept of a header: more than any of ours has, so
	// that what somebody else publishes cannot fill the memory.
	maxTextBytes = 2048
)

// reader copies the broker's messages into reconcile_message.
type reader struct {
	batch        []Message
	conn         *pgx.Conn
	lastSequence uint64
	numMessages  int64
}

// read returns what of the stream is in the table now.
func (reader *reader) read(ctx context.Context, source Source, stream string) (Extent, error) {
	reader.batch = make([]Message, 0, copySize)
	extent, err := source.Read(ctx, stream, func(message Message) error { return reader.add(ctx, message) })
	if err != nil {
		return extent, fmt.Errorf("read the broker: %w", err)
	}
	switch {
	case extent.Name == "":
		return extent, fmt.Errorf("read the broker: the reader gave the stream no name")
	case extent.Last > math.MaxInt64 || extent.First > math.MaxInt64:
		return extent, fmt.Errorf("read the broker: places %d to %d are higher than can be compared", extent.First, extent.Last)
	case reader.lastSequence > extent.Last:
		return extent, fmt.Errorf("read the broker: the reader went on to place %d, behind the end at %d", reader.lastSequence, extent.Last)
	}
	return extent, reader.flush(ctx)
}

func (reader *reader) add(ctx context.Context, message Message) error {
	if message.Sequence <= reader.lastSequence {
		return fmt.Errorf("the reader gave place %d after place %d: places must rise", message.Sequence, reader.lastSequence)
	}
	if message.StoredAt.IsZero() {
		return fmt.Errorf("the reader gave no time for the message at place %d", message.Sequence)
	}
	reader.lastSequence = message.Sequence
	reader.numMessages++
	reader.batch = append(reader.batch, checked(message))
	if len(reader.batch) < copySize {
		return nil
	}
	return reader.flush(ctx)
}

// checked is message with its problem, and with texts that the database takes.
func checked(message Message) Message {
	if _, ok := eventID(message.EventID); !ok && message.Problem == "" {
		message.Problem = fmt.Sprintf("its id %.60q is no event's", message.EventID)
	}
	if message.KeySeq < 1 && message.Problem == "" {
		message.Problem = fmt.Sprintf("its number within its key is %d, below 1", message.KeySeq)
	}
	for _, text := range []*string{&message.Key, &message.Type, &message.Problem} {
		if kept := storable(*text); kept != *text {
			if message.Problem == "" {
				message.Problem = fmt.Sprintf("its headers have more than %d bytes, or what is no text", maxTextBytes)
			}
			*text = kept
		}
	}
	return message
}

func storable(text string) string {
	if len(text) > maxTextBytes {
		text = text[:maxTextBytes]
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	}
	return text
}

// eventID is false for what is not written as a row's event_id is.
func eventID(text string) (pgtype.UUID, bool) {
	if len(text) != eventIDLength {
		return pgtype.UUID{}, false
	}
	id, err := uuid.Parse(text)
	return pgtype.UUID{Bytes: id, Valid: err == nil}, err == nil
}

func (reader *reader) flush(ctx context.Context) error {
	columns := []string{"sequence", "event_id", "key", "key_seq", "problem", "stored_at", "type"}
	rows := pgx.CopyFromSlice(len(reader.batch), func(i int) ([]any, error) {
		message := &reader.batch[i]
		id, _ := eventID(message.EventID)
		problem := pgtype.Text{String: message.Problem, Valid: message.Problem != ""}
		return []any{int64(message.Sequence), id, message.Key, message.KeySeq, problem, message.StoredAt, message.Type}, nil
	})
	if _, err := reader.conn.CopyFrom(ctx, pgx.Identifier{"reconcile_message"}, columns, rows); err != nil {
		return fmt.Errorf("copy %d messages up to place %d: %w", len(reader.batch), reader.lastSequence, err)
	}
	reader.batch = reader.batch[:0]
	return nil
}
