package cli_test

import (
	"context"
	"time"

	"github.com/google/uuid"

	"truegreen/internal/cli"
)

const (
	firstEventID  = "0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70"
	secondEventID = "0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e71"
)

// fakeOutbox are answers about the outbox.
type fakeOutbox struct {
	decided       cli.OutboxDecided
	decisionTakes time.Duration
	outbox        []cli.StreamStatus
	parked        cli.OutboxParked
	reconciled    cli.OutboxReconciled
}

func (fake *fakeActions) OutboxDiscard(_ context.Context, decision cli.OutboxDecision) (cli.OutboxDecided, error) {
	<-time.After(fake.decisionTakes)
	return fake.decided, fake.call("discard %+v", decision)
}

func (fake *fakeActions) OutboxParked(_ context.Context, filter cli.OutboxFilter, limit int) (cli.OutboxParked, error) {
	return fake.parked, fake.call("parked %+v limit %d", filter, limit)
}

func (fake *fakeActions) OutboxPreview(_ context.Context, verb string, selection cli.OutboxSelection) (cli.OutboxDecided, error) {
	return fake.decided, fake.call("preview %s %+v", verb, selection)
}

func (fake *fakeActions) OutboxReconcile(_ context.Context, request cli.OutboxReconcileRequest) (cli.OutboxReconciled, error) {
	return fake.reconciled, fake.call("reconcile %+v", request)
}

func (fake *fakeActions) OutboxRedrive(_ context.Context, decision cli.OutboxDecision) (cli.OutboxDecided, error) {
	<-time.After(fake.decisionTakes)
	return fake.decided, fake.call("redrive %+v", decision)
}

func (fake *fakeActions) OutboxStatus(context.Context) ([]cli.StreamStatus, error) {
	return fake.outbox, fake.call("outbox status")
}

// noFilter is a filter that restricts nothing, as calls show it.
const noFilter = "{ErrorClass: Key: ParkedAfter:{Ago:0s At:0001-01-01 00:00:00 +0000 UTC} ParkedBefore:{Ago:0s At:0001-01-01 00:00:00 +0000 UTC} ParkReason: Stream: Type:}"

// sampleParkedEvent is an event that the broker refused for good.
func sampleParkedEvent() cli.OutboxParkedEvent {
	return cli.OutboxParkedEvent{
		Attempts:       3,
		CreatedAt:      time.Date(2026, 11, 9, 2, 0, 0, 0, time.UTC),
		EventID:        uuid.MustParse(firstEventID),
		Failures:       1,
		Key:            "p-1/KRW",
		KeySeq:         7,
		LastError:      "too\nlarge",
		LastErrorClass: "permanent",
		ParkedAge:      65 * time.Minute,
		ParkedAt:       time.Date(2026, 11, 9, 2, 0, 5, 0, time.UTC),
		ParkPolicy:     cli.ParkPolicyBlock,
		ParkReason:     "permanent",
		Stream:         "wallet",
		Type:           "wallet.credited.v1",
	}
}

const sampleParkedEventJSON = `{
	"attempts": 3, "created_at": "2026-11-09T02:00:00Z", "event_id": "` + firstEventID + `", "failures": 1, "key": "p-1/KRW",
	"key_seq": 7, "last_error": "too\nlarge", "last_error_class": "permanent", "park_policy": "block", "park_reason": "permanent",
	"parked_age_ms": 3900000, "parked_at": "2026-11-09T02:00:05Z", "stream": "wallet", "type": "wallet.credited.v1"
}`
