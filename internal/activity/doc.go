// Package activity takes what players' platforms report, one JSON object per
// line, and applies it: agents, players, payments, bets, their results and
// voids, and watermarks that say up to when a source has sent everything.
//
// [ParseLine] and [Line.AppendJSON] are the two directions of the format.
// [Service.Apply] applies lines within a caller's transaction, all or nothing;
// [Service.Import] applies a whole file in batches. Both do exactly what
// applying the lines one by one in their order would do, however they are cut
// into batches, and both may be repeated: a line that was applied before
// changes nothing.
package activity
