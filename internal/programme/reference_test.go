package programme_test

import (
	"math"
	"math/big"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// expectation is what the reference says of one player.
type expectation struct {
	amount  money.Minor
	basis   *big.Rat // in minor units
	fits    bool     // false: the gross amount leaves 64 bits
	gross   *big.Int
	reason  programme.Reason
	tier    int // index of the tier, -1 for none
	tierVal *big.Rat
}

// expect works out a cashback with fractions, as one would on paper: no step is
// shared with the package but the names of fields.
func expect(terms programme.Terms, activity programme.Activity) expectation {
	whole := func(number int64) *big.Rat { return new(big.Rat).SetInt64(number) }
	share := func(rate money.RatePPM) *big.Rat { return big.NewRat(int64(rate), 1_000_000) }

	// Stakes and payouts of each category are added up first, then weighed.
	stakes, payouts := map[string]*big.Rat{}, map[string]*big.Rat{}
	for _, sum := range activity.Categories {
		if stakes[sum.Category] == nil {
			stakes[sum.Category], payouts[sum.Category] = new(big.Rat), new(big.Rat)
		}
		stakes[sum.Category].Add(stakes[sum.Category], whole(int64(sum.Stake)))
		payouts[sum.Category].Add(payouts[sum.Category], whole(int64(sum.Payout)))
	}
	want := expectation{basis: new(big.Rat), fits: true, gross: new(big.Int), tier: -1}
	for category := range stakes {
		weight := share(terms.DefaultWeight)
		if named, ok := terms.Categories[category]; ok {
			weight = share(named)
		} else if terms.Categories == nil {
			weight = whole(1)
		}
		loss := new(big.Rat).Sub(stakes[category], payouts[category])
		want.basis.Add(want.basis, loss.Mul(loss, weight))
	}
	if terms.LessPromotions {
		want.basis.Sub(want.basis, whole(int64(activity.Promotions)))
	}

	want.tierVal = want.basis
	if terms.TierBy == programme.TierByVIP {
		want.tierVal = whole(int64(activity.VIP))
	}
	isWinner := want.basis.Cmp(whole(0)) <= 0
	capped := new(big.Int)
	if !isWinner {
		for i := len(terms.Tiers) - 1; i >= 0 && want.tier < 0; i-- {
			if want.tierVal.Cmp(whole(terms.Tiers[i].From)) >= 0 {
				want.tier = i
			}
		}
		if want.tier >= 0 {
			exact := new(big.Rat).Mul(want.basis, share(terms.Tiers[want.tier].Rate))
			want.gross.Quo(exact.Num(), exact.Denom()) // not negative here
			want.fits = want.gross.Cmp(big.NewInt(math.MaxInt64)) <= 0
		}
		capped.Set(want.gross)
		if terms.Cap != nil && capped.Cmp(big.NewInt(int64(*terms.Cap))) > 0 {
			capped.SetInt64(int64(*terms.Cap))
		}
	}

	isBelow := capped.Sign() == 0 || capped.Cmp(big.NewInt(int64(terms.MinPayout))) < 0
	for _, rule := range []struct {
		applies bool
		reason  programme.Reason
	}{
		{activity.Status == "self_excluded", "self_excluded"},
		{activity.Status == "closed", "closed"},
		{isWinner, "winner"},
		{want.tier < 0, "no_tier"},
		{isBelow, "below_min"},
	} {
		if rule.applies {
			want.reason = rule.reason
			return want
		}
	}
	want.amount = money.Minor(capped.Int64())
	return want
}
