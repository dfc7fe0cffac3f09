// Package freshness answers one question: does everything that must keep
// happening make progress, and is this process part of it?
//
// The parts:
//
//   - [Loop] is one thing that must keep happening, and how late it may be. Every
//     process registers all loops with [Registry.Register], so that a loop which
//     never ran is missed rather than forgotten.
//   - [Recorder] stores what a pass achieved, in the transaction of its effect;
//     [Completes] joins that with the end of the pass's job, behind a fence.
//   - The view worker_freshness judges each loop by the database's clock; [ReadLoops]
//     reads it.
//   - [Process] watches this process's own queues from inside River.
//   - [Monitor] joins both into readiness, liveness and start-up. [Evaluate] holds
//     its rules, without clock or database.
//
// No worker's clock has a part in any of it: ages of loops are the database's,
// ages within a process are those of its monotonic clock.
package freshness
