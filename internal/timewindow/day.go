package timewindow

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Years that a day, and the first day of a period, may lie in.
const (
	MinYear = 1973
	MaxYear = 9999
)

// Day is a date of the calendar, without a zone. Two days may be compared with
// ==. The zero Day is no date, and lies before every other.
type Day struct {
	year  int
	month time.Month
	day   int
}

// ParseDay reads a day as in 2026-10-01. Fails for any other form, for a date
// that the calendar lacks, and for one before 1973.
func ParseDay(text string) (Day, error) {
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return Day{}, fmt.Errorf("day %q must be a date of the calendar, such as 2026-10-01", text)
	}
	if at.Year() < MinYear {
		return Day{}, fmt.Errorf("day %q must not lie before %d", text, MinYear)
	}
	return dayOf(at), nil
}

// Before reports whether the day is earlier than other.
func (day Day) Before(other Day) bool { return day.Compare(other) < 0 }

// Compare returns -1, 0 or 1 as the day is earlier than, the same as, or later
// than other.
func (day Day) Compare(other Day) int {
	return cmp.Or(cmp.Compare(day.year, other.year), cmp.Compare(day.month, other.month), cmp.Compare(day.day, other.day))
}

// IsZero reports whether the day is no date.
func (day Day) IsZero() bool { return day == Day{} }

// String returns the form that [ParseDay] reads; 0000-00-00 for the zero Day.
func (day Day) String() string {
	return fmt.Sprintf("%04d-%02d-%02d", day.year, day.month, day.day)
}

// MarshalText returns the form of [Day.String]. Fails for the zero Day.
func (day Day) MarshalText() ([]byte, error) {
	if day.IsZero() {
		return nil, errors.New("the day is not set")
	}
	return []byte(day.String()), nil
}

// UnmarshalText reads what [ParseDay] reads.
func (day *Day) UnmarshalText(text []byte) error {
	parsed, err := ParseDay(string(text))
	if err != nil {
		return err
	}
	*day = parsed
	return nil
}

// dayOf returns the date that the time shows in its own zone.
func dayOf(at time.Time) Day {
	year, month, day := at.Date()
	return Day{year: year, month: month, day: day}
}

// utc returns the midnight of the date in UTC, for arithmetic with dates.
func (day Day) utc() time.Time {
	return time.Date(day.year, day.month, day.day, 0, 0, 0, 0, time.UTC)
}

// plus returns the date so many months and days later.
func (day Day) plus(months, days int) Day { return dayOf(day.utc().AddDate(0, months, days)) }
