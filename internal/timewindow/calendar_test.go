package timewindow_test

import (
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/timewindow"
)

func TestNewCalendar(t *testing.T) {
	t.Parallel()

	t.Run("KnowsWhatItWasMadeOf", func(t *testing.T) {
		t.Parallel()

		made := calendar(t, timewindow.Weekly, "America/Port-au-Prince")
		require.Equal(t, timewindow.Weekly, made.Kind())
		require.Equal(t, "America/Port-au-Prince", made.Zone())
	})

	t.Run("RefusesAnUnknownKind", func(t *testing.T) {
		t.Parallel()

		_, err := timewindow.NewCalendar("hourly", "UTC")
		require.EqualError(t, err, `period "hourly" must be daily, weekly, or monthly`)
	})

	t.Run("RefusesNamesThatAreNoZone", func(t *testing.T) {
		t.Parallel()

		for _, zone := range []string{
			"", "Local", "local", "localtime", "right/Asia/Seoul", "posix/Asia/Seoul", "posixrules", "../Asia/Seoul",
			"/usr/share/zoneinfo/Asia/Seoul", "asia/seoul", "+09:00", "Asia/Seoul ", "Asia/Seoul\x00", "Asia/Söul",
		} {
			_, err := timewindow.NewCalendar(timewindow.Daily, zone)
			require.ErrorContains(t, err, "must be the IANA name of a zone, such as Asia/Seoul", zone)
		}
		for _, zone := range []string{"Asia/Atlantis", "KST", "Asia", "Asia/", "Asia//Seoul/"} {
			_, err := timewindow.NewCalendar(timewindow.Daily, zone)
			require.ErrorContains(t, err, "is unknown: give an IANA name, such as Asia/Seoul", zone)
		}
	})
}

