package programme_test

import (
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

func TestTerms_Entitle_Properties(t *testing.T) {
	t.Parallel()

	t.Run("NobodyIsPaidBelowZeroAboveTheCapOrMoreThanTheBasis", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms := drawTerms(byRapid{t})
			owed, err := terms.Entitle(drawActivity(byRapid{t}))
			if err != nil {
				require.ErrorIs(t, err, money.ErrOverflow)
				return
			}
			require.GreaterOrEqual(t, owed.Amount, money.Minor(0))
			if terms.Cap != nil {
				require.LessOrEqual(t, owed.Amount, *terms.Cap)
			}
			if owed.Amount > 0 {
				require.GreaterOrEqual(t, owed.Amount, terms.MinPayout)
				paid := new(big.Int).Mul(big.NewInt(int64(owed.Amount)), big.NewInt(1_000_000))
				require.LessOrEqual(t, paid.Cmp(owed.Basis), 0)
			}
			require.Equal(t, owed.Reason == "", owed.Amount > 0)
		})
	})

	t.Run("WhoLostOrStakedNothingIsNeverPaid", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			for i := range activity.Categories {
				sum := &activity.Categories[i]
				sum.Payout = max(sum.Payout, sum.Stake)
				if terms.Kind == programme.Rebate {
					*sum = programme.CategorySum{Category: sum.Category}
				}
			}
			cash := activity.Cash
			cash.Closing = max(cash.Closing, cash.Opening+cash.Deposits)
			owed, err := terms.Entitle(activity)
			require.NoError(t, err)
			require.Zero(t, owed.Amount)
			reason := programme.ReasonWinner
			if terms.Kind == programme.Rebate {
				reason = programme.ReasonNoTurnover
			}
			require.Contains(t, []programme.Reason{"self_excluded", "closed", reason}, owed.Reason)
		})
	})

	t.Run("LosingMoreNeverPaysLess", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, less := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			for i := 1; i < len(terms.Tiers); i++ {
				terms.Tiers[i].Rate = max(terms.Tiers[i].Rate, terms.Tiers[i-1].Rate)
			}
			more := less
			stake := money.Minor(rapid.Int64Range(0, 100_000).Draw(t, "more"))
			more.Categories = append([]programme.CategorySum{{
				Category: rapid.SampledFrom(categories()).Draw(t, "category of more"),
				Risk:     stake,
				Stake:    stake,
			}}, less.Categories...)
			cash := *less.Cash
			cash.Closing -= stake
			more.Cash = &cash

			owedLess, errLess := terms.Entitle(less)
			owedMore, errMore := terms.Entitle(more)
			if errMore != nil {
				require.ErrorIs(t, errMore, money.ErrOverflow)
				return
			}
			require.NoError(t, errLess)
			require.LessOrEqual(t, owedLess.Amount, owedMore.Amount)
		})
	})

	t.Run("TheOrderOfCategoriesIsOfNoImportance", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			other := activity
			other.Categories = shuffled(byRapid{t}, activity.Categories)

			owed, err := terms.Entitle(activity)
			again, errAgain := terms.Entitle(other)
			require.Equal(t, err == nil, errAgain == nil)
			require.Equal(t, owed, again)
		})
	})

	t.Run("BandsOfOneRateAreTheWholeAtThatRate", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			terms.TierBy = programme.TierByBasis
			terms.Tiers[0].From = 0
			for i := range terms.Tiers {
				terms.Tiers[i].Rate = terms.Tiers[0].Rate
			}
			terms.Shape = programme.ShapeGraduated
			graduated, err := terms.Entitle(activity)
			terms.Shape = programme.ShapeSlab
			slab, errSlab := terms.Entitle(activity)
			require.Equal(t, errSlab == nil, err == nil)
			require.Equal(t, slab, graduated)
		})
	})

	t.Run("BandsOfRisingRatesPayNoMoreThanTheWholeAtTheLast", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			terms.TierBy = programme.TierByBasis
			for i := 1; i < len(terms.Tiers); i++ {
				terms.Tiers[i].Rate = max(terms.Tiers[i].Rate, terms.Tiers[i-1].Rate)
			}
			terms.Shape = programme.ShapeSlab
			slab, err := terms.Entitle(activity)
			if err != nil {
				require.ErrorIs(t, err, money.ErrOverflow)
				return
			}
			terms.Shape = programme.ShapeGraduated
			graduated, err := terms.Entitle(activity)
			require.NoError(t, err)
			require.LessOrEqual(t, graduated.Gross, slab.Gross)
			require.Equal(t, slab.Rate, graduated.Rate)
			require.Equal(t, slab.TierFrom, graduated.TierFrom)
		})
	})

	t.Run("ALossbackGivesBackNoMoreThanTheFirstDeposit", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			terms.Kind, terms.Basis, terms.Window = programme.Lossback, programme.BasisGame, time.Hour
			owed, err := terms.Entitle(activity)
			require.NoError(t, err)
			require.LessOrEqual(t, owed.Gross, activity.FirstDeposit)
			require.GreaterOrEqual(t, owed.Basis.Sign(), 0)
		})
	})

	t.Run("WhatWasAtRiskIsNoMoreThanWhatWasStaked", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms, activity := drawTerms(byRapid{t}), drawActivity(byRapid{t})
			terms.Kind, terms.LessPromotions, terms.Window = programme.Rebate, false, 0
			terms.TierBy, terms.Shape = programme.TierByVIP, programme.ShapeSlab
			terms.Basis = programme.BasisStake
			ofStakes, err := terms.Entitle(activity)
			if err != nil {
				require.ErrorIs(t, err, money.ErrOverflow)
				return
			}
			terms.Basis = programme.BasisRisk
			atRisk, err := terms.Entitle(activity)
			require.NoError(t, err)
			require.LessOrEqual(t, atRisk.Basis.Cmp(ofStakes.Basis), 0)
			require.LessOrEqual(t, atRisk.Amount, ofStakes.Amount)
		})
	})
}
