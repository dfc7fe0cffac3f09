package programme_test

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// TestTerms_Explain has what the examples of the guide have not.
func TestTerms_Explain(t *testing.T) {
	t.Parallel()

	lost := func(stake, payout money.Minor) programme.Activity {
		activity := newActivity(stake, payout)
		activity.FirstDeposit = 1000
		return activity
	}
	for name, tc := range map[string]struct {
		activity programme.Activity
		file     string
		want     string
	}{
		"AWinner": {newActivity(5, 10), minimal, `
cashback by game, in minor units of EUR
slots: stakes 5 - payouts 10 = -5; × 1000000 ppm = -5
net loss: -5, the sum of 1 category
basis: -5
tier: none, a basis that is not above 0 earns nothing
result: 0, excluded as winner: nothing that counts was lost`},
		"NoTurnover": {programme.Activity{Status: "active"}, minimalRebate, `
rebate by stake, in minor units of EUR
turnover: 0, the sum of 0 categories
basis: 0
tier: none, a basis that is not above 0 earns nothing
result: 0, excluded as no_turnover: nothing that counts was staked`},
		"NoTierByLevel": {newActivity(1000, 0), instead(t, "tiers: [{from: 0,", "tier_by: vip\n    tiers: [{from: 2,"), `
cashback by game, in minor units of EUR
slots: stakes 1000 - payouts 0 = 1000; × 1000000 ppm = 1000
net loss: 1000, the sum of 1 category
basis: 1000
tier: none, VIP level 0 is below the first, which is from 2
result: 0, excluded as no_tier: the first tier is not reached`},
		"NoTierByPartsOfAUnit": {newActivity(999, 0), strings.Replace(with("categories: {slots: 500000}"), "{from: 0,", "{from: 500,", 1), `
cashback by game, in minor units of EUR
slots: stakes 999 - payouts 0 = 999; × 500000 ppm = 499.5
net loss: 499.5, the sum of 1 category
basis: 499.5
tier: none, basis 499.5 is below the first, which is from 500
result: 0, excluded as no_tier: the first tier is not reached`},
		"BelowTheMinimum": {newActivity(1009, 0), with("min_payout: 101", "cap: 101"), `
cashback by game, in minor units of EUR
slots: stakes 1009 - payouts 0 = 1009; × 1000000 ppm = 1009
net loss: 1009, the sum of 1 category
basis: 1009
tier: basis 1009 reaches the one from 0, 100000 ppm
gross: 1009 × 100000 ppm = 100.9, rounded down to 100
cap: the lesser of 100 and 101 is 100
minimum: 100 is below 101
result: 0, excluded as below_min: the amount is too small to be paid`},
		"RoundedToNothing": {newActivity(9, 0), minimal, `
cashback by game, in minor units of EUR
slots: stakes 9 - payouts 0 = 9; × 1000000 ppm = 9
net loss: 9, the sum of 1 category
basis: 9
tier: basis 9 reaches the one from 0, 100000 ppm
gross: 9 × 100000 ppm = 0.9, rounded down to 0
cap: none
minimum: 0 is below 1
result: 0, excluded as below_min: the amount is too small to be paid`},
		"ALossbackOfAWinner": {lost(5, 900), add(minimalLossback, "less_promotions: true"), `
lossback by game, in minor units of EUR
slots: stakes 5 - payouts 900 = -895; × 1000000 ppm = -895
net loss: -895, the sum of 1 category
promotions: -895 - 0 = -895
first deposit: 1000; the lesser of it and -895, but not below 0: 0
basis: 0
tier: none, a basis that is not above 0 earns nothing
result: 0, excluded as winner: nothing that counts was lost`},
		"TheLastBandIsOpenAndThePartsAreExact": {newActivity(3, 0), strings.Replace(with("shape: graduated", "categories: {slots: 333333}"),
			"tiers: [{from: 0, rate_ppm: 100000}]", "tiers: [{from: 0, rate_ppm: 999999}]", 1), `
cashback by game, in minor units of EUR
slots: stakes 3 - payouts 0 = 3; × 333333 ppm = 0.999999
net loss: 0.999999, the sum of 1 category
basis: 0.999999
tier: basis 0.999999 reaches the one from 0, 999999 ppm
band from 0 on: 0.999999 × 999999 ppm = 0.999998000001
gross: 0.999998000001, the sum of 1 band, rounded down to 0
cap: none
minimum: 0 is below 1
result: 0, excluded as below_min: the amount is too small to be paid`},
		"CategoriesAreAddedUpAndSortedAndShownPlainly": {programme.Activity{Status: "active", Categories: []programme.CategorySum{
			{Category: "ταβλι", Stake: 10}, {Category: "slots", Stake: 10}, {Category: "a\u202eb", Stake: 10}, {Category: "slots", Payout: 5, Stake: math.MaxInt64},
		}}, minimalRebate, `
rebate by stake, in minor units of EUR
"a\u202eb": stakes 10; × 1000000 ppm = 10
slots: stakes 9223372036854775817; × 1000000 ppm = 9223372036854775817
ταβλι: stakes 10; × 1000000 ppm = 10
turnover: 9223372036854775837, the sum of 3 categories
basis: 9223372036854775837
tier: basis 9223372036854775837 reaches the one from 0, 100000 ppm
gross: 9223372036854775837 × 100000 ppm = 922337203685477583.7, rounded down to 922337203685477583
cap: none
minimum: 922337203685477583 is not below 1
result: 922337203685477583`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			terms := parseOne(t, tc.file)
			owed, err := terms.Entitle(tc.activity)
			require.NoError(t, err)
			require.Equal(t, strings.TrimPrefix(tc.want, "\n"), strings.Join(terms.Explain(owed, tc.activity), "\n"))
		})
	}
}

