// Package crash kills processes that drain the outbox, at each step of a drain,
// and shows that nothing is lost, made up or out of order for it.
//
// Its tests run the real relay in processes of their own, on a real Postgres and a
// real JetStream. Such a process kills itself, or stops, where its orders say so:
// in a publisher that wraps the real one, or in a tracer of the database's
// statements, so that the product needs no hooks for it. A proxy in front of the
// broker withholds acknowledgements. Meanwhile the test goes on appending, in
// transactions of its own.
//
// What the last process leaves is judged by a checker that shares no code with the
// outbox, and by the product's own. Further tests damage a small world to show
// that the checker would see it.
//
// TRUEGREEN_PROOF=1 lets far more processes die.
package crash
