package programme

import (
	"math/big"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// CategorySum is what one player staked and won in one category: bets that were
// settled in the period, or of a lossback in its window. None is negative.
type CategorySum struct {
	Category string
	Payout   money.Minor
	Risk     money.Minor // of each bet min(|payout - stake|, stake), summed; needed for BasisRisk
	Stake    money.Minor
}

// Cash is what one player had, paid in, and took out. Balances may be negative,
// payments not.
type Cash struct {
	Closing     money.Minor // the balance at the period's end
	Deposits    money.Minor
	Opening     money.Minor // the balance at the period's start
	Withdrawals money.Minor
}

// Activity is what counts of one player and one period. The order of Categories
// is of no importance; a category may come several times. What the terms do not
// need is not looked at, beyond that it must be possible.
type Activity struct {
	Cash         *Cash // needed for BasisCash
	Categories   []CategorySum
	FirstDeposit money.Minor // the first ever; needed for a lossback, above 0
	Promotions   money.Minor // promotion credits of the period, or of the window; not negative
	Status       string      // active, frozen, closed, or self_excluded, as of now
	VIP          int         // the level at the period's end; not negative
}

const (
	statusActive       = "active"
	statusClosed       = "closed"
	statusFrozen       = "frozen"
	statusSelfExcluded = "self_excluded"
)

// checkActivity refuses what cannot be, and what lacks something that the terms
// need: it would count as nothing, and nobody would be paid or told.
func (terms Terms) checkActivity(activity Activity) error {
	if err := activity.check(); err != nil {
		return err
	}
	switch {
	case terms.Basis == BasisCash && activity.Cash == nil:
		return fault.Invalid("balances and payments must be given for basis cash")
	case terms.Kind == Lossback && activity.FirstDeposit == 0:
		return fault.Invalid("first deposit must be given for a lossback")
	case terms.Basis == BasisRisk:
		return checkRisk(activity.Categories)
	}
	return nil
}

// checkRisk finds sums whose risk was left out. A bet risks something unless its
// payout is its stake, and all that it lost.
func checkRisk(sums []CategorySum) error {
	for _, sum := range sums {
		if sum.Risk < sum.Stake-sum.Payout || (sum.Risk == 0 && sum.Stake != sum.Payout) {
			return fault.Invalid("risk of category %s must be given for basis risk: bets that staked %d and paid %d can't have risked %d",
				quote(sum.Category), sum.Stake, sum.Payout, sum.Risk)
		}
	}
	return nil
}

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
	if activity.FirstDeposit < 0 {
		return fault.Invalid("first deposit must not be negative, got %d", activity.FirstDeposit)
	}
	if cash := activity.Cash; cash != nil && (cash.Deposits < 0 || cash.Withdrawals < 0) {
		return fault.Invalid("deposits and withdrawals must not be negative, got %d and %d", cash.Deposits, cash.Withdrawals)
	}
	for _, sum := range activity.Categories {
		if sum.Stake < 0 || sum.Payout < 0 {
			return fault.Invalid("stakes and payouts of category %s must not be negative, got %d and %d",
				quote(sum.Category), sum.Stake, sum.Payout)
		}
		if sum.Risk < 0 || sum.Risk > sum.Stake {
			return fault.Invalid("risk of category %s must be from 0 to its stakes, %d, got %d",
				quote(sum.Category), sum.Stake, sum.Risk)
		}
	}
	return nil
}

// basis returns the sum that the amount is a share of, in millionths.
func (terms Terms) basis(activity Activity) *big.Int {
	switch {
	case terms.Basis == BasisCash:
		return activity.Cash.basis()
	case terms.Kind == Lossback:
		return lossOfDeposit(activity.FirstDeposit, terms.netLoss(activity))
	case terms.Kind == Rebate:
		return terms.weighed(activity)
	default:
		return terms.netLoss(activity)
	}
}

// basis is what was there or paid in, and neither is there nor was taken out.
// Sums may leave 64 bits, so they are not taken as amounts.
func (cash Cash) basis() *big.Int {
	gone := new(big.Int).Add(millionths(cash.Opening), millionths(cash.Deposits))
	return gone.Sub(gone, new(big.Int).Add(millionths(cash.Withdrawals), millionths(cash.Closing)))
}

// netLoss is what was lost in each category, times its weight, less the
// promotions if the terms say so. Winnings of one category make up for losses of
// another. Promotions have no category and so no weight.
func (terms Terms) netLoss(activity Activity) *big.Int {
	lost := terms.weighed(activity)
	if terms.LessPromotions {
		lost.Sub(lost, millionths(activity.Promotions))
	}
	return lost
}

// lossOfDeposit is the net loss, but at most what was deposited first and never
// negative.
func lossOfDeposit(firstDeposit money.Minor, netLoss *big.Int) *big.Int {
	basis := millionths(firstDeposit)
	if netLoss.Cmp(basis) < 0 {
		basis = netLoss
	}
	if basis.Sign() < 0 {
		return new(big.Int)
	}
	return basis
}

// weighed adds up what counts of each category, times its weight, in millionths.
func (terms Terms) weighed(activity Activity) *big.Int {
	total := new(big.Int)
	for _, sum := range activity.Categories {
		total.Add(total, atRate(terms.counted(sum), terms.weight(sum.Category)))
	}
	return total
}

// counted is what counts of a category, before its weight.
func (terms Terms) counted(sum CategorySum) *big.Int {
	switch terms.Basis {
	case BasisRisk:
		return wide(sum.Risk)
	case BasisStake:
		return wide(sum.Stake)
	default:
		// The difference may leave 64 bits, so it is not taken as amounts.
		return new(big.Int).Sub(wide(sum.Stake), wide(sum.Payout))
	}
}
