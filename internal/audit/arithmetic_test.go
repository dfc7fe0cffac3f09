package audit_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbfactory"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// TestFindings_Arithmetic has the views work out again, in SQL, what the
// calculation worked out for any terms and any activity.
func TestFindings_Arithmetic(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	tx := begin(ctx, t)
	var players []string
	for i := range 40 {
		players = append(players, dbfactory.Player(ctx, t, tx, &dbfactory.PlayerOpts{Code: fmt.Sprintf("player-%d", i)}))
	}

	numEligible := map[string]int{}
	for seed := range uint64(90) {
		savepoint, err := tx.Begin(ctx)
		require.NoError(t, err)
		random := rand.New(rand.NewPCG(seed, 0)) // the same each time
		w := &world{terms: anyTerms(t, random), tx: savepoint}
		w.programme(ctx, t)
		var items []given
		for _, player := range players {
			item := given{activity: anyActivity(random), player: player}
			owed, err := w.terms.Entitle(item.activity)
			require.NoError(t, err)
			if owed.Reason == "" {
				item.delivery = "pending"
				numEligible[fmt.Sprintf("%s/%s/%s", w.terms.Kind, w.terms.Basis, w.terms.Shape)]++
			}
			items = append(items, item)
		}
		w.run(ctx, t, ending{state: "awaiting_approval"}, items...)
		found, details := findings(ctx, t, savepoint)
		require.Empty(t, found, "seed %d: %s", seed, details)
		require.NoError(t, savepoint.Rollback(ctx))
	}
	require.Len(t, numEligible, 10, "each basis in each shape: %v", numEligible)
	for terms, num := range numEligible {
		require.Greater(t, num, 20, terms)
	}
}

func anyTerms(t *testing.T, random *rand.Rand) programme.Terms {
	t.Helper()
	terms := termsOf(t, [...]programme.Terms{
		{Kind: programme.Cashback, Basis: programme.BasisCash},
		{Kind: programme.Cashback, Basis: programme.BasisGame},
		{Kind: programme.Lossback, Basis: programme.BasisGame},
		{Kind: programme.Rebate, Basis: programme.BasisRisk},
		{Kind: programme.Rebate, Basis: programme.BasisStake},
	}[random.IntN(5)])
	if terms.LessPromotions {
		terms.LessPromotions = random.IntN(2) == 0
	}
	terms.MinPayout = money.Minor(random.IntN(100))
	if random.IntN(3) == 0 {
		terms.Cap = nil
	}
	if random.IntN(3) == 0 {
		terms.Categories, terms.DefaultWeight = nil, 0
	}
	switch random.IntN(3) {
	case 0:
		terms.TierBy = programme.TierByVIP
		terms.Tiers = []programme.Tier{{From: 1, Rate: 1}, {From: 2, Rate: 333_333}, {From: 5, Rate: 1_000_000}}
	case 1:
		terms.Shape = programme.ShapeGraduated
		if random.IntN(2) == 0 {
			// Bands with parts of a unit, one that pays nothing, and one that is vast.
			terms.Tiers = []programme.Tier{
				{From: 0, Rate: 333_333}, {From: 1, Rate: 333_333}, {From: 1_000, Rate: 0}, {From: 100_001, Rate: 7}, {From: 1 << 58, Rate: 1_000_000},
			}
		}
	}
	return terms
}

// anyActivity is of any size, and often at the edge of a tier. It has what any
// terms need.
func anyActivity(random *rand.Rand) programme.Activity {
	size := func() int64 { return []int64{3, 1_100, 110_000, 1 << 60}[random.IntN(4)] }
	activity := programme.Activity{
		FirstDeposit: 1 + money.Minor(random.Int64N(size())),
		Promotions:   money.Minor(random.Int64N(50)),
		Status:       []string{"active", "active", "active", "frozen", "closed", "self_excluded"}[random.IntN(6)],
		VIP:          random.IntN(7),
	}
	for _, category := range []string{"slots", "live", "bingo", "slots"}[random.IntN(3):] {
		size := size()
		sum := programme.CategorySum{Category: category, Payout: money.Minor(random.Int64N(size)), Stake: money.Minor(random.Int64N(size))}
		if random.IntN(4) == 0 {
			sum.Stake = sum.Payout + []money.Minor{1_000, 999, 100_000, 99_999, 0}[random.IntN(5)]
		}
		if sum.Stake == 0 {
			sum.Payout = 0 // nothing at stake wins nothing
		}
		sum.Risk = min(max(sum.Payout-sum.Stake, sum.Stake-sum.Payout), sum.Stake)
		activity.Categories = append(activity.Categories, sum)
	}
	cash := size()
	activity.Cash = &programme.Cash{
		Closing: money.Minor(random.Int64N(cash)) - 1, Deposits: money.Minor(random.Int64N(cash)),
		Opening: money.Minor(random.Int64N(cash)) - 1, Withdrawals: money.Minor(random.Int64N(cash)),
	}
	if random.IntN(4) == 0 {
		activity.Cash.Opening = activity.Cash.Closing + activity.Cash.Withdrawals - activity.Cash.Deposits + []money.Minor{1_000, 999, 100_000, 99_999, 0}[random.IntN(5)]
	}
	return activity
}
