package timewindow_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/timewindow"
)

// oddZones is a choice of zones that do, or did, what others don't: offsets of
// 30 and 45 minutes, changes at midnight or just after, half an hour of summer
// time, a skipped date, summer time that is suspended for Ramadan.
func oddZones() []string {
	return fields(`
		Africa/Cairo Africa/Casablanca Africa/Monrovia America/Asuncion America/Caracas America/Goose_Bay
		America/Guyana America/Havana America/Moncton America/New_York America/Nuuk America/Port-au-Prince
		America/Santiago America/Sao_Paulo America/Scoresbysund America/St_Johns Antarctica/Casey
		Antarctica/Troll Asia/Amman Asia/Beirut Asia/Gaza Asia/Kathmandu Asia/Kolkata Asia/Pyongyang
		Asia/Seoul Asia/Tehran Asia/Yangon Atlantic/Azores Australia/Adelaide Australia/Eucla
		Australia/Lord_Howe Etc/GMT+12 Etc/GMT-14 Europe/Berlin Europe/Dublin Europe/Lisbon Europe/London
		Europe/Moscow Pacific/Apia Pacific/Chatham Pacific/Easter Pacific/Kiritimati Pacific/Kwajalein
		Pacific/Marquesas Pacific/Norfolk UTC`)
}

func oddestZones() []string {
	return fields("America/Sao_Paulo America/St_Johns Australia/Lord_Howe Pacific/Apia Pacific/Kiritimati")
}

func TestCalendar_InEveryZone(t *testing.T) {
	t.Parallel()

	t.Run("BoundariesAreWholeQuartersAroundEveryChangeOfClocks", func(t *testing.T) {
		t.Parallel()

		list, err := os.ReadFile(filepath.Join("testdata", "zones.txt"))
		require.NoError(t, err)
		zones := fields(string(list))
		require.Greater(t, len(zones), 400)

		numChanges := 0
		for _, zone := range zones {
			daily := calendar(t, timewindow.Daily, zone)
			monthly := calendar(t, timewindow.Monthly, zone)
			weekly := calendar(t, timewindow.Weekly, zone)
			for _, change := range changes(t, zone) {
				numChanges++
				requireSound(t, daily, change.Add(-time.Hour))
				requireSound(t, daily, change.Add(time.Hour))
				requireSound(t, monthly, change)
				requireSound(t, weekly, change)
			}
		}
		require.Greater(t, numChanges, 10_000)
	})

	t.Run("EachDayWeekAndMonthSince1973AbutsTheNext", func(t *testing.T) {
		t.Parallel()

		last := instant(t, "2040-01-01T00:00:00Z")
		for _, zone := range oddZones() {
			for _, kind := range kinds() {
				if kind == timewindow.Daily && !slices.Contains(oddestZones(), zone) {
					continue // their odd days are looked at above
				}
				var before timewindow.Span
				for span := range calendar(t, kind, zone).From(day(t, "1973-01-01")) {
					if before.Key != "" {
						require.Equal(t, before.End, span.Start, "%s %s", zone, span.Key)
						require.Less(t, before.Key, span.Key)
					}
					require.True(t, span.Start.Before(span.End), "%s %s", zone, span.Key)
					require.True(t, onQuarters(span), "%s %s", zone, span.Key)
					if before = span; span.Start.After(last) {
						break
					}
				}
			}
		}
	})
}

