// Package natspublish publishes outbox events to NATS JetStream, as CloudEvents
// 1.0 in binary mode.
//
// Each outbox stream has a JetStream stream of its own: TRUEGREEN_WALLET covers
// truegreen.wallet.>, and so on. A message's subject ends in the event's type,
// its Nats-Msg-Id is the event's id, so that the broker drops what it already
// holds within the stream's duplicate window.
package natspublish
