// Package reconcile compares the outbox's rows with what the broker really holds,
// and says where the two disagree. It shares no code with the relay that it checks:
// it knows the view outbox_events, the broker's messages, and what completed
// publish jobs say of themselves.
//
// # How
//
// Streams are compared one after the other. The broker's messages are copied into
// temporary tables, then the rows in one snapshot, and both are compared in SQL, so
// that memory stays bounded however long the stream is: ten million messages take
// about 4 GB of temporary files on the database's disk for a while. It needs a
// session of its own, so it does not work through a pooler that shares sessions
// between transactions, and the right to make temporary tables.
//
// # Beside live traffic
//
// The broker is read first, up to where the stream ended at the start, and the rows
// afterwards. So each message that is read has its row in the snapshot, if it has
// one at all. What was published after the start is not missed, since it may lie
// behind the end. A message whose row is not marked yet counts as in flight until
// it is as old as [Options.Grace].
//
// # What is not compared
//
// Payloads and application headers; and events that are older than what either side
// keeps. A message that was removed by hand from the front of a stream looks like
// one that the broker's retention removed, where the stream has one that may have:
// see [Retention]. It is taken as it is now, so that what a shorter one removed
// before it was changed counts as lost.
package reconcile
