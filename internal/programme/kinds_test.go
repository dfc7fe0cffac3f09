package programme_test

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// TestTerms_Entitle_Kinds has the edges of what is not a cashback of games by
// slabs; those are in TestTerms_Entitle_Edges.
func TestTerms_Entitle_Kinds(t *testing.T) {
	t.Parallel()

	sum := func(category string, stake, payout, risk money.Minor) programme.CategorySum {
		return programme.CategorySum{Category: category, Payout: payout, Risk: risk, Stake: stake}
	}
	played := func(sums ...programme.CategorySum) programme.Activity {
		return programme.Activity{Categories: sums, Status: "active"}
	}
	cash := func(opening, deposits, withdrawals, closing money.Minor) programme.Activity {
		return programme.Activity{Status: "active", Cash: &programme.Cash{
			Closing: closing, Deposits: deposits, Opening: opening, Withdrawals: withdrawals,
		}}
	}
	deposited := func(first, stake, payout money.Minor) programme.Activity {
		activity := newActivity(stake, payout)
		activity.FirstDeposit = first
		return activity
	}
	as := func(status string, activity programme.Activity) programme.Activity {
		activity.Status = status
		return activity
	}
	at := func(from int64) *int64 { return &from }
	steps := "tiers: [{from: 100, rate_ppm: 50000}, {from: 1000, rate_ppm: 100000}]"
	weights := "categories: {slots: 500000}"
	bands := `programmes:
  - code: bands
    kind: rebate
    currency: EUR
    period: daily
    time_zone: UTC
    effective_from: 2026-10-01
    basis: stake
    shape: graduated
`
	rising := bands + "    tiers: [{from: 100, rate_ppm: 10000}, {from: 1000, rate_ppm: 20000}, {from: 5000, rate_ppm: 30000}]\n"
	// Each band has a part of a unit, which together are one.
	thirds := bands + "    tiers: [{from: 0, rate_ppm: 500000}, {from: 1, rate_ppm: 500000}]\n"
	falling := bands + "    tiers: [{from: 0, rate_ppm: 100000}, {from: 1000, rate_ppm: 0}]\n"

	for name, tc := range map[string]struct {
		activity programme.Activity
		amount   money.Minor
		basis    int64 // in millionths
		file     string
		gross    money.Minor
		reason   programme.Reason
		tierFrom *int64
	}{
		// Rebate of stakes.
		"StakesCountWhateverTheyPaid":         {played(sum("slots", 1000, 5000, 0)), 100, 1000e6, minimalRebate, 100, "", at(0)},
		"NoBetsAreNoTurnover":                 {played(), 0, 0, minimalRebate, 0, "no_turnover", nil},
		"StakesOfNoWeightAreNoTurnover":       {played(sum("live", 1000, 0, 0)), 0, 0, add(minimalRebate, weights), 0, "no_turnover", nil},
		"NoTurnoverGoesBeforeTheTier":         {played(), 0, 0, rising, 0, "no_turnover", nil},
		"ClosureGoesBeforeNoTurnover":         {as("closed", played()), 0, 0, minimalRebate, 0, "closed", nil},
		"SelfExclusionGoesBeforeNoTurnover":   {as("self_excluded", played()), 0, 0, minimalRebate, 0, "self_excluded", nil},
		"TurnoverIsWeighed":                   {played(sum("slots", 1001, 0, 0)), 50, 500_500_000, add(minimalRebate, weights), 50, "", at(0)},
		"AFrozenPlayerStaysEligible":          {as("frozen", played(sum("slots", 1000, 0, 0))), 100, 1000e6, minimalRebate, 100, "", at(0)},
		"TurnoverRoundedToNothingIsBelowMin":  {played(sum("slots", 9, 9, 0)), 0, 9e6, minimalRebate, 0, "below_min", at(0)},
		"TurnoverOfPartsOfAUnitIsNotNothing":  {played(sum("slots", 1, 0, 0)), 0, 1, add(minimalRebate, "categories: {slots: 1}"), 0, "below_min", at(0)},
		"ARebateDoesNotLookAtCashOrDeposits":  {deposited(5, 1000, 0), 100, 1000e6, minimalRebate, 100, "", at(0)},
		"WhoWinsHasATurnoverAllTheSame":       {played(sum("slots", 10, 999, 0)), 1, 10e6, minimalRebate, 1, "", at(0)},
		"ATurnoverBelowTheFirstTier":          {played(sum("slots", 99, 0, 0)), 0, 99e6, rising, 0, "no_tier", nil},
		"RiskIsCountedNotStakes":              {played(sum("slots", 1000, 900, 100)), 10, 100e6, minimalRisk, 10, "", at(0)},
		"RiskOfNothingIsNoTurnover":           {played(sum("slots", 1000, 1000, 0)), 0, 0, minimalRisk, 0, "no_turnover", nil},
		"RiskOfALostBetIsItsStake":            {played(sum("slots", 1000, 0, 1000)), 100, 1000e6, minimalRisk, 100, "", at(0)},
		"RiskIsWeighed":                       {played(sum("slots", 1000, 900, 101), sum("live", 5, 0, 5)), 5, 50_500_000, add(minimalRisk, weights), 5, "", at(0)},
		"RiskOfABigWinIsNoMoreThanItsStake":   {played(sum("slots", 10, 99_999, 10)), 1, 10e6, minimalRisk, 1, "", at(0)},
		"StakesAreNotLookedAtForTheirRisk":    {played(sum("slots", 1000, 0, 0)), 100, 1000e6, minimalRebate, 100, "", at(0)},
		"SeveralSumsOfACategoryAreAddedUp":    {played(sum("slots", 500, 0, 500), sum("slots", 500, 500, 0)), 50, 500e6, minimalRisk, 50, "", at(0)},
		"ARiskAtTheLeastThatItCanBe":          {played(sum("slots", 1000, 400, 600)), 60, 600e6, minimalRisk, 60, "", at(0)},
		"AWinThatRiskedTheLeastThatThereIs":   {played(sum("slots", 1000, 1001, 1)), 0, 1e6, minimalRisk, 0, "below_min", at(0)},
		"MinPayoutOfARebate":                  {played(sum("slots", 999, 0, 0)), 0, 999e6, add(minimalRebate, "min_payout: 100"), 99, "below_min", at(0)},
		"CapOfARebate":                        {played(sum("slots", 5000, 0, 0)), 70, 5000e6, add(minimalRebate, "cap: 70"), 500, "", at(0)},
		"TheCapIsOfTheAmountNotOfTheTurnover": {played(sum("slots", 71, 0, 0)), 7, 71e6, add(minimalRebate, "cap: 70"), 7, "", at(0)},

		// Cashback of cash.
		"WhatWasPaidInAndIsGone":           {cash(100, 1000, 200, 300), 60, 600e6, minimalCash, 60, "", at(0)},
		"BetsAreNotLookedAt":               {programme.Activity{Status: "active", Cash: &programme.Cash{Deposits: 10}, Categories: newActivity(1e6, 0).Categories}, 1, 10e6, minimalCash, 1, "", at(0)},
		"WhatWasThereBeforeCounts":         {cash(1000, 0, 0, 0), 100, 1000e6, minimalCash, 100, "", at(0)},
		"WhatIsStillThereIsNotGone":        {cash(0, 1000, 0, 1000), 0, 0, minimalCash, 0, "winner", nil},
		"WhatWasTakenOutIsNotGone":         {cash(0, 1000, 1000, 0), 0, 0, minimalCash, 0, "winner", nil},
		"WhoHasMoreThanBeforeIsAWinner":    {cash(0, 0, 0, 5), 0, -5e6, minimalCash, 0, "winner", nil},
		"ABalanceMayBeOverdrawn":           {cash(-100, 1000, 0, -50), 95, 950e6, minimalCash, 95, "", at(0)},
		"NothingHappened":                  {cash(0, 0, 0, 0), 0, 0, minimalCash, 0, "winner", nil},
		"PromotionsAreInTheBalanceAlready": {programme.Activity{Status: "active", Cash: &programme.Cash{Deposits: 1000}, Promotions: 400}, 100, 1000e6, minimalCash, 100, "", at(0)},
		"AWinnerOfCashWhoIsClosed":         {as("closed", cash(0, 0, 0, 5)), 0, -5e6, minimalCash, 0, "closed", nil},

		// Lossback.
		"TheLossWhereItIsLess":                  {deposited(1000, 600, 0), 60, 600e6, minimalLossback, 60, "", at(0)},
		"TheFirstDepositWhereItIsLess":          {deposited(1000, 5000, 0), 100, 1000e6, minimalLossback, 100, "", at(0)},
		"BothTheSame":                           {deposited(1000, 1000, 0), 100, 1000e6, minimalLossback, 100, "", at(0)},
		"AWinIsABasisOfNothing":                 {deposited(1000, 0, 600), 0, 0, minimalLossback, 0, "winner", nil},
		"NeitherWonNorLostIsAWinner":            {deposited(1000, 600, 600), 0, 0, minimalLossback, 0, "winner", nil},
		"WhoDepositedAndDidNotPlayIsAWinner":    {programme.Activity{FirstDeposit: 1000, Status: "active"}, 0, 0, minimalLossback, 0, "winner", nil},
		"TheLossIsWeighedBeforeItIsBounded":     {deposited(1000, 1001, 0), 50, 500_500_000, add(minimalLossback, weights), 50, "", at(0)},
		"AWeighedLossOfMoreThanTheDeposit":      {deposited(1000, 9999, 0), 100, 1000e6, add(minimalLossback, weights), 100, "", at(0)},
		"TheLeastDeposit":                       {deposited(1, 5000, 0), 0, 1e6, minimalLossback, 0, "below_min", at(0)},
		"AWinnerOfALossbackWhoIsSelfExcluded":   {as("self_excluded", deposited(5, 0, 1)), 0, 0, minimalLossback, 0, "self_excluded", nil},
		"WinningGoesBeforeTheTierOfALossback":   {deposited(5, 0, 1), 0, 0, strings.Replace(minimalLossback, "tiers: [{from: 0, rate_ppm: 100000}]", steps, 1), 0, "winner", nil},
		"PromotionsOfALossbackMayBeLeftIn":      {withPromotions(deposited(1000, 900, 0), 400), 90, 900e6, minimalLossback, 90, "", at(0)},
		"PromotionsAreTakenOffTheLoss":          {withPromotions(deposited(1000, 900, 0), 400), 50, 500e6, add(minimalLossback, "less_promotions: true"), 50, "", at(0)},
		"PromotionsAreNotTakenOffTheDeposit":    {withPromotions(deposited(1000, 5000, 0), 400), 100, 1000e6, add(minimalLossback, "less_promotions: true"), 100, "", at(0)},
		"PromotionsMayMakeAWinnerOfALossback":   {withPromotions(deposited(1000, 900, 0), 901), 0, 0, add(minimalLossback, "less_promotions: true"), 0, "winner", nil},
		"ALossOfOneCategoryIsMadeUpByAnother":   {programme.Activity{FirstDeposit: 1000, Status: "active", Categories: []programme.CategorySum{sum("slots", 900, 0, 0), sum("live", 0, 800, 0)}}, 10, 100e6, minimalLossback, 10, "", at(0)},
		"CapOfALossback":                        {deposited(1000, 5000, 0), 30, 1000e6, add(minimalLossback, "cap: 30"), 100, "", at(0)},
		"MinPayoutOfALossback":                  {deposited(1000, 999, 0), 0, 999e6, add(minimalLossback, "min_payout: 100"), 99, "below_min", at(0)},
		"AFrozenPlayerIsEligibleForALossback":   {as("frozen", deposited(1000, 600, 0)), 60, 600e6, minimalLossback, 60, "", at(0)},
		"AClosedPlayerIsNotPaidALossback":       {as("closed", deposited(1000, 600, 0)), 0, 600e6, minimalLossback, 60, "closed", at(0)},
		"ALossbackDoesNotNeedCashToBeWorkedOut": {deposited(7, 70, 0), 0, 7e6, minimalLossback, 0, "below_min", at(0)},

		// Bands.
		"JustBelowTheFirstBand":        {played(sum("slots", 99, 0, 0)), 0, 99e6, rising, 0, "no_tier", nil},
		"JustTheStartOfTheFirstBand":   {played(sum("slots", 100, 0, 0)), 0, 100e6, rising, 0, "below_min", at(100)},
		"WithinTheFirstBand":           {played(sum("slots", 600, 0, 0)), 5, 600e6, rising, 5, "", at(100)},
		"JustBelowTheSecondBand":       {played(sum("slots", 999, 0, 0)), 8, 999e6, rising, 8, "", at(100)},
		"JustTheStartOfTheSecondBand":  {played(sum("slots", 1000, 0, 0)), 9, 1000e6, rising, 9, "", at(1000)},
		"WithinTheSecondBand":          {played(sum("slots", 3000, 0, 0)), 49, 3000e6, rising, 49, "", at(1000)},
		"JustTheStartOfTheLastBand":    {played(sum("slots", 5000, 0, 0)), 89, 5000e6, rising, 89, "", at(5000)},
		"FarAboveTheLastBand":          {played(sum("slots", 105_000, 0, 0)), 3089, 105_000e6, rising, 3089, "", at(5000)},
		"BandsAreRoundedTogether":      {played(sum("slots", 2, 0, 0)), 1, 2e6, thirds, 1, "", at(1)},
		"ALastBandOfNothing":           {played(sum("slots", 5000, 0, 0)), 100, 5000e6, falling, 100, "", at(1000)},
		"CapOfTheSumOfBands":           {played(sum("slots", 105_000, 0, 0)), 1000, 105_000e6, add(rising, "cap: 1000"), 3089, "", at(5000)},
		"MinPayoutOfTheSumOfBands":     {played(sum("slots", 3000, 0, 0)), 0, 3000e6, add(rising, "min_payout: 50"), 49, "below_min", at(1000)},
		"PartsOfAUnitCountInTheirBand": {played(sum("slots", 1001, 0, 0)), 4, 500_500_000, add(rising, weights), 4, "", at(100)},
		"ABasisWithPartsReachesNoTier": {played(sum("slots", 199, 0, 0)), 0, 99_500_000, add(rising, weights), 0, "no_tier", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			terms := parseOne(t, tc.file)
			owed, err := terms.Entitle(tc.activity)
			require.NoError(t, err)
			require.Equal(t, tc.amount, owed.Amount)
			require.Equal(t, big.NewInt(tc.basis).String(), owed.Basis.String())
			require.Equal(t, tc.gross, owed.Gross)
			require.Equal(t, tc.reason, owed.Reason)
			require.Equal(t, tc.tierFrom, owed.TierFrom)
			for i := len(terms.Tiers) - 1; i >= 0; i-- {
				if owed.TierFrom != nil && terms.Tiers[i].From == *owed.TierFrom {
					require.Equal(t, terms.Tiers[i].Rate, owed.Rate)
				}
			}
			requireReference(t, terms, tc.activity, owed)
		})
	}

	t.Run("NoTierOfALossbackAndOfCash", func(t *testing.T) {
		t.Parallel()

		for _, tc := range []struct {
			activity programme.Activity
			file     string
		}{{deposited(99, 500, 0), minimalLossback}, {cash(0, 99, 0, 0), minimalCash}} {
			terms := parseOne(t, tc.file)
			terms.Tiers = parseOne(t, instead(t, "tiers: [{from: 0, rate_ppm: 100000}]", steps)).Tiers
			owed, err := terms.Entitle(tc.activity)
			require.NoError(t, err)
			require.Equal(t, programme.ReasonNoTier, owed.Reason)
		}
	})

	t.Run("BalancesBeyond64BitsAreAddedUpExactly", func(t *testing.T) {
		t.Parallel()

		terms := parseOne(t, minimalCash)
		owed, err := terms.Entitle(cash(math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MinInt64))
		require.NoError(t, err)
		require.Equal(t, "18446744073709551615000000", owed.Basis.String())
		require.Equal(t, money.Minor(1_844_674_407_370_955_161), owed.Amount)
		owed, err = terms.Entitle(cash(math.MinInt64, 0, math.MaxInt64, math.MaxInt64))
		require.NoError(t, err)
		require.Equal(t, "-27670116110564327422000000", owed.Basis.String())
		require.Equal(t, programme.ReasonWinner, owed.Reason)
	})
}

