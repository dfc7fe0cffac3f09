package programme_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

func TestTerms_Entitle_Edges(t *testing.T) {
	t.Parallel()

	type edge struct {
		activity programme.Activity
		amount   money.Minor
		basis    int64 // in millionths
		gross    money.Minor
		reason   programme.Reason
		terms    func(*programme.Terms)
		tierFrom *int64 // nil: none
	}
	at := func(from int64) *int64 { return &from }
	none := func(*programme.Terms) {}
	vip := func(terms *programme.Terms) {
		terms.TierBy = programme.TierByVIP
		terms.Tiers = []programme.Tier{{From: 1, Rate: 50_000}, {From: 3, Rate: 100_000}}
	}
	steps := func(terms *programme.Terms) {
		terms.Tiers = []programme.Tier{{From: 100, Rate: 50_000}, {From: 1000, Rate: 100_000}}
	}
	as := func(activity programme.Activity, change func(*programme.Activity)) programme.Activity {
		change(&activity)
		return activity
	}

	for name, tc := range map[string]edge{
		"PaysAShareOfTheLoss":             {newActivity(1500, 500), 100, 1000e6, 100, "", none, at(0)},
		"RoundsDownOnce":                  {newActivity(1019, 0), 101, 1019e6, 101, "", none, at(0)},
		"ALossOfNothingIsAWinner":         {newActivity(700, 700), 0, 0, 0, "winner", none, nil},
		"AGainIsAWinner":                  {newActivity(700, 701), 0, -1e6, 0, "winner", none, nil},
		"NoBetsIsAWinner":                 {programme.Activity{Status: "active"}, 0, 0, 0, "winner", none, nil},
		"RoundedToNothingIsBelowMin":      {newActivity(9, 0), 0, 9e6, 0, "below_min", none, at(0)},
		"TheLeastThatIsPaid":              {newActivity(10, 0), 1, 10e6, 1, "", none, at(0)},
		"ARateOfNothingIsBelowMin":        {newActivity(1000, 0), 0, 1000e6, 0, "below_min", func(terms *programme.Terms) { terms.Tiers[0].Rate = 0 }, at(0)},
		"JustBelowMinPayout":              {newActivity(999, 0), 0, 999e6, 99, "below_min", func(terms *programme.Terms) { terms.MinPayout = 100 }, at(0)},
		"JustMinPayout":                   {newActivity(1000, 0), 100, 1000e6, 100, "", func(terms *programme.Terms) { terms.MinPayout = 100 }, at(0)},
		"JustTheCap":                      {newActivity(1000, 0), 100, 1000e6, 100, "", func(terms *programme.Terms) { terms.Cap = minor(100) }, at(0)},
		"AboveTheCap":                     {newActivity(1010, 0), 100, 1010e6, 101, "", func(terms *programme.Terms) { terms.Cap = minor(100) }, at(0)},
		"AFrozenPlayerStaysEligible":      {as(newActivity(1000, 0), func(a *programme.Activity) { a.Status = "frozen" }), 100, 1000e6, 100, "", none, at(0)},
		"AClosedPlayerIsNotPaid":          {as(newActivity(1000, 0), func(a *programme.Activity) { a.Status = "closed" }), 0, 1000e6, 100, "closed", none, at(0)},
		"ASelfExcludedPlayerIsNotPaid":    {as(newActivity(1000, 0), func(a *programme.Activity) { a.Status = "self_excluded" }), 0, 1000e6, 100, "self_excluded", none, at(0)},
		"SelfExclusionGoesBeforeWinning":  {as(newActivity(0, 5), func(a *programme.Activity) { a.Status = "self_excluded" }), 0, -5e6, 0, "self_excluded", none, nil},
		"ClosureGoesBeforeTheTier":        {as(newActivity(99, 0), func(a *programme.Activity) { a.Status = "closed" }), 0, 99e6, 0, "closed", steps, nil},
		"WinningGoesBeforeTheTier":        {newActivity(0, 5), 0, -5e6, 0, "winner", steps, nil},
		"BelowTheFirstTier":               {newActivity(99, 0), 0, 99e6, 0, "no_tier", steps, nil},
		"JustTheFirstTier":                {newActivity(100, 0), 5, 100e6, 5, "", steps, at(100)},
		"JustBelowTheSecondTier":          {newActivity(999, 0), 49, 999e6, 49, "", steps, at(100)},
		"TheWholeAtTheReachedTiersRate":   {newActivity(1000, 0), 100, 1000e6, 100, "", steps, at(1000)},
		"ALevelBelowTheFirstTier":         {newActivity(1000, 0), 0, 1000e6, 0, "no_tier", vip, nil},
		"ALevelBetweenTwoTiers":           {as(newActivity(1000, 0), func(a *programme.Activity) { a.VIP = 2 }), 50, 1000e6, 50, "", vip, at(1)},
		"ALevelThatIsATier":               {as(newActivity(1000, 0), func(a *programme.Activity) { a.VIP = 3 }), 100, 1000e6, 100, "", vip, at(3)},
		"ALevelAboveTheLastTier":          {as(newActivity(1000, 0), func(a *programme.Activity) { a.VIP = 99 }), 100, 1000e6, 100, "", vip, at(3)},
		"AWinnerOfALowLevelIsAWinner":     {newActivity(0, 0), 0, 0, 0, "winner", vip, nil},
		"PromotionsCountOnlyIfTheyShould": {as(newActivity(1000, 0), func(a *programme.Activity) { a.Promotions = 400 }), 100, 1000e6, 100, "", none, at(0)},
		"PromotionsAreTakenOff":           {as(newActivity(1000, 0), func(a *programme.Activity) { a.Promotions = 400 }), 60, 600e6, 60, "", func(terms *programme.Terms) { terms.LessPromotions = true }, at(0)},
		"PromotionsMayMakeAWinner":        {as(newActivity(1000, 0), func(a *programme.Activity) { a.Promotions = 1000 }), 0, 0, 0, "winner", func(terms *programme.Terms) { terms.LessPromotions = true }, nil},
		"PromotionsHaveNoWeight": {as(newActivity(1000, 0), func(a *programme.Activity) { a.Promotions = 100 }), 40, 400e6, 40, "", func(terms *programme.Terms) {
			terms.LessPromotions, terms.Categories = true, map[string]money.RatePPM{"slots": 500_000}
		}, at(0)},
		"AWeightMayLeavePartsOfAUnit": {newActivity(1001, 0), 33, 333_333_000, 33, "", func(terms *programme.Terms) {
			terms.Categories = map[string]money.RatePPM{"slots": 333_000}
		}, at(0)},
		"PartsBelowATierDoNotReachIt": {newActivity(333, 0), 0, 99_999_900, 0, "no_tier", func(terms *programme.Terms) {
			steps(terms)
			terms.Categories = map[string]money.RatePPM{"slots": 300_300}
		}, nil},
		"ALossOfLessThanAUnitReachesZero": {newActivity(1, 0), 0, 1, 0, "below_min", func(terms *programme.Terms) {
			terms.Categories = map[string]money.RatePPM{"slots": 1}
		}, at(0)},
		"AWeightOfNothingIsAWinner": {newActivity(1000, 0), 0, 0, 0, "winner", func(terms *programme.Terms) {
			terms.Categories = map[string]money.RatePPM{"slots": 0}
		}, nil},
		"CategoriesThatAreNotNamedCountNothing": {newActivity(1000, 0), 0, 0, 0, "winner", func(terms *programme.Terms) {
			terms.Categories = map[string]money.RatePPM{"live": 1_000_000}
		}, nil},
		"CategoriesThatAreNotNamedCountTheDefault": {newActivity(1000, 0), 25, 250e6, 25, "", func(terms *programme.Terms) {
			terms.Categories, terms.DefaultWeight = map[string]money.RatePPM{"live": 1_000_000}, 250_000
		}, at(0)},
		"GainsMakeUpForLosses": {programme.Activity{Status: "active", Categories: []programme.CategorySum{
			{Category: "slots", Stake: 1000}, {Category: "live", Payout: 600, Stake: 100}, {Category: "slots", Payout: 100},
		}}, 40, 400e6, 40, "", none, at(0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			terms := newTerms(t)
			tc.terms(&terms)
			require.NoError(t, terms.Validate())
			owed, err := terms.Entitle(tc.activity)
			require.NoError(t, err)
			require.Equal(t, tc.amount, owed.Amount)
			require.Equal(t, big.NewInt(tc.basis).String(), owed.Basis.String())
			require.Equal(t, tc.gross, owed.Gross)
			require.Equal(t, tc.reason, owed.Reason)
			require.Equal(t, tc.tierFrom, owed.TierFrom)
		})
	}
}

