package timewindow

import (
	"fmt"
	"time"
)

// Span is one period: the instants from Start up to, but without, End. Both are in
// UTC and on whole quarter hours, and Start is before End, in every period that
// this package returns.
type Span struct {
	End   time.Time
	Key   string // as of [Calendar.ByKey]
	Start time.Time
}

// Contains reports whether the instant lies in the period.
func (span Span) Contains(at time.Time) bool {
	return !at.Before(span.Start) && at.Before(span.End)
}

func (span Span) isEmpty() bool { return !span.Start.Before(span.End) }

// first returns the first day of the period of a kind that holds the day.
func first(kind Kind, day Day) Day {
	switch kind {
	case Weekly:
		sinceMonday := (day.utc().Weekday() - time.Monday + 7) % 7
		return day.plus(0, -int(sinceMonday))
	case Monthly:
		day.day = 1
		return day
	default:
		return day
	}
}

// next returns the first day of the period after the one that begins with day.
func next(kind Kind, day Day) Day {
	switch kind {
	case Weekly:
		return day.plus(0, 7)
	case Monthly:
		return day.plus(1, 0)
	default:
		return day.plus(0, 1)
	}
}

// formatKey returns the key of the period that begins with the day.
func formatKey(kind Kind, first Day) string {
	switch kind {
	case Weekly:
		year, week := first.utc().ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	case Monthly:
		return fmt.Sprintf("%04d-%02d", first.year, first.month)
	default:
		return first.String()
	}
}

// parseKey returns the first day of the period of a key.
func parseKey(kind Kind, key string) (Day, error) {
	switch kind {
	case Weekly:
		return parseWeek(key)
	case Monthly:
		return parseMonth(key)
	default:
		day, err := ParseDay(key)
		if err != nil {
			return Day{}, fmt.Errorf("read the key of a daily period: %w", err)
		}
		return day, nil
	}
}

func parseWeek(key string) (Day, error) {
	year, week, ok := parsePair(key, "-W")
	if !ok {
		return Day{}, fmt.Errorf("key %q of a weekly period must be an ISO week, such as 2026-W45", key)
	}
	if year < MinYear {
		return Day{}, fmt.Errorf("week %q must not lie before %d", key, MinYear)
	}
	// The 4th of January lies in the first week of each year, and the 28th of
	// December in the last.
	_, last := Day{year: year, month: time.December, day: 28}.utc().ISOWeek()
	if week < 1 || week > last {
		return Day{}, fmt.Errorf("week %q does not exist: %d has the weeks 01 to %d", key, year, last)
	}
	return first(Weekly, Day{year: year, month: time.January, day: 4}).plus(0, 7*(week-1)), nil
}

func parseMonth(key string) (Day, error) {
	year, month, ok := parsePair(key, "-")
	if !ok || month < 1 || month > 12 {
		return Day{}, fmt.Errorf("key %q of a monthly period must be a month, such as 2026-11", key)
	}
	if year < MinYear {
		return Day{}, fmt.Errorf("month %q must not lie before %d", key, MinYear)
	}
	return Day{year: year, month: time.Month(month), day: 1}, nil
}

// parsePair reads four digits and two, and what stands between them.
func parsePair(key, between string) (four, two int, ok bool) {
	const lenFour, lenTwo = 4, 2
	if len(key) != lenFour+len(between)+lenTwo || key[lenFour:lenFour+len(between)] != between {
		return 0, 0, false
	}
	four, okFour := parseDigits(key[:lenFour])
	two, okTwo := parseDigits(key[len(key)-lenTwo:])
	return four, two, okFour && okTwo
}

// parseDigits takes neither signs nor anything else but digits.
func parseDigits(text string) (number int, ok bool) {
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		number = number*10 + int(digit-'0')
	}
	return number, true
}
