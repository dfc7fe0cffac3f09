package sample_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/activity"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/fault"
)

// A Wednesday afternoon in Seoul.
func end() time.Time { return time.Date(2026, 11, 11, 6, 30, 0, 0, time.UTC) }

// small is a config that is made within milliseconds.
func small() sample.Config {
	return sample.Config{End: end(), Players: 200, Seed: 7}
}

func write(t *testing.T, config sample.Config) ([]byte, sample.Stats) {
	t.Helper()

	var out bytes.Buffer
	stats, err := sample.Write(t.Context(), &out, config)
	require.NoError(t, err)
	return out.Bytes(), stats
}

func TestWrite(t *testing.T) {
	t.Parallel()

	t.Run("MakesTheSameBytesOfTheSameConfig", func(t *testing.T) {
		t.Parallel()

		first, firstStats := write(t, small())
		second, secondStats := write(t, small())
		require.True(t, bytes.Equal(first, second))
		require.Equal(t, firstStats, secondStats)
	})

	t.Run("MakesTheBytesOfThisGeneration", func(t *testing.T) {
		t.Parallel()

		// Ids of one generation stand for one content. When the bytes have to change,
		// raise the constant generation, and then this hash.
		out, _ := write(t, small())
		sum := sha256.Sum256(out)
		require.Equal(t, "7ea633288e62a94007e98ff2a74fe4a493abd2648752373356a8b3123d111f69", hex.EncodeToString(sum[:]))
	})

	t.Run("SharesNoIDWithAnotherConfig", func(t *testing.T) {
		t.Parallel()

		first, _ := write(t, small())
		seen := names(parse(t, first))
		for name, change := range map[string]func(*sample.Config){
			"days":      func(config *sample.Config) { config.Days = 3 },
			"end":       func(config *sample.Config) { config.End = config.End.Add(time.Second) },
			"players":   func(config *sample.Config) { config.Players++ },
			"seed":      func(config *sample.Config) { config.Seed++ },
			"time zone": func(config *sample.Config) { config.TimeZone = "Asia/Tokyo" },
		} {
			config := small()
			change(&config)
			other, _ := write(t, config)
			for id := range names(parse(t, other)) {
				require.False(t, seen[id], "%s, other %s", id, name)
			}
		}
	})

	t.Run("StopsWhenTheContextEnds", func(t *testing.T) {
		t.Parallel()

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := sample.Write(ctx, io.Discard, sample.Config{End: end()})
		require.ErrorIs(t, err, context.Canceled)
	})

	t.Run("StopsWhenTheWriterFails", func(t *testing.T) {
		t.Parallel()

		reader, writer := io.Pipe()
		gone := errors.New("reader went away")
		require.NoError(t, reader.CloseWithError(gone))
		_, err := sample.Write(t.Context(), writer, small())
		require.ErrorIs(t, err, gone)
	})
}

// names returns all ids and codes of lines, by kind.
func names(lines []activity.Line) map[string]bool {
	found := map[string]bool{}
	for _, line := range lines {
		switch line.Type {
		case activity.TypeAgent:
			found["agent "+line.Agent] = true
		case activity.TypePlayer:
			found["player "+line.Player] = true
		case activity.TypeBet, activity.TypeDeposit, activity.TypeWithdrawal:
			found[string(line.Type)+" "+line.ID] = true
		}
	}
	return found
}

// Whatever the config: in order, within its span, without an error, and with
// the balances that the stats say.
func TestWrite_Property(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(rt *rapid.T) {
		config := sample.Config{
			Days:     rapid.IntRange(0, 25).Draw(rt, "days"),
			End:      end().Add(time.Duration(rapid.Int64Range(0, int64(300*24*time.Hour)).Draw(rt, "after"))),
			Players:  rapid.IntRange(1, 60).Draw(rt, "players"),
			Seed:     rapid.Uint64().Draw(rt, "seed"),
			TimeZone: rapid.SampledFrom([]string{"", "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Cairo"}).Draw(rt, "zone"),
		}
		out, stats := write(t, config)
		lines := parse(t, out)
		b := book(t, lines)

		require.Len(rt, lines, int(stats.Lines))
		require.True(rt, slices.IsSortedFunc(lines, func(a, b activity.Line) int { return a.At.Compare(b.At) }))
		requireWithin(rt, lines, stats)
		requireStats(rt, b, stats)
	})
}

