package timewindow_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/timewindow"
)

func TestParseDay(t *testing.T) {
	t.Parallel()

	t.Run("ReadsADateOfTheCalendar", func(t *testing.T) {
		t.Parallel()

		for _, text := range []string{"1973-01-01", "2024-02-29", "2026-10-01", "9999-12-31"} {
			day, err := timewindow.ParseDay(text)
			require.NoError(t, err)
			require.Equal(t, text, day.String())
		}
	})

	t.Run("RefusesWhatIsNone", func(t *testing.T) {
		t.Parallel()

		for _, text := range []string{
			"", "2026", "2026-10", "2026-1-01", "2026-10-1", "2026-02-29", "2026-02-30", "2026-13-01", "2026-00-01",
			"2026-10-00", "26-10-01", "20261001", "2026/10/01", " 2026-10-01", "2026-10-01 ", "2026-10-01T00:00:00Z",
			"10000-01-01", "-2026-10-01", "２０２６-10-01",
		} {
			_, err := timewindow.ParseDay(text)
			require.ErrorContains(t, err, "must be a date of the calendar, such as 2026-10-01", text)
		}
	})

	t.Run("RefusesDaysBefore1973", func(t *testing.T) {
		t.Parallel()

		_, err := timewindow.ParseDay("1972-12-31")
		require.EqualError(t, err, `day "1972-12-31" must not lie before 1973`)
	})
}

func TestDay_Compare(t *testing.T) {
	t.Parallel()

	rising := []timewindow.Day{{}, day(t, "1973-01-31"), day(t, "2026-09-30"), day(t, "2026-10-01"), day(t, "2026-10-02"), day(t, "2027-01-01")}
	for i, one := range rising {
		for j, other := range rising {
			require.Equal(t, i < j, one.Before(other), "%s before %s", one, other)
			require.Equal(t, i == j, one.Compare(other) == 0)
			require.Equal(t, i == j, one == other)
		}
	}
}

func TestDay_MarshalText(t *testing.T) {
	t.Parallel()

	t.Run("IsUndoneByUnmarshalText", func(t *testing.T) {
		t.Parallel()

		given := day(t, "2026-10-01")
		text, err := json.Marshal(given)
		require.NoError(t, err)
		require.JSONEq(t, `"2026-10-01"`, string(text))

		var back timewindow.Day
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, given, back)
	})

	t.Run("RefusesTheZeroDay", func(t *testing.T) {
		t.Parallel()

		require.True(t, timewindow.Day{}.IsZero())
		require.Equal(t, "0000-00-00", timewindow.Day{}.String())
		_, err := timewindow.Day{}.MarshalText()
		require.EqualError(t, err, "the day is not set")
	})

	t.Run("UnmarshalLeavesTheDayAloneWhenItFails", func(t *testing.T) {
		t.Parallel()

		given := day(t, "2026-10-01")
		require.Error(t, given.UnmarshalText([]byte("yesterday")))
		require.Equal(t, day(t, "2026-10-01"), given)
	})
}

func day(t require.TestingT, text string) timewindow.Day {
	parsed, err := timewindow.ParseDay(text)
	require.NoError(t, err)
	return parsed
}

func calendar(t require.TestingT, kind timewindow.Kind, zone string) timewindow.Calendar {
	made, err := timewindow.NewCalendar(kind, zone)
	require.NoError(t, err)
	return made
}

func instant(t require.TestingT, text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return at.UTC()
}
