package natspublish_test

import (
	"encoding/json"
	"mime"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

var (
	attributeName = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
	decimal       = regexp.MustCompile(`^[1-9][0-9]*$`)
)

// TestPublisher_Publish_CloudEvents reads messages by the rules of CloudEvents 1.0 and of
// its NATS binding, by nothing that this package knows.
func TestPublisher_Publish_CloudEvents(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bundle := setup(ctx, t)
	plain := event("p-1/KRW", 12)
	traced := event("한글/é", 1)
	traced.Headers = map[string]string{"tenant": "x", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1,b=2"}
	marker := event("p-2/KRW", 3)
	marker.Type = "truegreen.gap.v1"
	scalar := event("p-3/KRW", 1)
	scalar.Payload = json.RawMessage(`null`)
	events := append([]outbox.Event{plain, traced, marker, scalar}, chain(300)...) // and some that go in a batch
	mustPublish(ctx, t, bundle.publisher, events...)

	sent := make(map[string]outbox.Event)
	for _, one := range events {
		sent[one.EventID.String()] = one
	}
	for _, message := range bundle.messages(ctx, t) {
		attributes := attributesOf(t, message)
		want := sent[attributes["id"]]
		require.NotEmpty(t, want.Key)
		delete(sent, attributes["id"])
		require.Equal(t, want.Key, attributes["subject"])
		require.Equal(t, want.Key, attributes["partitionkey"])
		require.Equal(t, want.Type, attributes["type"])
		require.Regexp(t, decimal, attributes["keysequence"])
		require.JSONEq(t, string(want.Payload), string(message.Data()))
		require.NotContains(t, attributes, "sequence", "that is scoped to the source, and ordered as text")
		for _, name := range []string{"traceparent", "tracestate"} {
			require.Equal(t, want.Headers[name], attributes[name])
		}
	}
	require.Empty(t, sent)
}

// attributesOf are the context attributes of a message in binary mode, each of which
// follows the rules.
func attributesOf(t *testing.T, message jetstream.Msg) map[string]string {
	t.Helper()
	attributes := make(map[string]string)
	for header, values := range message.Headers() {
		name, isAttribute := strings.CutPrefix(header, "ce-")
		if !isAttribute {
			continue
		}
		require.Regexp(t, attributeName, name)
		require.Len(t, values, 1, name)
		require.NotEmpty(t, values[0], name)
		require.Equal(t, strings.TrimSpace(values[0]), values[0], name)
		require.NotContains(t, strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return '!'
			}
			return '.'
		}, values[0]), "!", name)
		attributes[name] = values[0]
	}
	for _, name := range []string{"id", "source", "specversion", "type"} {
		require.Contains(t, attributes, name, "it is required")
	}
	require.Equal(t, "1.0", attributes["specversion"])
	_, err := url.Parse(attributes["source"])
	require.NoError(t, err, "a URI-reference")
	_, err = time.Parse(time.RFC3339, attributes["time"])
	require.NoError(t, err)
	mediaType, _, err := mime.ParseMediaType(attributes["datacontenttype"])
	require.NoError(t, err)
	require.Equal(t, "application/json", mediaType)
	require.Equal(t, []string{attributes["datacontenttype"]}, message.Headers()["content-type"], "and so it is no event in structured mode")
	require.True(t, json.Valid(message.Data()))
	return attributes
}