func requireWithin(t require.TestingT, lines []activity.Line, stats sample.Stats) {
	var marks []time.Time
	for _, line := range lines {
		switch line.Type {
		case activity.TypeBet, activity.TypeResult, activity.TypeVoid:
			require.False(t, line.At.Before(stats.Start))
			require.True(t, line.At.Before(stats.End))
		case activity.TypeWatermark:
			if line.Source == "bets" {
				marks = append(marks, line.At)
			}
		default:
			require.True(t, line.At.Before(stats.End))
		}
	}

	var midnights []time.Time
	for day := stats.Start.AddDate(0, 0, 1); day.Before(stats.End); day = day.AddDate(0, 0, 1) {
		midnights = append(midnights, day.UTC())
	}
	require.Equal(t, append(midnights, stats.End.UTC()), marks)
}

func requireStats(t require.TestingT, b *books, stats sample.Stats) {
	require.Len(t, b.refused, int(stats.Refused))
	require.Zero(t, b.refusedPayments)
	require.Len(t, b.open, int(stats.Open))
	require.Len(t, b.agents, int(stats.Agents))
	require.Len(t, b.players, int(stats.Players))
	require.Equal(t, b.voids, int(stats.Voids))
	require.Len(t, b.paid, int(stats.Deposits+stats.Withdrawals))
	require.Len(t, b.ended, int(stats.Refused+stats.Results+stats.Voids))

	count := 0
	for player := range stats.AllPlayers() {
		count++
		require.Equal(t, b.balance[player.Code], player.Balance, player.Code)
		require.Equal(t, b.players[player.Code].Currency, player.Currency)
	}
	require.Equal(t, int(stats.Players), count)
}

func TestConfig_WithDefaults(t *testing.T) {
	t.Parallel()

	t.Run("CoversTheLastTwoCompleteWeeksOfSeoul", func(t *testing.T) {
		t.Parallel()

		for end, start := range map[string]string{
			"2026-11-09T00:00:00+09:00": "2026-10-26T00:00:00+09:00", // as the week ends
			"2026-11-09T00:00:01+09:00": "2026-10-26T00:00:00+09:00",
			"2026-11-15T23:59:59+09:00": "2026-10-26T00:00:00+09:00", // Sunday
			"2026-11-15T16:00:00Z":      "2026-11-02T00:00:00+09:00", // Monday already in Seoul
		} {
			at, err := time.Parse(time.RFC3339, end)
			require.NoError(t, err)
			_, stats := write(t, sample.Config{End: at, Players: 1})
			require.Equal(t, start, stats.Start.Format(time.RFC3339), end)
		}
	})

	t.Run("CountsDaysBackFromThatOfTheEnd", func(t *testing.T) {
		t.Parallel()

		_, stats := write(t, sample.Config{Days: 1, End: end(), Players: 1})
		require.Equal(t, "2026-11-10T00:00:00+09:00", stats.Start.Format(time.RFC3339))
	})
}

func TestConfig_Validate(t *testing.T) {
	t.Parallel()

	t.Run("SaysAllThatIsWrong", func(t *testing.T) {
		t.Parallel()

		_, err := sample.Write(t.Context(), io.Discard, sample.Config{Days: -1, End: end(), Players: -2})
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.ErrorContains(t, err, "days must be from 1 to 366, got -1")
		require.ErrorContains(t, err, "players must be from 1 to 1000000, got -2")
	})

	t.Run("WantsAnEnd", func(t *testing.T) {
		t.Parallel()

		_, err := sample.Write(t.Context(), io.Discard, sample.Config{})
		require.ErrorContains(t, err, "end is required")
		_, err = sample.Write(t.Context(), io.Discard, sample.Config{End: time.Unix(0, 0)})
		require.ErrorContains(t, err, "end must lie in the years 2000 to 2199")
	})

	t.Run("WantsAZoneThatIsTheSameEverywhere", func(t *testing.T) {
		t.Parallel()

		for _, zone := range []string{"Local", "Asia/Soul", "../etc/passwd"} {
			_, err := sample.Write(t.Context(), io.Discard, sample.Config{End: end(), TimeZone: zone})
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.ErrorContains(t, err, "time zone must be an IANA name")
			require.NotContains(t, err.Error(), "days", "only what is wrong is named")
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	numLines := int64(0)
	for b.Loop() {
		stats, err := sample.Write(b.Context(), io.Discard, sample.Config{End: end(), Seed: 1})
		require.NoError(b, err)
		numLines += stats.Lines
	}
	b.ReportMetric(float64(numLines)/b.Elapsed().Seconds(), "lines/s")
}
