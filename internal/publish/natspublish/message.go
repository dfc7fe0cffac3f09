package natspublish

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"truegreen/internal/outbox"
)

// StreamName is the JetStream stream of an outbox stream.
func StreamName(stream string) string { return "TRUEGREEN_" + strings.ToUpper(stream) }

// subject is where an event of a type goes; subjects covers all of them.
func subject(stream, eventType string) string { return "truegreen." + stream + "." + eventType }
func subjects(stream string) string           { return "truegreen." + stream + ".>" }

// message makes a CloudEvent in binary mode of an event. The application's
// headers go along as they are.
//
// The header names follow the NATS binding of CloudEvents 1.0; sequence and
// partitionkey are extensions that the CloudEvents project documents.
func message(event *outbox.Event) *nats.Msg {
	// One array for all values: this runs once per event and attempt.
	values := [...]string{
		"1.0",
		event.EventID.String(),
		event.Type,
		"/truegreen/" + event.Stream,
		event.Key,
		strconv.FormatInt(event.KeySeq, 10),
		event.CreatedAt.UTC().Format(time.RFC3339Nano),
		"application/json",
		StreamName(event.Stream),
	}
	header := make(nats.Header, len(values)+3+len(event.Headers))
	for name, value := range event.Headers {
		header[name] = []string{value}
		if name == "traceparent" || name == "tracestate" {
			header["ce-"+name] = []string{value}
		}
	}
	header["ce-specversion"] = values[0:1:1]
	header["ce-id"] = values[1:2:2]
	header["ce-type"] = values[2:3:3]
	header["ce-source"] = values[3:4:4]
	header["ce-subject"] = values[4:5:5]
	header["ce-partitionkey"] = values[4:5:5]
	header["ce-sequence"] = values[5:6:6]
	header["ce-time"] = values[6:7:7]
	header["content-type"] = values[7:8:8]
	header["Nats-Msg-Id"] = values[1:2:2]
	// The broker refuses the message if another stream has taken the subject.
	header["Nats-Expected-Stream"] = values[8:9:9]
	return &nats.Msg{Data: event.Payload, Header: header, Subject: subject(event.Stream, event.Type)}
}
