// Package cli is the face of truegreen in a terminal: commands, flags, what they
// print and how they exit. It decides nothing: every command calls one method of
// [Actions].
//
// Results go to standard output, one document of JSON with --json; errors and
// progress go to standard error. The exit codes are [ExitGood], [ExitWrongUsage]
// and [ExitFailed]; status, audit, outbox status, outbox reconcile and settlement
// run have further ones.
package cli
