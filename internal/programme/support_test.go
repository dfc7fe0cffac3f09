package programme_test

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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
func with(lines ...string) string {
	text := minimal
	for _, line := range lines {
		text += "    " + line + "\n"
	}
	return text
}

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

// newTerms returns plain terms: a tenth of all losses, without bounds.
func newTerms(t require.TestingT) programme.Terms { return parseOne(t, minimal) }

// newActivity returns the activity of an active player in one category.
func newActivity(stake, payout money.Minor) programme.Activity {
	return programme.Activity{
		Categories: []programme.CategorySum{{Category: "slots", Payout: payout, Stake: stake}},
		Status:     "active",
	}
}

func categories() []string { return []string{"live", "poker", "slots", "sports", "ταβλι"} }

// drawTerms returns valid terms of every shape that is built. Amounts are drawn
// near each other, so that every branch is taken.
func drawTerms(t *rapid.T) programme.Terms {
	rate := rapid.OneOf(rapid.Int32Range(0, 1_000_000), rapid.SampledFrom([]int32{0, 1, 999_999, 1_000_000}))
	terms := programme.Terms{
		Basis:          programme.BasisGame,
		Code:           rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,63}`).Draw(t, "code"),
		Currency:       rapid.StringMatching(`[A-Z]{3}`).Draw(t, "currency"),
		EffectiveFrom:  day(t, rapid.SampledFrom([]string{"1973-01-01", "2026-10-01", "9999-12-31"}).Draw(t, "effective_from")),
		Grace:          time.Duration(rapid.Int64Range(0, 31*24*3600).Draw(t, "grace")) * time.Second,
		InputsDeadline: time.Duration(rapid.Int64Range(1, 31*24*3600).Draw(t, "inputs_deadline")) * time.Second,
		Kind:           programme.Cashback,
		LessPromotions: rapid.Bool().Draw(t, "less_promotions"),
		MaxAttempts:    rapid.IntRange(1, programme.MaxAttempts).Draw(t, "max_attempts"),
		MinPayout:      money.Minor(rapid.Int64Range(0, 1000).Draw(t, "min_payout")),
		OnPartial:      rapid.SampledFrom([]programme.OnPartial{programme.OnPartialComplete, programme.OnPartialError}).Draw(t, "on_partial"),
		Period:         rapid.SampledFrom([]timewindow.Kind{timewindow.Daily, timewindow.Weekly, timewindow.Monthly}).Draw(t, "period"),
		Shape:          programme.ShapeSlab,
		TierBy:         rapid.SampledFrom([]programme.TierBy{programme.TierByBasis, programme.TierByVIP}).Draw(t, "tier_by"),
		TimeZone:       rapid.SampledFrom([]string{"UTC", "Asia/Seoul", "America/Sao_Paulo"}).Draw(t, "time_zone"),
	}
	if rapid.Bool().Draw(t, "has a cap") {
		terms.Cap = minor(terms.MinPayout + money.Minor(rapid.Int64Range(1, 5000).Draw(t, "cap above min_payout")))
	}
	if rapid.Bool().Draw(t, "has auto_approve_below") {
		terms.AutoApproveBelow = minor(money.Minor(rapid.Int64Min(0).Draw(t, "auto_approve_below")))
	}
	if rapid.Bool().Draw(t, "has categories") {
		terms.Categories = map[string]money.RatePPM{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(categories()), 1, 4, rapid.ID).Draw(t, "categories") {
			terms.Categories[name] = money.RatePPM(rate.Draw(t, "weight"))
		}
		terms.DefaultWeight = money.RatePPM(rate.Draw(t, "default_weight_ppm"))
	}
	from := rapid.SampledFrom([]int64{0, 1, 50}).Draw(t, "first from")
	for range rapid.IntRange(1, 4).Draw(t, "tiers") {
		terms.Tiers = append(terms.Tiers, programme.Tier{From: from, Rate: money.RatePPM(rate.Draw(t, "rate_ppm"))})
		from += rapid.SampledFrom([]int64{1, 2, 1000, 50_000}).Draw(t, "step")
	}
	return terms
}

// drawActivity returns the activity of a player, with losses and gains near to
// the bounds that drawTerms draws, or far above.
func drawActivity(t *rapid.T) programme.Activity {
	amount := rapid.OneOf(rapid.Int64Range(0, 200_000), rapid.SampledFrom([]int64{0, 1}), rapid.Int64Range(0, 1<<60))
	activity := programme.Activity{
		Promotions: money.Minor(rapid.Int64Range(0, 2000).Draw(t, "promotions")),
		Status:     rapid.SampledFrom([]string{"active", "active", "active", "frozen", "closed", "self_excluded"}).Draw(t, "status"),
		VIP:        rapid.SampledFrom([]int{0, 1, 2, 3, 51, 2000}).Draw(t, "vip"),
	}
	for range rapid.IntRange(0, 5).Draw(t, "sums") {
		stake, payout := amount.Draw(t, "stake"), amount.Draw(t, "payout")
		if rapid.Bool().Draw(t, "lost") {
			payout = min(payout, stake/2)
		}
		activity.Categories = append(activity.Categories, programme.CategorySum{
			Category: rapid.SampledFrom(categories()).Draw(t, "category"),
			Payout:   money.Minor(payout),
			Stake:    money.Minor(stake),
		})
	}
	return activity
}
