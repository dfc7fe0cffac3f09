// Package timewindow cuts time into the periods that are settled: days, ISO
// weeks and months of a time zone's wall clock, as half-open spans of instants.
//
// # The start of a day
//
// A local day starts at the first instant at which the zone's clocks show its
// date, or a later one, and a period starts where its first day does. So periods
// abut without a gap or an overlap, whatever the clocks do:
//
//   - A day with a change of clocks has 23 or 25 hours, or as many as it has.
//   - Where midnight is skipped, the day starts at the change: at 01:00 in
//     America/Sao_Paulo on 2017-10-15.
//   - Where midnight comes twice, the first one counts. Clocks that went back
//     at 00:01, as in America/St_Johns until 2011, showed the old date for
//     another hour; that hour belongs to the new day.
//   - A date that never was, such as 2011-12-30 in Pacific/Apia, has no period:
//     its neighbours abut. A week or a month that lacks a day is that much
//     shorter.
//
// # Quarter hours
//
// Sums of activity are kept per quarter hour of UTC, so every boundary lies on
// one: a day whose first instant does not starts at the next. Since 1973 that
// was needed in Pacific/Kiritimati alone, whose clocks were 10:40 hours behind
// UTC until October 1979. Earlier such offsets were many, hence no period starts
// before 1973-01-01.
//
// The rules of zones are those of the host, else those built into the binary.
// A government may change them: spans that are past are stored, never recomputed.
//
// Every error of this package is about its input, and stays the same when asked
// again.
package timewindow
