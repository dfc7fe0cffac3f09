package programme_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// expectation is what the reference says of one player.
type expectation struct {
	amount  money.Minor
	basis   *big.Rat // in minor units
	capped  *big.Int
	fits    bool // false: the gross amount leaves 64 bits
	gross   *big.Int
	reason  programme.Reason
	tier    int // index of the tier, -1 for none
	tierVal *big.Rat
}

func whole(number money.Minor) *big.Rat { return new(big.Rat).SetInt64(int64(number)) }

func share(rate money.RatePPM) *big.Rat { return big.NewRat(int64(rate), 1_000_000) }

// expect works out what is owed with fractions, as one would on paper: no step is
// shared with the package but the names of fields.
func expect(terms programme.Terms, activity programme.Activity) expectation {
	want := expectation{basis: expectBasis(terms, activity), capped: new(big.Int), fits: true, gross: new(big.Int), tier: -1}
	want.tierVal = want.basis
	if terms.TierBy == programme.TierByVIP {
		want.tierVal = new(big.Rat).SetInt64(int64(activity.VIP))
	}
	hasBasis := want.basis.Sign() > 0
	if hasBasis {
		for i := len(terms.Tiers) - 1; i >= 0 && want.tier < 0; i-- {
			if want.tierVal.Cmp(whole(money.Minor(terms.Tiers[i].From))) >= 0 {
				want.tier = i
			}
		}
	}
	if want.tier >= 0 {
		exact := new(big.Rat).Mul(want.basis, share(terms.Tiers[want.tier].Rate))
		if terms.Shape == programme.ShapeGraduated {
			exact = expectGraduated(terms.Tiers, want.basis)
		}
		want.gross.Quo(exact.Num(), exact.Denom()) // not negative here
		want.fits = want.gross.Cmp(big.NewInt(math.MaxInt64)) <= 0
		want.capped.Set(want.gross)
		if terms.Cap != nil && want.capped.Cmp(big.NewInt(int64(*terms.Cap))) > 0 {
			want.capped.SetInt64(int64(*terms.Cap))
		}
	}

	isBelow := want.capped.Sign() == 0 || want.capped.Cmp(big.NewInt(int64(terms.MinPayout))) < 0
	for _, rule := range []struct {
		applies bool
		reason  programme.Reason
	}{
		{activity.Status == "self_excluded", "self_excluded"},
		{activity.Status == "closed", "closed"},
		{terms.Kind == "rebate" && !hasBasis, "no_turnover"},
		{terms.Kind != "rebate" && !hasBasis, "winner"},
		{want.tier < 0, "no_tier"},
		{isBelow, "below_min"},
	} {
		if rule.applies {
			want.reason = rule.reason
			return want
		}
	}
	want.amount = money.Minor(want.capped.Int64())
	return want
}

// expectBasis adds up each category first, then weighs it.
func expectBasis(terms programme.Terms, activity programme.Activity) *big.Rat {
	if terms.Basis == "cash" {
		basis := new(big.Rat)
		for _, part := range []struct {
			amount money.Minor
			sign   int64
		}{
			{activity.Cash.Opening, 1}, {activity.Cash.Deposits, 1}, {activity.Cash.Withdrawals, -1}, {activity.Cash.Closing, -1},
		} {
			basis.Add(basis, new(big.Rat).Mul(whole(part.amount), big.NewRat(part.sign, 1)))
		}
		return basis
	}

	of := map[string]*big.Rat{}
	for _, sum := range activity.Categories {
		if of[sum.Category] == nil {
			of[sum.Category] = new(big.Rat)
		}
		counted := new(big.Rat).Sub(whole(sum.Stake), whole(sum.Payout))
		switch {
		case terms.Kind == "rebate" && terms.Basis == "stake":
			counted = whole(sum.Stake)
		case terms.Kind == "rebate":
			counted = whole(sum.Risk)
		}
		of[sum.Category].Add(of[sum.Category], counted)
	}
	basis := new(big.Rat)
	for category, sum := range of {
		weight := share(terms.DefaultWeight)
		if named, ok := terms.Categories[category]; ok {
			weight = share(named)
		} else if terms.Categories == nil {
			weight = whole(1)
		}
		basis.Add(basis, sum.Mul(sum, weight))
	}
	if terms.LessPromotions {
		basis.Sub(basis, whole(activity.Promotions))
	}
	if terms.Kind == "lossback" {
		if deposit := whole(activity.FirstDeposit); basis.Cmp(deposit) > 0 {
			basis = deposit
		}
		if basis.Sign() < 0 {
			basis = new(big.Rat)
		}
	}
	return basis
}

