package sample_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/activity"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/fault"
	"truegreen/internal/money"
)

type liveBundle struct {
	books   *books
	players []sample.Player
}

// setupLive returns a source that begins at end, and books that know its
// players.
func setupLive(t *testing.T, config sample.LiveConfig) (*sample.Live, *liveBundle) {
	t.Helper()

	bundle := &liveBundle{books: newBooks()}
	for n := range 100 {
		player := sample.Player{Balance: money.Minor(n%10) * 100_000, Code: "p-" + strconv.Itoa(n), Currency: "KRW"}
		if n%10 == 0 {
			player.Currency = "USD"
		}
		bundle.books.balance[player.Code] = player.Balance
		bundle.books.players[player.Code] = activity.Line{Currency: player.Currency, Player: player.Code}
		bundle.players = append(bundle.players, player)
	}
	if config.Start.IsZero() {
		config.Start = end()
	}
	live, err := sample.NewLive(bundle.players, config)
	require.NoError(t, err)
	return live, bundle
}

// play asks for a minute in steps of a quarter of a second, and books it.
func play(t *testing.T, live *sample.Live, bundle *liveBundle, from time.Time) []activity.Line {
	t.Helper()

	var all []activity.Line
	for now := from.Add(250 * time.Millisecond); !now.After(from.Add(time.Minute)); now = now.Add(250 * time.Millisecond) {
		numRefused := len(bundle.books.refused)
		for _, line := range live.Next(now) {
			require.NoError(t, bundle.books.apply(line))
			require.False(t, line.At.After(now))
			all = append(all, line)
		}
		live.Refused(bundle.books.refused[numRefused:]...)
	}
	return all
}

func TestLive_Next(t *testing.T) {
	t.Parallel()

	t.Run("GoesOnInOrderWithoutAnErrorOrARefusal", func(t *testing.T) {
		t.Parallel()

		live, bundle := setupLive(t, sample.LiveConfig{LinesPerSecond: 50})
		last, byType := end(), map[activity.Type]int{}
		for minute := range 60 {
			for _, line := range play(t, live, bundle, end().Add(time.Duration(minute)*time.Minute)) {
				byType[line.Type]++
				if line.Type != activity.TypeWatermark {
					require.True(t, line.At.After(end()))
				}
				require.False(t, line.At.Before(last))
				last = line.At
			}
		}
		require.Empty(t, bundle.books.refused)
		require.Zero(t, bundle.books.refusedPayments)
		for _, kind := range []activity.Type{activity.TypeBet, activity.TypeResult, activity.TypeVoid, activity.TypeDeposit, activity.TypeWithdrawal} {
			require.Positive(t, byType[kind], kind)
		}
		require.InDelta(t, 120, byType[activity.TypeWatermark], 2)
		require.InDelta(t, 50*3600, total(byType), 50*3600/20)
	})

	t.Run("VouchesOnlyForWhatWasReturned", func(t *testing.T) {
		t.Parallel()

		live, bundle := setupLive(t, sample.LiveConfig{WatermarkInterval: time.Second})
		var vouched time.Time
		for _, line := range play(t, live, bundle, end()) {
			if line.Type == activity.TypeWatermark {
				vouched = line.At
			} else {
				require.False(t, line.At.Before(vouched))
			}
		}
		require.WithinDuration(t, end().Add(time.Minute), vouched, 3*time.Second)
	})

	t.Run("BeginsNothingNewInAGap", func(t *testing.T) {
		t.Parallel()

		live, bundle := setupLive(t, sample.LiveConfig{})
		play(t, live, bundle, end())
		later := end().Add(8 * time.Hour)
		lines := live.Next(later)
		require.Less(t, len(lines), 5*60*3)
		for _, line := range lines {
			require.NoError(t, bundle.books.apply(line))
			if line.Type == activity.TypeDeposit {
				require.True(t, line.At.After(later.Add(-time.Minute)))
			}
		}
		require.True(t, slices.IsSortedFunc(lines, func(a, b activity.Line) int { return a.At.Compare(b.At) }))
	})

	t.Run("ReturnsNothingTwice", func(t *testing.T) {
		t.Parallel()

		live, _ := setupLive(t, sample.LiveConfig{})
		require.NotEmpty(t, live.Next(end().Add(time.Minute)))
		require.Empty(t, live.Next(end().Add(time.Minute)))
		require.Empty(t, live.Next(end().Add(time.Second)))
	})

	t.Run("SharesNoIDWithTheRunBefore", func(t *testing.T) {
		t.Parallel()

		first, _ := setupLive(t, sample.LiveConfig{})
		second, _ := setupLive(t, sample.LiveConfig{Start: end().Add(time.Millisecond)})
		seen := names(first.Next(end().Add(time.Minute)))
		for name := range names(second.Next(end().Add(time.Minute))) {
			require.False(t, seen[name], name)
		}
	})
}

func total(byType map[activity.Type]int) (sum int) {
	for kind, count := range byType {
		if kind != activity.TypeWatermark {
			sum += count
		}
	}
	return sum
}

func TestLive_Refused(t *testing.T) {
	t.Parallel()

	t.Run("ForgetsTheBetsAndLetsThePlayersPayIn", func(t *testing.T) {
		t.Parallel()

		// The books know nothing of the balances that the source was told, so that
		// the first bets are beyond what is there.
		live, bundle := setupLive(t, sample.LiveConfig{LinesPerSecond: 50})
		clear(bundle.books.balance)
		for minute := range 30 {
			play(t, live, bundle, end().Add(time.Duration(minute)*time.Minute))
		}
		numRefused := len(bundle.books.refused)
		require.Positive(t, numRefused)
		require.LessOrEqual(t, numRefused, len(bundle.players), "once per player at most")
	})

	t.Run("IgnoresIDsThatItDoesNotKnow", func(t *testing.T) {
		t.Parallel()

		live, bundle := setupLive(t, sample.LiveConfig{})
		live.Refused("", "b-", "b-other-1", "d-1", "b-0")
		require.NotEmpty(t, play(t, live, bundle, end()))
	})
}

// However irregularly it is asked, what it returns can be applied.
func TestLive_Property(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(rt *rapid.T) {
		live, bundle := setupLive(t, sample.LiveConfig{
			LinesPerSecond: rapid.IntRange(1, 200).Draw(rt, "rate"),
			Seed:           rapid.Uint64().Draw(rt, "seed"),
		})
		now, last := end(), end()
		for range rapid.IntRange(1, 40).Draw(rt, "calls") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(20*time.Minute)).Draw(rt, "wait")))
			for _, line := range live.Next(now) {
				require.NoError(rt, bundle.books.apply(line))
				require.False(rt, line.At.Before(last))
				last = line.At
			}
		}
	})
}

func TestNewLive(t *testing.T) {
	t.Parallel()

	t.Run("SaysWhatIsWrong", func(t *testing.T) {
		t.Parallel()

		players := []sample.Player{{Code: "p-1", Currency: "KRW"}}
		_, err := sample.NewLive(players, sample.LiveConfig{LinesPerSecond: -1, WatermarkInterval: time.Millisecond})
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.ErrorContains(t, err, "lines per second must be from 1 to 10000, got -1")
		require.ErrorContains(t, err, "start is required")
		require.ErrorContains(t, err, "watermark interval must be at least 1s, got 1ms")
	})

	t.Run("WantsPlayers", func(t *testing.T) {
		t.Parallel()

		_, err := sample.NewLive(nil, sample.LiveConfig{Start: end()})
		require.True(t, fault.Is(err, fault.KindInvalid))
	})
}
