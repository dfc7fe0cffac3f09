package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
)

// Message is an event to be stored.
type Message struct {
	Headers map[string]string // may be nil; W3C traceparent goes here
	Key     string            // the ordering key
	KeySeq  int64             // the aggregate's version for wallet; 0 for counted streams
	Payload json.RawMessage
	Type    string // such as wallet.credited.v1
}

var noHeaders = json.RawMessage(`{}`)

// Append stores message in tx and assures a publish job for it. Rolled back,
// nothing of it stays. It returns the event's id.
//
// It fails when the stream would not take the message: see the comment on the
// SQL function outbox_append. tx is then aborted, as after any SQL error.
func Append(ctx context.Context, tx pgx.Tx, stream string, message Message) (uuid.UUID, error) {
	headers, err := encodeHeaders(message.Headers)
	if err != nil {
		return uuid.Nil, fmt.Errorf("append %s to outbox stream %s: %w", message.Type, stream, err)
	}
	params := &dbsqlc.OutboxEventAppendParams{
		Headers: headers,
		Key:     message.Key,
		Payload: message.Payload,
		Stream:  stream,
		Type:    message.Type,
	}
	if message.KeySeq != 0 {
		params.KeySeq = &message.KeySeq
	}
	eventID, err := queries.OutboxEventAppend(ctx, tx, params)
	if err != nil {
		return uuid.Nil, fmt.Errorf("append %s to outbox stream %s: %w", message.Type, stream, err)
	}
	return eventID, nil
}

// AppendMany stores messages of one stream in tx, in their order, in one round
// trip; all or none. It returns their ids in that order. It fails as [Append]
// does, and names the first message that is refused, counted from 1.
func AppendMany(ctx context.Context, tx pgx.Tx, stream string, messages []Message) ([]uuid.UUID, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	params := &dbsqlc.OutboxEventAppendManyParams{
		Headers:  make([]json.RawMessage, len(messages)),
		Keys:     make([]string, len(messages)),
		Payloads: make([]json.RawMessage, len(messages)),
		Stream:   stream,
		Types:    make([]string, len(messages)),
	}
	for i, message := range messages {
		headers, err := encodeHeaders(message.Headers)
		if err != nil {
			return nil, fmt.Errorf("append %s to outbox stream %s: %w", message.Type, stream, err)
		}
		params.Headers[i] = headers
		params.Keys[i] = message.Key
		params.Payloads[i] = message.Payload
		params.Types[i] = message.Type
		if message.KeySeq != 0 {
			if params.KeySeqs == nil {
				params.KeySeqs = make([]int64, len(messages))
			}
			params.KeySeqs[i] = message.KeySeq
		}
	}
	eventIDs, err := queries.OutboxEventAppendMany(ctx, tx, params)
	if err != nil {
		return nil, fmt.Errorf("append %d events to outbox stream %s: %w", len(messages), stream, err)
	}
	return eventIDs, nil
}

func encodeHeaders(headers map[string]string) (json.RawMessage, error) {
	if len(headers) == 0 {
		return noHeaders, nil
	}
	encoded, err := json.Marshal(headers)
	if err != nil {
		return nil, fmt.Errorf("encode headers: %w", err)
	}
	return encoded, nil
}