func withPromotions(activity programme.Activity, amount money.Minor) programme.Activity {
	activity.Promotions = amount
	return activity
}

func requireReference(t *testing.T, terms programme.Terms, activity programme.Activity, owed programme.Entitlement) {
	t.Helper()
	if activity.Cash == nil {
		activity.Cash = &programme.Cash{}
	}
	requireAsExpected(t, expect(terms, activity), terms, owed, 0)
}

func TestTerms_Entitle_RefusesActivityThatLacksSomething(t *testing.T) {
	t.Parallel()

	with := func(change func(*programme.Activity)) programme.Activity {
		activity := newActivity(1000, 900)
		change(&activity)
		return activity
	}
	none := func(*programme.Activity) {}
	for _, tc := range []struct {
		activity     programme.Activity
		file, reason string
	}{
		{with(none), minimalCash, `balances and payments must be given for basis cash`},
		{with(none), minimalLossback, `first deposit must be given for a lossback`},
		{with(func(a *programme.Activity) { a.FirstDeposit = -1 }), minimalLossback, `first deposit must not be negative, got -1`},
		{with(func(a *programme.Activity) { a.FirstDeposit = -1 }), minimal, `first deposit must not be negative, got -1`},
		{with(none), minimalRisk, `risk of category "slots" must be given for basis risk: bets that staked 1000 and paid 900 can't have risked 0`},
		{with(func(a *programme.Activity) { a.Categories[0].Risk = 99 }), minimalRisk, `risk of category "slots" must be given for basis risk: bets that staked 1000 and paid 900 can't have risked 99`},
		{with(func(a *programme.Activity) { a.Categories[0].Payout = 1001 }), minimalRisk, `risk of category "slots" must be given for basis risk: bets that staked 1000 and paid 1001 can't have risked 0`},
		{with(func(a *programme.Activity) { a.Categories[0].Risk = -1 }), minimalRisk, `risk of category "slots" must be from 0 to its stakes, 1000, got -1`},
		{with(func(a *programme.Activity) { a.Categories[0].Risk = 1001 }), minimal, `risk of category "slots" must be from 0 to its stakes, 1000, got 1001`},
		{with(func(a *programme.Activity) { a.Cash = &programme.Cash{Deposits: -1} }), minimalCash, `deposits and withdrawals must not be negative, got -1 and 0`},
		{with(func(a *programme.Activity) { a.Cash = &programme.Cash{Withdrawals: -2} }), minimal, `deposits and withdrawals must not be negative, got 0 and -2`},
	} {
		terms := parseOne(t, tc.file)
		owed, err := terms.Entitle(tc.activity)
		require.True(t, fault.Is(err, fault.KindInvalid), tc.reason)
		require.EqualError(t, err, "entitle under programme "+terms.Code+": "+tc.reason)
		require.Zero(t, owed)
	}
}

func TestTerms_Sources(t *testing.T) {
	t.Parallel()

	for file, want := range map[string][]string{
		minimal:         {"bets"},
		minimalCash:     {"bets", "cash"},
		minimalLossback: {"bets", "cash"},
		minimalRebate:   {"bets"},
		minimalRisk:     {"bets"},
	} {
		require.Equal(t, want, parseOne(t, file).Sources())
	}
}