// expectGraduated pays, for each tier, what the basis exceeds its start by at the
// difference between its rate and that of the tier before: no band is looked at.
func expectGraduated(tiers []programme.Tier, basis *big.Rat) *big.Rat {
	total, before := new(big.Rat), new(big.Rat)
	for _, tier := range tiers {
		above := new(big.Rat).Sub(basis, whole(money.Minor(tier.From)))
		if above.Sign() > 0 {
			total.Add(total, above.Mul(above, new(big.Rat).Sub(share(tier.Rate), before)))
		}
		before = share(tier.Rate)
	}
	return total
}

// TestTerms_Entitle_AgreesWithTheReference also counts what it came across, so
// that it can't agree about nothing.
func TestTerms_Entitle_AgreesWithTheReference(t *testing.T) {
	t.Parallel()

	const numCases = 40_000
	seen := map[string]int{}
	for seed := range uint64(numCases) {
		c := newBySeed(t, seed)
		terms, activity := drawTerms(c), drawActivity(c)
		want := expect(terms, activity)
		owed, err := terms.Entitle(activity)
		if !want.fits {
			require.ErrorIs(t, err, money.ErrOverflow, "seed %d", seed)
			seen["overflow"]++
			continue
		}
		require.NoError(t, err, "seed %d", seed)
		requireAsExpected(t, want, terms, owed, seed)

		of := string(terms.Kind) + "/" + string(terms.Basis)
		seen[of+"/"+string(owed.Reason)]++
		seen[of+"/"+string(terms.Shape)+"/"+string(terms.TierBy)]++
		if owed.Capped < owed.Gross {
			seen[of+"/capped"]++
		}
		if terms.Shape == programme.ShapeGraduated && want.tier > 0 {
			seen[of+"/several bands"]++
		}
	}
	for _, of := range []string{"cashback/cash", "cashback/game", "lossback/game", "rebate/risk", "rebate/stake"} {
		for _, what := range []string{
			"", "self_excluded", "closed", "no_tier", "below_min",
			"graduated/basis", "slab/basis", "slab/vip", "capped", "several bands",
		} {
			require.Greater(t, seen[of+"/"+what], 100, "%s %s", of, what)
		}
	}
	for _, of := range []string{"cashback/cash/winner", "cashback/game/winner", "lossback/game/winner", "rebate/risk/no_turnover", "rebate/stake/no_turnover"} {
		require.Greater(t, seen[of], 100, of)
	}
	require.Greater(t, seen["overflow"], 10)
	require.Zero(t, seen["rebate/risk/winner"]+seen["rebate/stake/winner"]+seen["cashback/cash/no_turnover"]+seen["lossback/game/no_turnover"])
}

func requireAsExpected(t *testing.T, want expectation, terms programme.Terms, owed programme.Entitlement, seed uint64) {
	t.Helper()
	require.Equal(t, want.amount, owed.Amount, "seed %d", seed)
	require.Equal(t, want.reason, owed.Reason, "seed %d", seed)
	require.Equal(t, want.gross.Int64(), int64(owed.Gross), "seed %d", seed)
	require.Equal(t, want.capped.Int64(), int64(owed.Capped), "seed %d", seed)
	require.Zero(t, want.basis.Cmp(new(big.Rat).SetFrac(owed.Basis, big.NewInt(1_000_000))), "seed %d", seed)
	if want.tier < 0 {
		require.Nil(t, owed.TierFrom, "seed %d", seed)
		require.Zero(t, owed.Rate, "seed %d", seed)
	} else {
		require.Equal(t, terms.Tiers[want.tier].From, *owed.TierFrom, "seed %d", seed)
		require.Equal(t, terms.Tiers[want.tier].Rate, owed.Rate, "seed %d", seed)
	}
	// The whole number below the value that picks the tier.
	above := new(big.Rat).Sub(want.tierVal, new(big.Rat).SetInt(owed.TierValue))
	require.True(t, above.Sign() >= 0 && above.Cmp(big.NewRat(1, 1)) < 0, "seed %d", seed)
}