func TestTerms_Entitle(t *testing.T) {
	t.Parallel()

	t.Run("TellsTheStepsOfTheArithmetic", func(t *testing.T) {
		t.Parallel()

		terms := parseOne(t, with("cap: 40", "categories: {slots: 500000}"))
		owed, err := terms.Entitle(newActivity(1001, 0))
		require.NoError(t, err)
		from := int64(0)
		require.Equal(t, programme.Entitlement{
			Amount: 40, Basis: big.NewInt(500_500_000), Capped: 40, Gross: 50, Rate: 100_000,
			TierFrom: &from, TierValue: big.NewInt(500),
		}, owed)

		owed, err = terms.Entitle(newActivity(0, 1))
		require.NoError(t, err)
		require.Equal(t, programme.Entitlement{
			Basis: big.NewInt(-500_000), Reason: programme.ReasonWinner, TierValue: big.NewInt(-1),
		}, owed)
	})

	t.Run("SumsBeyond64BitsAreKeptExactly", func(t *testing.T) {
		t.Parallel()

		terms := newTerms(t)
		terms.Tiers[0].Rate = 1
		activity := newActivity(math.MaxInt64, 0)
		activity.Categories = append(activity.Categories, activity.Categories[0], activity.Categories[0])
		owed, err := terms.Entitle(activity)
		require.NoError(t, err)
		require.Equal(t, "27670116110564327421000000", owed.Basis.String())
		require.Equal(t, "27670116110564327421", owed.TierValue.String())
		require.Equal(t, money.Minor(27_670_116_110_564), owed.Amount)
	})

	t.Run("AnAmountBeyond64BitsIsAnErrorEvenIfCapped", func(t *testing.T) {
		t.Parallel()

		terms := newTerms(t)
		terms.Cap, terms.Tiers[0].Rate = minor(1000), money.MaxRatePPM
		activity := newActivity(math.MaxInt64, 0)
		owed, err := terms.Entitle(activity)
		require.NoError(t, err)
		require.Equal(t, money.Minor(math.MaxInt64), owed.Gross)
		require.Equal(t, money.Minor(1000), owed.Amount)

		activity.Categories = append(activity.Categories, programme.CategorySum{Category: "slots", Stake: 1})
		_, err = terms.Entitle(activity)
		require.ErrorIs(t, err, money.ErrOverflow)
		require.EqualError(t, err, "entitle under programme daily-cashback to 9223372036854775808 minor units: amount does not fit into 64 bits")
	})

	t.Run("RefusesActivityThatCannotBe", func(t *testing.T) {
		t.Parallel()

		for reason, change := range map[string]func(*programme.Activity){
			`status "" must be active, frozen, closed, or self_excluded`:                       func(a *programme.Activity) { a.Status = "" },
			`status "Active" must be active, frozen, closed, or self_excluded`:                 func(a *programme.Activity) { a.Status = "Active" },
			`promotions must not be negative, got -1`:                                          func(a *programme.Activity) { a.Promotions = -1 },
			`VIP level must not be negative, got -1`:                                           func(a *programme.Activity) { a.VIP = -1 },
			`stakes and payouts of category "slots" must not be negative, got -1 and 0`:        func(a *programme.Activity) { a.Categories[0].Stake = -1 },
			`stakes and payouts of category "slots" must not be negative, got 1000 and -10000`: func(a *programme.Activity) { a.Categories[0].Payout = -10000 },
		} {
			activity := newActivity(1000, 0)
			change(&activity)
			_, err := newTerms(t).Entitle(activity)
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.EqualError(t, err, "entitle under programme daily-cashback: "+reason)
		}
	})

	t.Run("RefusesTermsThatDoNotGoTogether", func(t *testing.T) {
		t.Parallel()

		for reason, change := range map[string]func(*programme.Terms){
			`kind must be cashback, lossback, or rebate, got "bonus"`: func(terms *programme.Terms) { terms.Kind = "bonus" },
			`basis of a cashback must be cash or game, got "stake"`:   func(terms *programme.Terms) { terms.Basis = programme.BasisStake },
			`basis of a rebate must be risk or stake, got "game"`:     func(terms *programme.Terms) { terms.Kind = programme.Rebate },
			`tier_by must be basis or vip, got ""`:                    func(terms *programme.Terms) { terms.TierBy = "" },
			`shape must be slab with tier_by vip, got "graduated": bands are parts of the basis`: func(terms *programme.Terms) {
				terms.Shape, terms.TierBy = programme.ShapeGraduated, programme.TierByVIP
			},
			`shape must be graduated or slab, got ""`: func(terms *programme.Terms) { terms.Shape = "" },
			`less_promotions must be left out with basis cash: its closing balance holds the promotions already`: func(terms *programme.Terms) {
				terms.Basis, terms.LessPromotions = programme.BasisCash, true
			},
			`window must be a duration from 1m0s to 8784h0m0s, got 0s`:                                func(terms *programme.Terms) { terms.Kind = programme.Lossback },
			`window must be left out of a cashback: only a lossback counts from the first deposit on`: func(terms *programme.Terms) { terms.Window = time.Hour },
		} {
			terms := newTerms(t)
			change(&terms)
			owed, err := terms.Entitle(newActivity(1000, 0))
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.EqualError(t, err, "entitle under programme daily-cashback: "+reason)
			require.Zero(t, owed)
			require.ErrorContains(t, terms.Validate(), reason)
		}
	})
}
