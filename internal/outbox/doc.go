// Package outbox stores events in the transaction of their data change and
// publishes them to a broker, in order per key, with the broker's acknowledgement
// stored on the row.
//
// A publish job completes only when everything that it claimed carries an
// acknowledgement. An event that was not delivered always shows as an errored
// attempt of a job, and on its own row.
//
// The parts:
//
//   - [Append] and [AppendMany] store events. They call a SQL function, which is
//     the door for every other language too.
//   - [Relay] drains one shard of a stream: it leases the shard, claims due events,
//     hands them to a [Publisher] outside of any transaction, and marks each with
//     its own outcome.
//   - [Sweeper] assures that due events have a job. Wake-ups at append are hints,
//     the sweep is the guarantee.
//
// Events are delivered at least once: an event whose acknowledgement was lost is
// sent again with the same id, by which the broker and its consumers know it.
// Order holds for the first occurrence of each event of a key. Nothing is
// promised between keys.
package outbox
