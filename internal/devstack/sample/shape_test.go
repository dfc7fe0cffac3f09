package sample_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/money"
)

// What makes a sample believable, for the default size and several seeds.
func TestWrite_Shape(t *testing.T) {
	t.Parallel()

	for seed := range uint64(2) {
		out, stats := write(t, sample.Config{End: end(), Seed: seed})
		lines := parse(t, out)
		b := book(t, lines)

		require.InDelta(t, 320_000, stats.Lines, 60_000)
		require.InDelta(t, 0.005, float64(stats.Voids)/float64(stats.Bets), 0.0015)
		require.InDelta(t, 0.001, float64(stats.Refused)/float64(stats.Bets), 0.0007)
		require.Greater(t, stats.Deposits, stats.Players)
		require.Greater(t, stats.Withdrawals, stats.Players/5)

		requireMembership(t, b)
		requireEdges(t, b)
		requireHeavyTails(t, lines, stats)
		requireRhythm(t, lines, stats)
	}
}

func requireMembership(t *testing.T, b *books) {
	t.Helper()

	levels := map[int]int{}
	for _, agent := range b.agents {
		level := 1
		for above := agent; above.Parent != ""; above = b.agents[above.Parent] {
			level++
		}
		levels[level]++
	}
	require.Len(t, levels, 3)
	require.Less(t, levels[1], levels[2])
	require.Less(t, levels[2], levels[3])

	statuses, vips, currencies, direct := map[activity.Status]int{}, map[int32]int{}, map[string]int{}, 0
	for _, player := range b.players {
		statuses[player.Status]++
		vips[player.VIP]++
		currencies[player.Currency]++
		if player.Agent == "" {
			direct++
		}
	}
	require.Len(t, statuses, 4)
	require.Greater(t, statuses[activity.StatusActive], len(b.players)*97/100)
	require.Len(t, vips, 6)
	require.Greater(t, vips[0], len(b.players)/2)
	require.Len(t, currencies, 2)
	require.Greater(t, currencies["KRW"], len(b.players)*9/10)
	require.InDelta(t, len(b.players)/10, direct, float64(len(b.players))/25)
}

// In the long run the house wins, but no seed must.
func requireEdges(t *testing.T, b *books) {
	t.Helper()

	require.Len(t, b.settled, 5)
	var stakes, payouts money.Minor
	for category, sums := range b.settled {
		require.Positive(t, sums[1], category)
		stakes += sums[0]
		payouts += sums[1]
	}
	require.InDelta(t, 0.95, float64(payouts)/float64(stakes), 0.15)
}

func requireHeavyTails(t *testing.T, lines []activity.Line, stats sample.Stats) {
	t.Helper()

	numBets, turnover := map[string]float64{}, map[string]float64{}
	for player := range stats.AllPlayers() {
		numBets[player.Code] = 0
	}
	for _, line := range lines {
		if line.Type == activity.TypeBet {
			numBets[line.Player]++
			turnover[line.Player] += float64(line.Stake)
		}
	}
	counts, sums := sorted(numBets), sorted(turnover)
	require.InDelta(t, 0.73, gini(counts), 0.05)
	require.Greater(t, gini(sums), 0.8)
	require.Zero(t, counts[len(counts)/10], "some registered and never bet")
	require.Greater(t, share(sums, len(sums)/100), 0.2, "the highest hundredth")
}

func sorted(byPlayer map[string]float64) []float64 {
	values := make([]float64, 0, len(byPlayer))
	for _, value := range byPlayer {
		values = append(values, value)
	}
	slices.Sort(values)
	return values
}

// gini is 0 when all values are alike, and near 1 when one has everything.
func gini(sorted []float64) float64 {
	var sum, weighted float64
	for i, value := range sorted {
		sum += value
		weighted += value * float64(2*(i+1)-len(sorted)-1)
	}
	return weighted / sum / float64(len(sorted))
}

// share returns what part of the sum the most values hold.
func share(sorted []float64, most int) float64 {
	var sum, top float64
	for i, value := range sorted {
		sum += value
		if i >= len(sorted)-most {
			top += value
		}
	}
	return top / sum
}

func requireRhythm(t *testing.T, lines []activity.Line, stats sample.Stats) {
	t.Helper()

	results := [2]int{}
	hours := [24]int{}
	for _, line := range lines {
		if line.Type == activity.TypeBet {
			hours[line.At.In(stats.Start.Location()).Hour()]++
		}
		if week := int(line.At.Sub(stats.Start) / (7 * 24 * time.Hour)); line.Type == activity.TypeResult && week < len(results) {
			results[week]++
		}
	}
	require.Greater(t, results[0], 40_000, "both complete weeks are full")
	require.Greater(t, results[1], 40_000, "both complete weeks are full")
	require.Greater(t, hours[21]+hours[22], 5*(hours[5]+hours[6]))
}