func TestCalendar_Properties(t *testing.T) {
	t.Parallel()

	t.Run("EveryInstantLiesInOnePeriodThatItsKeyFindsAgain", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			kind := rapid.SampledFrom(kinds()).Draw(t, "kind")
			zone := rapid.SampledFrom(oddZones()).Draw(t, "zone")
			at := drawInstant(t)
			requireSound(t, calendar(t, kind, zone), at)
		})
	})

	t.Run("ADayStartsWhenTheClocksFirstShowIt", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			zone := rapid.SampledFrom(oddZones()).Draw(t, "zone")
			at := drawInstant(t)
			if rapid.Bool().Draw(t, "near a change") {
				if all := changes(t, zone); len(all) > 0 {
					at = rapid.SampledFrom(all).Draw(t, "change")
				}
			}
			span := calendar(t, timewindow.Daily, zone).Containing(at)
			shown := firstShown(t, zone, span.Key, time.Minute)
			if zone == "Pacific/Kiritimati" && span.Key <= "1979-10-01" {
				shown = shown.Add(5 * time.Minute)
			}
			require.Equal(t, shown, span.Start)
		})
	})

	t.Run("LocalDaysFollowTheDailyPeriods", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			zone := rapid.SampledFrom(oddZones()).Draw(t, "zone")
			kind := rapid.SampledFrom(kinds()).Draw(t, "kind")
			at := drawInstant(t)
			daily := calendar(t, timewindow.Daily, zone).Containing(at)
			local := calendar(t, kind, zone).LocalDay(at)
			require.Equal(t, daily.Key, local.String())
			require.Equal(t, daily, take(calendar(t, timewindow.Daily, zone).From(local), 1)[0])
		})
	})
}

// requireSound checks what must hold of the period around any instant.
func requireSound(t require.TestingT, calendar timewindow.Calendar, at time.Time) {
	span := calendar.Containing(at)
	if !span.Contains(at) || !onQuarters(span) || span.Start.Location() != time.UTC || span.End.Location() != time.UTC {
		require.Failf(t, "unsound period", "%s in %s: %+v", at, calendar.Zone(), span)
	}
	again, err := calendar.ByKey(span.Key)
	if err != nil || again != span {
		require.Failf(t, "another period by its key", "%s in %s: %+v and %+v", at, calendar.Zone(), span, again)
	}
	for _, edge := range []time.Time{span.Start, span.End.Add(-1)} {
		if calendar.Containing(edge) != span {
			require.Failf(t, "an edge lies elsewhere", "%s in %s: %+v", edge, calendar.Zone(), span)
		}
	}
	if next := calendar.Containing(span.End); next.Start != span.End {
		require.Failf(t, "not abutting", "in %s: %+v and %+v", calendar.Zone(), span, next)
	}
	if calendar.Kind() == timewindow.Daily {
		if want := firstShown(t, calendar.Zone(), span.Key, 15*time.Minute); want != span.Start {
			require.Failf(t, "another start", "%s in %s: %s, not %s", span.Key, calendar.Zone(), span.Start, want)
		}
	}
}

// firstShown looks for the start of a day by looking at the clocks, step by step.
func firstShown(t require.TestingT, zone, key string, step time.Duration) time.Time {
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	number := func(at time.Time) int {
		year, month, day := at.Date()
		return 10_000*year + 100*int(month) + day
	}
	midnight := instant(t, key+"T00:00:00Z")
	at := midnight.Add(-16 * time.Hour)
	for number(at.In(location)) < number(midnight) {
		at = at.Add(step)
	}
	return at
}

// changes returns the instants of 1973 to 2040 at which the zone's clocks were
// put forward or back.
func changes(t require.TestingT, zone string) []time.Time {
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	last := instant(t, "2040-01-01T00:00:00Z")

	var found []time.Time
	for at := instant(t, "1973-01-04T00:00:00Z"); at.Before(last); {
		_, end := at.In(location).ZoneBounds()
		if end.IsZero() {
			break
		}
		found = append(found, end.UTC())
		at = end
	}
	return found
}

func drawInstant(t *rapid.T) time.Time {
	first, last := instant(t, "1973-01-02T00:00:00Z").Unix(), instant(t, "2200-01-01T00:00:00Z").Unix()
	return time.Unix(rapid.Int64Range(first, last).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond"))
}

func onQuarters(span timewindow.Span) bool {
	return span.Start.Truncate(15*time.Minute).Equal(span.Start) && span.End.Truncate(15*time.Minute).Equal(span.End)
}

func fields(list string) []string { return strings.Fields(list) }