func TestTerms_Explain_WhatWasStored(t *testing.T) {
	t.Parallel()

	terms := newTerms(t)
	activity := newActivity(1000, 0)
	end := func(t *testing.T, activity programme.Activity, change func(*programme.Entitlement)) []string {
		t.Helper()
		owed, err := terms.Entitle(activity)
		require.NoError(t, err)
		steps := len(terms.Explain(owed, activity)) - 1
		change(&owed)
		return terms.Explain(owed, activity)[steps:]
	}

	t.Run("TheStatusExcludesWhateverTheArithmeticSays", func(t *testing.T) {
		t.Parallel()

		none := func(*programme.Entitlement) {}
		closed := activity
		closed.Status = "closed"
		require.Equal(t, []string{"result: 0, excluded as closed: the player's account is closed"}, end(t, closed, none))
		closed.Status = "self_excluded"
		require.Equal(t, []string{"result: 0, excluded as self_excluded: the player has excluded themselves"}, end(t, closed, none))
	})

	t.Run("AnAdjustmentPaysTheDifference", func(t *testing.T) {
		t.Parallel()

		less := func(earlier programme.Earlier) func(*programme.Entitlement) {
			return func(owed *programme.Entitlement) { *owed = owed.Less(earlier) }
		}
		require.Equal(t, []string{"before: 60 was owed already; 100 - 60 = 40", "result: 40"},
			end(t, activity, less(programme.Earlier{Entitled: 60})))
		require.Equal(t, []string{"before: 130 was owed already; 100 - 130 = -30", "result: 0, excluded as overpaid: no more is owed than was before"},
			end(t, activity, less(programme.Earlier{Entitled: 130})))
		require.Equal(t, []string{"before: 60 was owed already; 100 - 60 = 40", "result: 0, excluded as earlier_undelivered: an earlier credit of the same period is not delivered"},
			end(t, activity, less(programme.Earlier{Entitled: 60, Undelivered: true})))
	})

	t.Run("WhatDiffersIsTold", func(t *testing.T) {
		t.Parallel()

		one := int64(1)
		for want, change := range map[string]func(*programme.Entitlement){
			"basis was stored as 999.5, this arithmetic makes 1000":   func(owed *programme.Entitlement) { owed.Basis = big.NewInt(999_500_000) },
			"basis was stored as none, this arithmetic makes 1000":    func(owed *programme.Entitlement) { owed.Basis = nil },
			"tier value was stored as 7, this arithmetic makes 1000":  func(owed *programme.Entitlement) { owed.TierValue = big.NewInt(7) },
			"tier was stored as from 1, this arithmetic makes from 0": func(owed *programme.Entitlement) { owed.TierFrom = &one },
			"tier was stored as none, this arithmetic makes from 0":   func(owed *programme.Entitlement) { owed.TierFrom = nil },
			"rate was stored as 5, this arithmetic makes 100000":      func(owed *programme.Entitlement) { owed.Rate = 5 },
			"gross was stored as 101, this arithmetic makes 100":      func(owed *programme.Entitlement) { owed.Gross = 101 },
			"capped was stored as 99, this arithmetic makes 100":      func(owed *programme.Entitlement) { owed.Capped = 99 },
			"amount was stored as 101, this arithmetic makes 100":     func(owed *programme.Entitlement) { owed.Amount = 101 },
			"amount was stored as 0, this arithmetic makes 100":       func(owed *programme.Entitlement) { owed.Amount = 0 },
			"reason was stored as winner, this arithmetic makes none": func(owed *programme.Entitlement) { owed.Reason = programme.ReasonWinner },
			"amount was stored as 99, this arithmetic makes 100":      func(owed *programme.Entitlement) { owed.Amount = 99 },
			"amount was stored as 100, this arithmetic makes 40":      func(owed *programme.Entitlement) { owed.Before = 60 },
			"amount was stored as 5, this arithmetic makes 0": func(owed *programme.Entitlement) {
				owed.Amount, owed.Before, owed.Reason = 5, 100, programme.ReasonOverpaid
			},
			"reason was stored as overpaid, this arithmetic makes none": func(owed *programme.Entitlement) {
				owed.Amount, owed.Before, owed.Reason = 0, 99, programme.ReasonOverpaid
			},
			"reason was stored as earlier_undelivered, this arithmetic makes overpaid": func(owed *programme.Entitlement) {
				owed.Amount, owed.Before, owed.Reason = 0, 100, programme.ReasonEarlierUndelivered
			},
		} {
			require.Contains(t, end(t, activity, change), "differs: "+want)
		}
	})

	t.Run("WhatCannotBeWorkedOutSaysWhy", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, []string{"this cannot be worked out: entitle under programme daily-cashback: balances and payments must be given for basis cash"},
			parseOne(t, minimalCash).Explain(programme.Entitlement{}, activity))
	})
}

