// Package delivery has no code of its own, only tests of what the outbox promises
// when delivering fails: with all events of a pass failing, with some, and with
// none, on each stream, against a real broker that really refuses, goes away, is
// full, or whose answers get lost on the way.
//
// Each test reads the three witnesses: the job and its errors, the events'
// rows, and the broker's stream from its first message on.
package delivery
