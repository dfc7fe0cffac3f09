package delivery_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
)

// TestLimits_WhatAnAppendLetsInTheBrokerTakes appends events at the edges of what
// the stream was provisioned for. Each is either refused, so that the business
// transaction sees it, or delivered: one that was let in and that the broker never
// takes would hold its shard up for ever, since the broker is then to blame.
func TestLimits_WhatAnAppendLetsInTheBrokerTakes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, patient())
	low, high := bundle.streams[0], bundle.streams[1]
	bundle.broker.update(ctx, t, low, func(config *jetstream.StreamConfig) { config.MaxMsgSize = smallMessage })
	numBytes := bundle.provision(ctx, t, low.Name)
	long := strings.Repeat("x", 260)

	staged := make(map[string]uuid.UUID)
	for name, tc := range map[string]struct {
		headers  map[string]string
		key      string
		numBytes int // of the payload
		stream   outbox.Stream
	}{
		"payload as large as may be":       {key: "k-1", numBytes: numBytes, stream: low},
		"key as long as may be":            {key: strings.Repeat("💚", 260), numBytes: numBytes, stream: low},
		"a trace state that is sent twice": {headers: map[string]string{"tracestate": strings.Repeat("x", numBytes-100)}, key: "k-2", stream: low},
		"all of that": {
			headers: map[string]string{"traceparent": long, "tracestate": strings.Repeat("x", numBytes-500)},
			key:     strings.Repeat("💙", 260), numBytes: 100, stream: low,
		},
		"headers beyond 64 KiB":                 {headers: map[string]string{"note": strings.Repeat("x", 70<<10)}, key: "k-3", stream: high},
		"headers beyond 64 KiB when sent twice": {headers: map[string]string{"tracestate": strings.Repeat("x", 40<<10)}, key: "k-4", stream: high},
	} {
		payload := json.RawMessage(`"` + strings.Repeat("x", max(0, tc.numBytes-2)) + `"`)
		id, err := bundle.append(ctx, tc.stream, outbox.Message{Headers: tc.headers, Key: tc.key, Payload: payload, Type: strings.Repeat("t", 128)})
		if err != nil {
			require.ErrorContains(t, err, "append to outbox stream "+tc.stream.Name)
			continue
		}
		staged[name] = id
	}
	bundle.start(ctx, t)
	for name, id := range staged {
		bundle.await(ctx, t, name+" is sent", func() bool { return bundle.row(ctx, t, id).Attempts > 0 })
		row := bundle.row(ctx, t, id)
		assert.Equal(t, "published", row.State, "%s: append let it in, and the broker says: %s", name, row.LastError)
	}
}

// TestLimits_WhatAnAppendLetsInArrivesAsItWas appends texts with characters that a
// header may lose. Each is either refused or arrives as it was: two keys of which
// consumers make one are one event that they drop.
func TestLimits_WhatAnAppendLetsInArrivesAsItWas(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t, patient())
	stream := bundle.streams[1]

	appended := make(map[string]outbox.Message)
	numRefused := 0
	for _, odd := range " \t\n\r\v\u007f\u0085\u00a0\u1680\u2003\u2028\u3000\ufeffé한💚%\"\\:;" {
		for _, text := range []string{string(odd) + "ab", "a" + string(odd) + "b", "ab" + string(odd)} {
			message := outbox.Message{Headers: map[string]string{"note": text}, Key: text, Payload: json.RawMessage(`{}`), Type: "odd.v1"}
			id, err := bundle.append(ctx, stream, message)
			if err != nil {
				require.ErrorContains(t, err, "append to outbox stream "+stream.Name+": key")
				message.Key = "k"
				_, err = bundle.append(ctx, stream, message)
				require.ErrorContains(t, err, "append to outbox stream "+stream.Name+": header note")
				numRefused++
				continue
			}
			appended[id.String()] = message
		}
	}
	require.GreaterOrEqual(t, len(appended), 30)
	require.Greater(t, numRefused, 30)
	bundle.start(ctx, t)
	bundle.requireDelivered(ctx, t, stream)
	for _, got := range bundle.broker.messages(ctx, t, stream) {
		require.Equal(t, appended[got.eventID].Key, got.key)
		require.Equal(t, appended[got.eventID].Headers["note"], got.header.Get("note"))
	}
}

func (bundle *testBundle) append(ctx context.Context, stream outbox.Stream, message outbox.Message) (id uuid.UUID, err error) {
	err = pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		id, err = outbox.Append(ctx, tx, stream.Name, message)
		return err
	})
	return id, err
}
