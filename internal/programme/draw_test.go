package programme_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/money"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

// chooser draws numbers: by rapid, which shrinks what fails, or from a seed,
// which is quick.
type chooser interface {
	between(label string, least, most int64) int64
	require.TestingT
}

type byRapid struct{ *rapid.T }

func (c byRapid) between(label string, least, most int64) int64 {
	return rapid.Int64Range(least, most).Draw(c.T, label)
}

type bySeed struct {
	require.TestingT
	random *rand.Rand
}

func newBySeed(t require.TestingT, seed uint64) bySeed {
	return bySeed{TestingT: t, random: rand.New(rand.NewPCG(seed, 1))}
}

func (c bySeed) between(_ string, least, most int64) int64 {
	return least + c.random.Int64N(most-least+1)
}

func pick[T any](c chooser, label string, options ...T) T {
	return options[c.between(label, 0, int64(len(options)-1))]
}

func chance(c chooser, label string) bool { return pick(c, label, false, true) }

func drawRate(c chooser, label string) money.RatePPM {
	if chance(c, label+" is an edge") {
		return pick[money.RatePPM](c, label, 0, 1, 999_999, 1_000_000, 50_000)
	}
	return money.RatePPM(c.between(label, 0, 1_000_000))
}

func categories() []string { return []string{"live", "poker", "slots", "sports", "ταβλι"} }

// drawTerms returns valid terms of every kind, basis and shape. Amounts are drawn
// near each other, so that every branch is taken.
func drawTerms(c chooser) programme.Terms {
	terms := programme.Terms{
		Code:           pick(c, "code", "a", "0", "daily-cashback", "x_1-y"),
		Currency:       pick(c, "currency", "EUR", "KRW"),
		EffectiveFrom:  day(c, pick(c, "effective_from", "1973-01-01", "2026-10-01", "9999-12-31")),
		Grace:          time.Duration(c.between("grace", 0, 31*24*3600)) * time.Second,
		InputsDeadline: time.Duration(c.between("inputs_deadline", 1, 31*24*3600)) * time.Second,
		MaxAttempts:    int(c.between("max_attempts", 1, programme.MaxAttempts)),
		MinPayout:      money.Minor(pick(c, "min_payout is small", c.between("min_payout", 0, 3), c.between("min_payout", 0, 1000))),
		OnPartial:      pick(c, "on_partial", programme.OnPartialComplete, programme.OnPartialError),
		Period:         pick(c, "period", timewindow.Daily, timewindow.Weekly, timewindow.Monthly),
		Shape:          programme.ShapeSlab,
		TierBy:         pick(c, "tier_by", programme.TierByBasis, programme.TierByBasis, programme.TierByVIP),
		TimeZone:       pick(c, "time_zone", "UTC", "Asia/Seoul", "America/Sao_Paulo"),
	}
	drawKind(c, &terms)
	if terms.TierBy == programme.TierByBasis {
		terms.Shape = pick(c, "shape", programme.ShapeGraduated, programme.ShapeSlab)
	}
	if chance(c, "has a cap") {
		terms.Cap = minor(terms.MinPayout + money.Minor(c.between("cap above min_payout", 1, 5000)))
	}
	if chance(c, "has auto_approve_below") {
		terms.AutoApproveBelow = minor(money.Minor(c.between("auto_approve_below", 0, 1<<62)))
	}
	if chance(c, "has a budget") {
		terms.Budget = &programme.Budget{
			Limit:  money.Minor(pick(c, "budget.limit", 1, 1_000_000, 1<<63-1)),
			Window: pick(c, "budget.window", timewindow.Daily, timewindow.Weekly, timewindow.Monthly),
		}
	}
	from := pick[int64](c, "first from", 0, 0, 1, 50)
	for range c.between("tiers", 1, 4) {
		terms.Tiers = append(terms.Tiers, programme.Tier{From: from, Rate: drawRate(c, "rate_ppm")})
		from += pick[int64](c, "step", 1, 2, 1000, 50_000)
	}
	return terms
}

// drawKind draws what depends on the kind.
func drawKind(c chooser, terms *programme.Terms) {
	terms.Kind = pick(c, "kind", programme.Cashback, programme.Lossback, programme.Rebate)
	switch terms.Kind {
	case programme.Cashback:
		terms.Basis = pick(c, "basis", programme.BasisCash, programme.BasisGame)
	case programme.Lossback:
		terms.Basis = programme.BasisGame
		terms.Window = time.Duration(c.between("window", 60, 366*24*3600)) * time.Second
	case programme.Rebate:
		terms.Basis = pick(c, "basis", programme.BasisRisk, programme.BasisStake)
	}
	if terms.Basis == programme.BasisGame {
		terms.LessPromotions = chance(c, "less_promotions")
	}
	if terms.Basis != programme.BasisCash && chance(c, "has categories") {
		terms.Categories = map[string]money.RatePPM{}
		for range c.between("categories", 1, 4) {
			terms.Categories[pick(c, "category", categories()...)] = drawRate(c, "weight")
		}
		terms.DefaultWeight = drawRate(c, "default_weight_ppm")
	}
}

// drawActivity returns the activity of a player, with losses and gains near to
// the bounds that drawTerms draws, or far above. It has what any terms need.
func drawActivity(c chooser) programme.Activity {
	cash := programme.Cash{
		Closing:     drawAmount(c, "closing"),
		Deposits:    drawAmount(c, "deposits"),
		Opening:     drawAmount(c, "opening"),
		Withdrawals: drawAmount(c, "withdrawals"),
	}
	if chance(c, "overdrawn") {
		cash.Opening, cash.Closing = -cash.Opening, -drawAmount(c, "overdraft")
	}
	activity := programme.Activity{
		Cash:         &cash,
		FirstDeposit: 1 + drawAmount(c, "first deposit"),
		Promotions:   money.Minor(c.between("promotions", 0, 2000)),
		Status:       pick(c, "status", "active", "active", "active", "active", "active", "frozen", "closed", "self_excluded"),
		VIP:          int(pick[int64](c, "vip", 0, 1, 2, 3, 51, 2000)),
	}
	for range c.between("sums", 0, 5) {
		activity.Categories = append(activity.Categories, drawSum(c))
	}
	if c.between("leaves 64 bits", 0, 20) == 20 {
		huge := programme.CategorySum{Category: "slots", Risk: 1 << 62, Stake: 1 << 62}
		activity.Categories = append(activity.Categories, huge, huge, huge)
	}
	return activity
}

func drawAmount(c chooser, label string) money.Minor {
	most := pick[int64](c, label+" at most", 1, 2_000, 200_000, 200_000, 1<<61)
	return money.Minor(c.between(label, 0, most))
}

// drawSum adds up a bet or some, so that their risk is one that bets can have.
func drawSum(c chooser) programme.CategorySum {
	sum := programme.CategorySum{Category: pick(c, "category", categories()...)}
	for range c.between("bets", 1, 2) {
		stake, payout := drawAmount(c, "stake")+1, drawAmount(c, "payout")
		switch c.between("lost", 0, 3) {
		case 0, 1:
			payout = min(payout, stake/2)
		case 2:
			payout = stake
		}
		sum.Payout += payout
		sum.Risk += min(max(payout-stake, stake-payout), stake)
		sum.Stake += stake
	}
	return sum
}

// shuffled returns the sums in another order.
func shuffled(c chooser, sums []programme.CategorySum) []programme.CategorySum {
	sums = slices.Clone(sums)
	for i := len(sums) - 1; i > 0; i-- {
		j := c.between("swap", 0, int64(i))
		sums[i], sums[j] = sums[j], sums[i]
	}
	return sums
}
