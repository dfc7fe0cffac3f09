package activity

import (
	"time"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/wallet"
)

// quarter is the span of one rollup, counted from whole hours of UTC.
const quarter = 15 * time.Minute

type rollupKey struct {
	category string
	player   string
	quarter  time.Time
}

// rollup is what settled bets add to the sums of one key.
type rollup struct {
	rollupKey

	account *wallet.Account
	numBets int64
	payout  money.Minor
	risk    money.Minor
	stake   money.Minor
}

func (b *batch) addToRollup(settled *bet) error {
	key := rollupKey{
		category: settled.category,
		player:   settled.account.Player(),
		quarter:  settled.fatedAt.UTC().Truncate(quarter),
	}
	sums := b.rollups[key]
	if sums == nil {
		sums = &rollup{rollupKey: key, account: settled.account}
		b.rollups[key] = sums
		b.rollupsTouched = append(b.rollupsTouched, sums)
	}

	sums.numBets++
	for _, part := range []struct {
		amount money.Minor
		sum    *money.Minor
	}{
		{settled.payout, &sums.payout},
		{riskOf(settled.stake, settled.payout), &sums.risk},
		{settled.stake, &sums.stake},
	} {
		sum, err := part.sum.Add(part.amount)
		if err != nil {
			return fault.Invalid("sum up bet %s: %w", settled.id, err)
		}
		*part.sum = sum
	}
	return nil
}

// riskOf is the turnover of a bet by the risk rule: what was won or lost, at
// most the stake. Both are not negative, so the difference cannot overflow.
func riskOf(stake, payout money.Minor) money.Minor {
	return min((payout - stake).Abs(), stake)
}
