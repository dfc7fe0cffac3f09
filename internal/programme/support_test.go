package programme_test

import (
	"strings"

	"github.com/stretchr/testify/require"

	"truegreen/internal/money"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

// minimal has the fields that have no default, one a line; the first stands in
// line 2.
const minimal = `programmes:
  - code: daily-cashback
    kind: cashback
    currency: EUR
    period: daily
    time_zone: Europe/Berlin
    effective_from: 2026-10-01
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
`

// with returns the minimal file with more lines, each at the depth of a field.
func with(lines ...string) string { return add(minimal, lines...) }

// instead returns the minimal file with one text in place of another.
func instead(t require.TestingT, old, replacement string) string {
	require.Equal(t, 1, strings.Count(minimal, old), old)
	return strings.Replace(minimal, old, replacement, 1)
}

func parse(t require.TestingT, text string) []programme.Terms {
	parsed, err := programme.Parse("test.yaml", strings.NewReader(text))
	require.NoError(t, err)
	return parsed
}

func parseOne(t require.TestingT, text string) programme.Terms {
	parsed := parse(t, text)
	require.Len(t, parsed, 1)
	return parsed[0]
}

func day(t require.TestingT, text string) timewindow.Day {
	parsed, err := timewindow.ParseDay(text)
	require.NoError(t, err)
	return parsed
}

func minor(amount money.Minor) *money.Minor { return &amount }

// Programmes with the fields alone that have no default, as [minimal] is one.
var (
	minimalRebate   = strings.NewReplacer("cashback", "rebate", "game", "stake").Replace(minimal)
	minimalRisk     = strings.Replace(minimalRebate, "basis: stake", "basis: risk", 1)
	minimalCash     = strings.Replace(minimal, "basis: game", "basis: cash", 1)
	minimalLossback = strings.NewReplacer("cashback", "lossback", "basis: game", "window: 72h").Replace(minimal)
)

// add returns a file with more lines at its end, each at the depth of a field.
func add(file string, lines ...string) string {
	for _, line := range lines {
		file += "    " + line + "\n"
	}
	return file
}

// newTerms returns plain terms: a tenth of all losses, without bounds.
func newTerms(t require.TestingT) programme.Terms { return parseOne(t, minimal) }

// newActivity returns the activity of an active player in one category.
func newActivity(stake, payout money.Minor) programme.Activity {
	return programme.Activity{
		Categories: []programme.CategorySum{{Category: "slots", Payout: payout, Stake: stake}},
		Status:     "active",
	}
}
