// Package settle kills processes that settle promotions, at each step of a settlement, of
// the retry of what it left and of its adjustment, and shows that every wallet is
// credited exactly once for it.
//
// Its tests run the real workers in processes of their own, on a real Postgres. Such a
// process kills itself, or stops, around a statement that its orders name: a tracer of
// the database's statements does it, so that the product needs no hooks. A proxy in
// front of the database cuts a connection between a commit and its answer. A second
// process goes on after River's own rescue.
//
// What is owed is worked out by the test itself. TRUEGREEN_PROOF=1 lets far more
// processes die.
package settle