// TestTerms_Explain_OfAnything: what was just worked out differs in nothing, and
// its lines end in what is owed.
func TestTerms_Explain_OfAnything(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
		owed, err := terms.Entitle(activity)
		lines := terms.Explain(owed, activity)
		if err != nil {
			require.Equal(t, []string{"this cannot be worked out: " + err.Error()}, lines)
			return
		}
		require.NotContains(t, strings.Join(lines, "\n"), "differs")
		basis, ok := new(big.Rat).SetString(valueOf(lines, "basis: "))
		require.True(t, ok)
		require.Zero(t, basis.Cmp(new(big.Rat).SetFrac(owed.Basis, big.NewInt(1_000_000))))
		result := new(big.Int)
		_, ok = result.SetString(strings.SplitN(valueOf(lines, "result: "), ",", 2)[0], 10)
		require.True(t, ok)
		require.Equal(t, int64(owed.Amount), result.Int64())
		requireBandsAddUp(t, lines)
		again := activity
		again.Categories = shuffled(byRapid{t}, activity.Categories)
		require.Equal(t, lines, terms.Explain(owed, again))
	})
}

func valueOf(lines []string, start string) string {
	for _, line := range lines {
		if value, found := strings.CutPrefix(line, start); found {
			return value
		}
	}
	return ""
}

// requireBandsAddUp reads the products of the bands, which must make the gross.
func requireBandsAddUp(t require.TestingT, lines []string) {
	total, num := new(big.Rat), 0
	for _, line := range lines {
		if strings.HasPrefix(line, "band ") {
			product, ok := new(big.Rat).SetString(line[strings.LastIndex(line, " ")+1:])
			require.True(t, ok)
			total.Add(total, product)
			num++
		}
	}
	if num > 0 {
		gross, ok := new(big.Rat).SetString(strings.SplitN(valueOf(lines, "gross: "), ",", 2)[0])
		require.True(t, ok)
		require.Zero(t, gross.Cmp(total))
	}
}
