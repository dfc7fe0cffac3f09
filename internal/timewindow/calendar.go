package timewindow

import (
	"fmt"
	"iter"
	"strings"
	"time"
	_ "time/tzdata" // a host without zoneinfo shall know the zones too
)

// Kind says how long the periods of a calendar are.
type Kind string

// The kinds. There are no others.
const (
	Daily   Kind = "daily"
	Weekly  Kind = "weekly"  // from Monday, as ISO 8601 has it
	Monthly Kind = "monthly" // from the first of the month
)

const (
	// maxOffset is more than any zone's clocks ever differed from UTC.
	maxOffset = 16 * time.Hour
	// quarter is what sums of activity are kept by.
	quarter = 15 * time.Minute
)

// maxZoneLength is above that of every name in the database of zones.
const maxZoneLength = 64

// Calendar is the endless row of periods of one kind in one zone. Make it with
// [NewCalendar]; the zero Calendar panics. It may be used from several
// goroutines at once.
type Calendar struct {
	kind     Kind
	location *time.Location
}

// NewCalendar returns the calendar of a kind and of a zone, which goes by its
// name in the IANA database, such as Asia/Seoul. Fails for an unknown kind or
// zone, and for names that mean another zone on another host ("Local") or none
// at all ("").
func NewCalendar(kind Kind, zone string) (Calendar, error) {
	switch kind {
	case Daily, Weekly, Monthly:
	default:
		return Calendar{}, fmt.Errorf("period %q must be daily, weekly, or monthly", kind)
	}
	if !isZoneName(zone) {
		return Calendar{}, fmt.Errorf("time zone %q must be the IANA name of a zone, such as Asia/Seoul", zone)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return Calendar{}, fmt.Errorf("time zone %q is unknown: give an IANA name, such as Asia/Seoul: %w", zone, err)
	}
	return Calendar{kind: kind, location: location}, nil
}

// isZoneName is false for what a host may have beside the zones: localtime,
// posixrules, posix/…, and right/…, whose clocks count leap seconds.
func isZoneName(zone string) bool {
	if zone == "" || zone == "Local" || len(zone) > maxZoneLength || zone[0] < 'A' || zone[0] > 'Z' {
		return false
	}
	return !strings.ContainsFunc(zone, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+-", r)
	})
}

// Kind returns the kind of the periods.
func (calendar Calendar) Kind() Kind { return calendar.kind }

// Zone returns the name of the zone.
func (calendar Calendar) Zone() string { return calendar.location.String() }

// Containing returns the period that holds the instant: the zero Span if its
// first day would lie before 1973 or after 9999.
func (calendar Calendar) Containing(at time.Time) Span {
	first := calendar.firstDay(at)
	if first.year < MinYear || first.year > MaxYear {
		return Span{}
	}
	return calendar.span(first)
}

// ByKey returns the period of a key, as [Span.Key] has it: 2026-11-02 for a day,
// 2026-W45 for the ISO week of that number, 2026-11 for a month. Fails for any
// other form, for a period before 1973, and for one that does not exist, be it
// by the calendar or because the zone skipped that day.
func (calendar Calendar) ByKey(key string) (Span, error) {
	first, err := parseKey(calendar.kind, key)
	if err != nil {
		return Span{}, err
	}
	span := calendar.span(first)
	if span.isEmpty() {
		return Span{}, fmt.Errorf("period %q does not exist: %s skipped that day", key, calendar.Zone())
	}
	return span, nil
}

// From yields all periods whose first day is the given one or later, in order.
// There is no end to them before the year 9999 has: the caller stops. Days
// before 1973 count as its first.
func (calendar Calendar) From(day Day) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		if earliest := (Day{year: MinYear, month: time.January, day: 1}); day.Before(earliest) {
			day = earliest
		}
		first := first(calendar.kind, day)
		if first.Before(day) {
			first = next(calendar.kind, first)
		}
		for ; first.year <= MaxYear; first = next(calendar.kind, first) {
			span := calendar.span(first)
			if !span.isEmpty() && !yield(span) {
				return
			}
		}
	}
}

// LocalDay returns the day that the instant belongs to, whatever the calendar's
// kind. It is the date that the zone's clocks show, except in an hour that they
// show for a second time after midnight: that belongs to the later day.
func (calendar Calendar) LocalDay(at time.Time) Day {
	return Calendar{kind: Daily, location: calendar.location}.firstDay(at)
}

// StartOf returns the instant at which a day begins, whatever the calendar's kind: the
// first that LocalDay gives to it.
func (calendar Calendar) StartOf(day Day) time.Time { return calendar.start(day) }

// firstDay returns the first day of the period that holds the instant.
func (calendar Calendar) firstDay(at time.Time) Day {
	// The date that the clocks show may not have begun, where its start was put
	// off to a quarter hour; or be over, where they have shown a later one before.
	day := first(calendar.kind, dayOf(at.In(calendar.location)).plus(0, -1))
	for {
		following := next(calendar.kind, day)
		if at.Before(calendar.start(following)) {
			return day
		}
		day = following
	}
}

// span returns the period of a first day; an empty one if there is none.
func (calendar Calendar) span(first Day) Span {
	return Span{
		End:   calendar.start(next(calendar.kind, first)),
		Key:   formatKey(calendar.kind, first),
		Start: calendar.start(first),
	}
}

// start returns the first quarter hour of UTC at which the zone's clocks show the
// date, or a later one.
func (calendar Calendar) start(day Day) time.Time {
	// Looking at the clocks takes some microseconds and is right everywhere.
	// [time.Time.ZoneBounds] would be quicker, but on the last day of a leap year
	// after 2037 it puts the end of the bounds before the time itself.
	midnight := day.utc().Unix()
	at := midnight - int64(maxOffset/time.Second)
	for {
		now := time.Unix(at, 0)
		if _, offset := now.In(calendar.location).Zone(); at+int64(offset) >= midnight {
			return now.UTC()
		}
		at += int64(quarter / time.Second)
	}
}
