package programme

import (
	"fmt"
	"math/big"

	"truegreen/internal/money"
)

// Reason says why a player is paid nothing. The empty Reason is none: the player
// is eligible.
type Reason string

// The reasons, in the order in which they are looked for: the first that applies
// is the reason. There are no others. [Terms.Entitle] finds all but the last two,
// which are for adjustments, whose caller finds them.
const (
	ReasonSelfExcluded       Reason = "self_excluded"
	ReasonClosed             Reason = "closed"
	ReasonNoTurnover         Reason = "no_turnover"         // rebate: a basis of 0
	ReasonWinner             Reason = "winner"              // cashback, lossback: a basis of 0 or less
	ReasonNoTier             Reason = "no_tier"             // below the first tier
	ReasonBelowMin           Reason = "below_min"           // below min_payout, or rounded to 0
	ReasonOverpaid           Reason = "overpaid"            // entitled to no more than before
	ReasonEarlierUndelivered Reason = "earlier_undelivered" // an earlier credit is still on its way, or failed
)

// Entitlement is what a player is owed, with every step on the way to it. All
// steps are taken for an excluded player too, as far as they lead, so that the
// exclusion can be explained; only Amount counts as owed.
type Entitlement struct {
	Amount    money.Minor   // what is paid: Capped without Before if eligible, else 0
	Basis     *big.Int      // in millionths of a minor unit, exact; 0 or negative for a winner
	Before    money.Minor   // what was owed before; see Less
	Capped    money.Minor   // Gross, or the cap if that is less
	Gross     money.Minor   // the share of the basis, rounded down
	Rate      money.RatePPM // of the tier reached, graduated or not; 0 without one, and for a basis of 0 or less
	Reason    Reason        // "" if eligible
	TierFrom  *int64        // of the tier reached; nil without one, and for a basis of 0 or less
	TierValue *big.Int      // what picked the tier: the VIP level, or the basis in whole minor units, rounded down
}

// Entitle returns what the terms pay one player for one period. A frozen player
// is eligible like any other: whether a wallet takes the credit shows when it is
// delivered.
//
// Fails with [fault.KindInvalid] for activity that cannot be (a negative sum, an
// unknown status) or that lacks what the terms are about, for terms whose fields
// do not go together, and with [money.ErrOverflow] when Gross does not fit, even
// if the cap does. The terms must have passed [Terms.Validate], as those of
// [Parse] and [Decode] have.
func (terms Terms) Entitle(activity Activity) (Entitlement, error) {
	if err := terms.checkRules(); err != nil {
		return Entitlement{}, fmt.Errorf("entitle under programme %s: %w", terms.Code, err)
	}
	if err := terms.checkActivity(activity); err != nil {
		return Entitlement{}, fmt.Errorf("entitle under programme %s: %w", terms.Code, err)
	}

	owed := Entitlement{Basis: terms.basis(activity)}
	noTier, err := terms.share(&owed, activity.VIP)
	if err != nil {
		return Entitlement{}, err
	}

	switch {
	case activity.Status == statusSelfExcluded:
		owed.Reason = ReasonSelfExcluded
	case activity.Status == statusClosed:
		owed.Reason = ReasonClosed
	case owed.Basis.Sign() <= 0 && terms.Kind == Rebate:
		owed.Reason = ReasonNoTurnover
	case owed.Basis.Sign() <= 0:
		owed.Reason = ReasonWinner
	case noTier:
		owed.Reason = ReasonNoTier
	case owed.Capped < terms.leastPaid():
		owed.Reason = ReasonBelowMin
	default:
		owed.Amount = owed.Capped
	}
	return owed, nil
}

// share fills in what follows from the basis: tier, rate, gross, capped. It
// reports whether the player is below the first tier.
func (terms Terms) share(owed *Entitlement, vip int) (noTier bool, err error) {
	owed.TierValue = big.NewInt(int64(vip))
	if terms.TierBy == TierByBasis {
		// Div rounds down, also below zero. A tier starts at a whole number, so
		// what is cut off decides nothing.
		owed.TierValue.Div(owed.Basis, million())
	}
	if owed.Basis.Sign() <= 0 {
		return false, nil // the rate is 0, whatever the tier
	}

	reached := terms.reached(owed.TierValue)
	if reached == 0 {
		return true, nil
	}
	tier := terms.Tiers[reached-1]
	owed.Rate, owed.TierFrom = tier.Rate, &tier.From

	gross := roundDown(grossOf(terms.bands(owed.Basis, reached)))
	if !gross.IsInt64() {
		return false, fmt.Errorf("entitle under programme %s to %s minor units: %w", terms.Code, gross, money.ErrOverflow)
	}
	owed.Gross = money.Minor(gross.Int64())
	owed.Capped = owed.Gross
	if terms.Cap != nil {
		owed.Capped = min(owed.Gross, *terms.Cap)
	}
	return false, nil
}

// leastPaid is what an amount must reach to be paid.
func (terms Terms) leastPaid() money.Minor { return max(terms.MinPayout, 1) }

// grossOf adds up the bands at their rates, exactly: millionths of a minor unit
// times millionths.
func grossOf(bands []band) *big.Int {
	gross := new(big.Int)
	for _, one := range bands {
		gross.Add(gross, atRate(one.amount, one.rate))
	}
	return gross
}

// roundDown is the only place that rounds an amount; it gets the sum of all
// bands, so that no band loses a part of a unit of its own.
func roundDown(gross *big.Int) *big.Int {
	return new(big.Int).Div(gross, new(big.Int).Mul(million(), million()))
}

// atRate is an amount times a rate, in millionths of the amount's unit.
func atRate(amount *big.Int, rate money.RatePPM) *big.Int {
	return new(big.Int).Mul(amount, big.NewInt(int64(rate)))
}

func million() *big.Int { return big.NewInt(int64(money.MaxRatePPM)) }

func wide(amount money.Minor) *big.Int { return big.NewInt(int64(amount)) }

// millionths is an amount in millionths of a minor unit.
func millionths(amount money.Minor) *big.Int { return new(big.Int).Mul(wide(amount), million()) }