func TestCalendar_ByKey(t *testing.T) {
	t.Parallel()

	t.Run("IsLocalWallTimeAsInstants", func(t *testing.T) {
		t.Parallel()

		for _, want := range []struct {
			kind            timewindow.Kind
			zone            string
			key, start, end string
		}{
			{timewindow.Daily, "UTC", "1973-01-01", "1973-01-01T00:00:00Z", "1973-01-02T00:00:00Z"},
			{timewindow.Daily, "UTC", "9999-12-31", "9999-12-31T00:00:00Z", "+10000"},
			{timewindow.Daily, "Asia/Seoul", "2026-11-02", "2026-11-01T15:00:00Z", "2026-11-02T15:00:00Z"},
			{timewindow.Weekly, "Asia/Seoul", "2026-W45", "2026-11-01T15:00:00Z", "2026-11-08T15:00:00Z"},
			{timewindow.Monthly, "Asia/Seoul", "2026-11", "2026-10-31T15:00:00Z", "2026-11-30T15:00:00Z"},
			{timewindow.Monthly, "Asia/Seoul", "2024-02", "2024-01-31T15:00:00Z", "2024-02-29T15:00:00Z"},
			// ISO years differ from those of the calendar at their ends.
			{timewindow.Weekly, "UTC", "1973-W01", "1973-01-01T00:00:00Z", "1973-01-08T00:00:00Z"},
			{timewindow.Weekly, "UTC", "2026-W01", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"},
			{timewindow.Weekly, "UTC", "2026-W53", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"},
			{timewindow.Weekly, "UTC", "2027-W01", "2027-01-04T00:00:00Z", "2027-01-11T00:00:00Z"},
			// 23 and 25 hours.
			{timewindow.Daily, "Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
			{timewindow.Daily, "Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
			// Half an hour, and offsets of 30 and 45 minutes.
			{timewindow.Daily, "Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z"},
			{timewindow.Daily, "Asia/Kathmandu", "1986-01-01", "1985-12-31T18:30:00Z", "1986-01-01T18:15:00Z"},
			{timewindow.Daily, "Pacific/Chatham", "2026-06-01", "2026-05-31T11:15:00Z", "2026-06-01T11:15:00Z"},
			// Ten hours and forty minutes, and two changes at once.
			{timewindow.Daily, "Pacific/Kiritimati", "1979-09-30", "1979-09-30T10:45:00Z", "1979-10-01T10:45:00Z"},
			{timewindow.Daily, "Pacific/Kiritimati", "1979-10-01", "1979-10-01T10:45:00Z", "1979-10-02T10:00:00Z"},
			// Midnight is skipped, and the day starts at 01:00.
			{timewindow.Daily, "America/Sao_Paulo", "2017-10-15", "2017-10-15T03:00:00Z", "2017-10-16T02:00:00Z"},
			{timewindow.Daily, "Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
			{timewindow.Daily, "Asia/Beirut", "2026-03-29", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"},
			{timewindow.Monthly, "Asia/Amman", "2011-04", "2011-03-31T22:00:00Z", "2011-04-30T21:00:00Z"},
			// 23:00 to midnight comes twice: the next day starts after the second.
			{timewindow.Daily, "America/Sao_Paulo", "2018-02-17", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"},
			// Midnight comes twice: the first counts.
			{timewindow.Daily, "America/Havana", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
			{timewindow.Daily, "America/St_Johns", "2006-10-28", "2006-10-28T02:30:00Z", "2006-10-29T02:30:00Z"},
			{timewindow.Daily, "America/St_Johns", "2006-10-29", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"},
			// A date that never was: its neighbours abut, its week is shorter.
			{timewindow.Daily, "Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
			{timewindow.Daily, "Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
			{timewindow.Weekly, "Pacific/Apia", "2011-W52", "2011-12-26T10:00:00Z", "2012-01-01T10:00:00Z"},
		} {
			span, err := calendar(t, want.kind, want.zone).ByKey(want.key)
			require.NoError(t, err)
			end := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
			if want.end != "+10000" {
				end = instant(t, want.end)
			}
			require.Equal(t, timewindow.Span{End: end, Key: want.key, Start: instant(t, want.start)}, span, "%s of %s", want.key, want.zone)
			require.True(t, onQuarters(span))
		}
	})

	t.Run("KnowsTheEndsOfLeapYearsThatAreFarAway", func(t *testing.T) {
		t.Parallel()

		for _, zone := range []string{"America/New_York", "Europe/Berlin", "Australia/Sydney"} {
			for _, key := range []string{"2040-12-30", "2040-12-31", "2041-01-01", "2044-12-31", "2096-12-31"} {
				span, err := calendar(t, timewindow.Daily, zone).ByKey(key)
				require.NoError(t, err)
				require.Equal(t, firstShown(t, zone, key, time.Minute), span.Start)
				require.Equal(t, 24*time.Hour, span.End.Sub(span.Start))
			}
		}
	})

	t.Run("RefusesEveryOtherForm", func(t *testing.T) {
		t.Parallel()

		for kind, keys := range map[timewindow.Kind]map[string]string{
			timewindow.Daily: {
				"must be a date of the calendar, such as 2026-10-01": "2026-02-30 2026-11 2026-W45 2026-1-1 20261101",
				"must not lie before 1973":                           "1972-12-31 0000-01-01",
			},
			timewindow.Weekly: {
				"must be an ISO week, such as 2026-W45": "2026-W5 2026-w45 2026W45 2026-W451 2026-W+5 +026-W05 2026-W4x 2026-W45-1 2026-45 W45-2026 2026-11-02",
				"2026 has the weeks 01 to 53":           "2026-W00 2026-W54 2026-W60 2026-W99",
				"2027 has the weeks 01 to 52":           "2027-W53",
				"must not lie before 1973":              "1972-W52 0000-W01",
			},
			timewindow.Monthly: {
				"must be a month, such as 2026-11": "2026-00 2026-13 2026-1 2026-011 2026-+1 26-11 2026/11 2026-11-02 202611 12026-11",
				"must not lie before 1973":         "1972-12 0001-01",
			},
		} {
			for reason, list := range keys {
				for _, key := range append(fields(list), "") {
					_, err := calendar(t, kind, "UTC").ByKey(key)
					require.Error(t, err, key)
					if key != "" {
						require.ErrorContains(t, err, reason, key)
						require.ErrorContains(t, err, key)
					}
				}
			}
		}
	})

	t.Run("RefusesADayThatTheZoneSkipped", func(t *testing.T) {
		t.Parallel()

		for zone, key := range map[string]string{
			"Pacific/Apia": "2011-12-30", "Pacific/Kiritimati": "1994-12-31", "Pacific/Kwajalein": "1993-08-21",
		} {
			_, err := calendar(t, timewindow.Daily, zone).ByKey(key)
			require.EqualError(t, err, `period "`+key+`" does not exist: `+zone+` skipped that day`)
		}
	})
}

func TestCalendar_Containing(t *testing.T) {
	t.Parallel()

	t.Run("TakesTheStartAndLeavesTheEnd", func(t *testing.T) {
		t.Parallel()

		seoul := calendar(t, timewindow.Weekly, "Asia/Seoul")
		for at, key := range map[string]string{
			"2026-11-01T14:59:59.999999999Z": "2026-W44",
			"2026-11-01T15:00:00Z":           "2026-W45",
			"2026-11-08T14:59:59.999999999Z": "2026-W45",
			"2026-11-09T00:00:00+09:00":      "2026-W46",
		} {
			span := seoul.Containing(instant(t, at))
			require.Equal(t, key, span.Key, at)
			require.True(t, span.Contains(instant(t, at)))
			require.False(t, span.Contains(span.End))
		}
	})

	t.Run("KeepsAnHourAfterMidnightThatComesTwiceInTheNewDay", func(t *testing.T) {
		t.Parallel()

		stJohns := calendar(t, timewindow.Daily, "America/St_Johns")
		at := instant(t, "2006-10-28T23:30:00-03:30") // for the second time
		require.Equal(t, "2006-10-29", stJohns.Containing(at).Key)
		require.Equal(t, day(t, "2006-10-29"), stJohns.LocalDay(at))
		first := instant(t, "2006-10-28T23:30:00-02:30")
		require.Equal(t, "2006-10-28", stJohns.Containing(first).Key)
		require.Equal(t, day(t, "2006-10-28"), stJohns.LocalDay(first))
	})

	t.Run("IsZeroOutsideOfTheYears", func(t *testing.T) {
		t.Parallel()

		for _, kind := range kinds() {
			seoul := calendar(t, kind, "Asia/Seoul")
			require.Zero(t, seoul.Containing(instant(t, "1972-12-31T14:59:59Z")))
			require.NotZero(t, seoul.Containing(instant(t, "1972-12-31T15:00:00Z")))
			require.NotZero(t, seoul.Containing(instant(t, "9999-12-31T14:59:59Z")))
			require.Zero(t, seoul.Containing(time.Date(10000, 1, 8, 0, 0, 0, 0, time.UTC)))
			require.Zero(t, seoul.Containing(time.Time{}))
		}
	})
}

func TestCalendar_From(t *testing.T) {
	t.Parallel()

	t.Run("StartsOnOrAfterTheDay", func(t *testing.T) {
		t.Parallel()

		for _, want := range []struct {
			kind       timewindow.Kind
			zone, from string
			keys       []string
		}{
			{timewindow.Daily, "Asia/Seoul", "2026-12-31", []string{"2026-12-31", "2027-01-01", "2027-01-02"}},
			{timewindow.Weekly, "Asia/Seoul", "2026-10-01", []string{"2026-W41", "2026-W42", "2026-W43"}},
			{timewindow.Weekly, "Asia/Seoul", "2026-12-28", []string{"2026-W53", "2027-W01", "2027-W02"}},
			{timewindow.Weekly, "Asia/Seoul", "2026-12-29", []string{"2027-W01", "2027-W02", "2027-W03"}},
			{timewindow.Monthly, "Asia/Seoul", "2026-10-01", []string{"2026-10", "2026-11", "2026-12"}},
			{timewindow.Monthly, "Asia/Seoul", "2026-10-02", []string{"2026-11", "2026-12", "2027-01"}},
			{timewindow.Daily, "Pacific/Apia", "2011-12-29", []string{"2011-12-29", "2011-12-31", "2012-01-01"}},
			{timewindow.Daily, "Pacific/Apia", "2011-12-30", []string{"2011-12-31", "2012-01-01", "2012-01-02"}},
		} {
			spans := take(calendar(t, want.kind, want.zone).From(day(t, want.from)), len(want.keys))
			require.Equal(t, want.keys, keysOf(spans), "%s from %s", want.kind, want.from)
		}
	})

	t.Run("CountsEarlierDaysAsTheFirstOf1973", func(t *testing.T) {
		t.Parallel()

		for kind, key := range map[timewindow.Kind]string{
			timewindow.Daily: "1973-01-01", timewindow.Weekly: "1973-W01", timewindow.Monthly: "1973-01",
		} {
			require.Equal(t, []string{key}, keysOf(take(calendar(t, kind, "UTC").From(timewindow.Day{}), 1)))
		}
	})

	t.Run("EndsWithTheYear9999", func(t *testing.T) {
		t.Parallel()

		for kind, keys := range map[timewindow.Kind][]string{
			timewindow.Daily:   {"9999-12-30", "9999-12-31"},
			timewindow.Weekly:  nil,
			timewindow.Monthly: nil,
		} {
			require.Equal(t, keys, keysOf(take(calendar(t, kind, "UTC").From(day(t, "9999-12-30")), 9)))
		}
		require.Equal(t, []string{"9999-W52"}, keysOf(take(calendar(t, timewindow.Weekly, "UTC").From(day(t, "9999-12-27")), 9)))
	})
}

func kinds() []timewindow.Kind {
	return []timewindow.Kind{timewindow.Daily, timewindow.Monthly, timewindow.Weekly}
}

func take(spans iter.Seq[timewindow.Span], num int) []timewindow.Span {
	var taken []timewindow.Span
	for span := range spans {
		if taken = append(taken, span); len(taken) == num {
			break
		}
	}
	return taken
}

func keysOf(spans []timewindow.Span) []string {
	var keys []string
	for _, span := range spans {
		keys = append(keys, span.Key)
	}
	return keys
}
