package programme

import (
	"fmt"
	"math/big"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// Reason says why a player is paid nothing. The empty Reason is none: the player
// is eligible.
type Reason string

// The reasons, in the order in which they are looked for: the first that applies
// is the reason. There are no others. [Terms.Entitle] finds those of a cashback;
// no_turnover is for rebates, and the last two are for adjustments, whose caller
// finds them.
const (
	ReasonSelfExcluded       Reason = "self_excluded"
	ReasonClosed             Reason = "closed"
	ReasonNoTurnover         Reason = "no_turnover"         // a basis of 0
	ReasonWinner             Reason = "winner"              // a basis of 0 or less
	ReasonNoTier             Reason = "no_tier"             // below the first tier
	ReasonBelowMin           Reason = "below_min"           // below min_payout, or rounded to 0
	ReasonOverpaid           Reason = "overpaid"            // entitled to no more than before
	ReasonEarlierUndelivered Reason = "earlier_undelivered" // an earlier credit is still on its way, or failed
)

// CategorySum is what one player staked and won in one category: bets that were
// settled in the period. Neither is negative.
type CategorySum struct {
	Category string
	Payout   money.Minor
	Stake    money.Minor
}

// Activity is what counts of one player and one period. The order of Categories
// is of no importance; a category may come several times.
type Activity struct {
	Categories []CategorySum
	Promotions money.Minor // promotion credits of the period; not negative
	Status     string      // active, frozen, closed, or self_excluded, as of now
	VIP        int         // the level at the period's end; not negative
}

// Entitlement is what a player is owed, with every step on the way to it. All
// steps are taken for an excluded player too, as far as they lead, so that the
// exclusion can be explained; only Amount counts as owed.
type Entitlement struct {
	Amount    money.Minor   // what is paid: Capped if eligible, else 0
	Basis     *big.Int      // in millionths of a minor unit, exact; negative for a winner
	Capped    money.Minor   // Gross, or the cap if that is less
	Gross     money.Minor   // the share of the basis, rounded down
	Rate      money.RatePPM // of the tier reached; 0 without one, and for a winner
	Reason    Reason        // "" if eligible
	TierFrom  *int64        // of the tier reached; nil without one, and for a winner
	TierValue *big.Int      // what picked the tier: the VIP level, or the basis in whole minor units, rounded down
}

// Entitle returns what the terms pay one player for one period. A frozen player
// is eligible like any other: whether a wallet takes the credit shows when it is
// delivered.
//
// Fails with [fault.KindInvalid] for activity that cannot be (a negative sum, an
// unknown status) and for terms that this version can't work out, and with
// [money.ErrOverflow] when Gross does not fit, even if the cap does. The terms
// must have passed [Terms.Validate], as those of [Parse] and [Decode] have.
func (terms Terms) Entitle(activity Activity) (Entitlement, error) {
	if err := terms.checkBuilt(); err != nil {
		return Entitlement{}, err
	}
	if err := activity.check(); err != nil {
		return Entitlement{}, fmt.Errorf("entitle under programme %s: %w", terms.Code, err)
	}

	owed := Entitlement{Basis: terms.netLoss(activity)}
	noTier, err := terms.share(&owed, activity.VIP)
	if err != nil {
		return Entitlement{}, err
	}

	switch {
	case activity.Status == statusSelfExcluded:
		owed.Reason = ReasonSelfExcluded
	case activity.Status == statusClosed:
		owed.Reason = ReasonClosed
	case owed.Basis.Sign() <= 0:
		owed.Reason = ReasonWinner
	case noTier:
		owed.Reason = ReasonNoTier
	case owed.Capped < terms.MinPayout || owed.Capped == 0:
		owed.Reason = ReasonBelowMin
	default:
		owed.Amount = owed.Capped
	}
	return owed, nil
}

// netLoss returns the basis: what was lost in each category, times its weight,
// less the promotions if the terms say so. Winnings of one category make up for
// losses of another. Promotions have no category and so no weight.
func (terms Terms) netLoss(activity Activity) *big.Int {
	basis := new(big.Int)
	for _, sum := range activity.Categories {
		// The difference may leave 64 bits, so it is not taken as amounts.
		lost := new(big.Int).Sub(wide(sum.Stake), wide(sum.Payout))
		basis.Add(basis, lost.Mul(lost, big.NewInt(int64(terms.weight(sum.Category)))))
	}
	if terms.LessPromotions {
		promotions := wide(activity.Promotions)
		basis.Sub(basis, promotions.Mul(promotions, million()))
	}
	return basis
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
		return false, nil // the rate of a winner is 0, whatever the tier
	}

	tier, found := terms.tier(owed.TierValue)
	if !found {
		return true, nil
	}
	owed.Rate, owed.TierFrom = tier.Rate, &tier.From

	// Millionths of a minor unit times millionths: rounded here and nowhere else.
	gross := new(big.Int).Mul(owed.Basis, big.NewInt(int64(tier.Rate)))
	gross.Div(gross, new(big.Int).Mul(million(), million()))
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

// checkBuilt refuses terms of another version, which Parse and Decode would have
// refused: they must not be paid by the wrong rule.
func (terms Terms) checkBuilt() error {
	if terms.Kind != Cashback || terms.Basis != BasisGame || terms.Shape != ShapeSlab ||
		(terms.TierBy != TierByBasis && terms.TierBy != TierByVIP) {
		return fault.Invalid("entitle under programme %s: %s %s by %s, tier by %s, %s",
			terms.Code, terms.Shape, terms.Kind, terms.Basis, terms.TierBy, notSupported)
	}
	return nil
}

const (
	statusActive       = "active"
	statusClosed       = "closed"
	statusFrozen       = "frozen"
	statusSelfExcluded = "self_excluded"
)

func (activity Activity) check() error {
	switch activity.Status {
	case statusActive, statusClosed, statusFrozen, statusSelfExcluded:
	default:
		return fault.Invalid("status %s must be active, frozen, closed, or self_excluded", quote(activity.Status))
	}
	if activity.Promotions < 0 {
		return fault.Invalid("promotions must not be negative, got %d", activity.Promotions)
	}
	if activity.VIP < 0 {
		return fault.Invalid("VIP level must not be negative, got %d", activity.VIP)
	}
	for _, sum := range activity.Categories {
		if sum.Stake < 0 || sum.Payout < 0 {
			return fault.Invalid("stakes and payouts of category %s must not be negative, got %d and %d",
				quote(sum.Category), sum.Stake, sum.Payout)
		}
	}
	return nil
}

func million() *big.Int { return big.NewInt(int64(money.MaxRatePPM)) }

func wide(amount money.Minor) *big.Int { return big.NewInt(int64(amount)) }
