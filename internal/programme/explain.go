package programme

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"truegreen/internal/money"
)

// Explain tells how the terms come from what a player did to what the player is
// owed, as lines of plain arithmetic for people: what counts of each category,
// the basis, the tier, the bands, cap, minimum, and the result. Amounts are minor
// units, exact to the last digit; categories are in order of their names.
//
// owed is what [Terms.Entitle] and [Entitlement.Less] made of the activity, or what
// was stored of it. It is worked out again: where owed says anything else, a line tells
// both. Activity that [Terms.Entitle] would refuse gets one line, that says why.
func (terms Terms) Explain(owed Entitlement, activity Activity) []string {
	again, err := terms.Entitle(activity)
	if err != nil {
		return []string{"this cannot be worked out: " + err.Error()}
	}
	return slices.Concat(
		[]string{fmt.Sprintf("%s by %s, in minor units of %s", terms.Kind, terms.Basis, terms.Currency)},
		terms.explainBasis(again, activity),
		terms.explainShare(again),
		explainResult(owed),
		explainDifferences(owed, again),
	)
}

func (terms Terms) explainBasis(owed Entitlement, activity Activity) []string {
	var lines []string
	switch {
	case terms.Basis == BasisCash:
		cash := activity.Cash
		lines = append(lines, fmt.Sprintf("cash: opening %d + deposits %d - withdrawals %d - closing %d = %s",
			cash.Opening, cash.Deposits, cash.Withdrawals, cash.Closing, decimal(owed.Basis, 6)))
	case terms.Kind == Rebate:
		lines = terms.explainCategories(activity, "turnover")
	default:
		lines = terms.explainCategories(activity, "net loss")
		lost := terms.netLoss(activity)
		if terms.LessPromotions {
			lines = append(lines, fmt.Sprintf("promotions: %s - %d = %s",
				decimal(terms.weighed(activity), 6), activity.Promotions, decimal(lost, 6)))
		}
		if terms.Kind == Lossback {
			lines = append(lines, explainFirstDeposit(activity.FirstDeposit, lost))
		}
	}
	return append(lines, "basis: "+decimal(owed.Basis, 6))
}

// explainCategories has a line for each category, and their sum.
func (terms Terms) explainCategories(activity Activity, what string) []string {
	type sums struct{ payout, risk, stake *big.Int }
	of := map[string]sums{}
	for _, sum := range activity.Categories {
		if of[sum.Category].stake == nil {
			of[sum.Category] = sums{new(big.Int), new(big.Int), new(big.Int)}
		}
		to := of[sum.Category]
		to.payout.Add(to.payout, wide(sum.Payout))
		to.risk.Add(to.risk, wide(sum.Risk))
		to.stake.Add(to.stake, wide(sum.Stake))
	}

	var lines []string
	for _, category := range slices.Sorted(maps.Keys(of)) {
		sum, weight := of[category], terms.weight(category)
		counted, text := sum.stake, fmt.Sprintf("stakes %s", sum.stake)
		switch terms.Basis {
		case BasisRisk:
			counted, text = sum.risk, fmt.Sprintf("at risk %s of stakes %s", sum.risk, sum.stake)
		case BasisGame:
			counted = new(big.Int).Sub(sum.stake, sum.payout)
			text = fmt.Sprintf("stakes %s - payouts %s = %s", sum.stake, sum.payout, counted)
		default:
		}
		lines = append(lines, fmt.Sprintf("%s: %s; × %d ppm = %s",
			plainName(category), text, weight, decimal(atRate(counted, weight), 6)))
	}
	return append(lines, fmt.Sprintf("%s: %s, the sum of %s",
		what, decimal(terms.weighed(activity), 6), count(len(of), "category", "categories")))
}

func explainFirstDeposit(firstDeposit money.Minor, lost *big.Int) string {
	text := fmt.Sprintf("first deposit: %d; the lesser of it and %s", firstDeposit, decimal(lost, 6))
	if lost.Sign() < 0 {
		text += ", but not below 0"
	}
	return text + ": " + decimal(lossOfDeposit(firstDeposit, lost), 6)
}

// explainShare goes from the basis to the capped amount.
func (terms Terms) explainShare(owed Entitlement) []string {
	if owed.Basis.Sign() <= 0 {
		return []string{"tier: none, a basis that is not above 0 earns nothing"}
	}
	value := "basis " + decimal(owed.Basis, 6)
	if terms.TierBy == TierByVIP {
		value = "VIP level " + owed.TierValue.String()
	}
	if owed.TierFrom == nil {
		return []string{fmt.Sprintf("tier: none, %s is below the first, which is from %d", value, terms.Tiers[0].From)}
	}

	lines := []string{fmt.Sprintf("tier: %s reaches the one from %d, %d ppm", value, *owed.TierFrom, owed.Rate)}
	bands := terms.bands(owed.Basis, terms.reached(owed.TierValue))
	gross := decimal(grossOf(bands), 12)
	if terms.Shape == ShapeGraduated {
		for _, one := range bands {
			lines = append(lines, one.explain())
		}
		lines = append(lines, fmt.Sprintf("gross: %s, the sum of %s", gross, count(len(bands), "band", "bands")))
	} else {
		lines = append(lines, fmt.Sprintf("gross: %s × %d ppm = %s", decimal(owed.Basis, 6), owed.Rate, gross))
	}
	if strings.Contains(gross, ".") {
		lines[len(lines)-1] += fmt.Sprintf(", rounded down to %d", owed.Gross)
	}

	if terms.Cap == nil {
		lines = append(lines, "cap: none")
	} else {
		lines = append(lines, fmt.Sprintf("cap: the lesser of %d and %d is %d", owed.Gross, *terms.Cap, owed.Capped))
	}
	if least := terms.leastPaid(); owed.Capped < least {
		return append(lines, fmt.Sprintf("minimum: %d is below %d", owed.Capped, least))
	}
	return append(lines, fmt.Sprintf("minimum: %d is not below %d", owed.Capped, terms.leastPaid()))
}

func (one band) explain() string {
	span := fmt.Sprintf("from %d on", one.from)
	if one.until >= 0 {
		span = fmt.Sprintf("from %d to %d", one.from, one.until)
	}
	return fmt.Sprintf("band %s: %s × %d ppm = %s",
		span, decimal(one.amount, 6), one.rate, decimal(atRate(one.amount, one.rate), 12))
}

// explainResult goes from the capped amount to what is paid.
func explainResult(owed Entitlement) []string {
	var lines []string
	if owed.Before != 0 {
		lines = append(lines, fmt.Sprintf("before: %d was owed already; %d - %d = %d", owed.Before, owed.Capped, owed.Before, owed.Capped-owed.Before))
	}
	if owed.Reason != "" {
		return append(lines, fmt.Sprintf("result: 0, excluded as %s: %s", owed.Reason, owed.Reason.inWords()))
	}
	return append(lines, fmt.Sprintf("result: %d", owed.Amount))
}

// inWords is why a player is paid nothing.
func (reason Reason) inWords() string {
	switch reason {
	case ReasonSelfExcluded:
		return "the player has excluded themselves"
	case ReasonClosed:
		return "the player's account is closed"
	case ReasonNoTurnover:
		return "nothing that counts was staked"
	case ReasonWinner:
		return "nothing that counts was lost"
	case ReasonNoTier:
		return "the first tier is not reached"
	case ReasonBelowMin:
		return "the amount is too small to be paid"
	case ReasonOverpaid:
		return "no more is owed than was before"
	case ReasonEarlierUndelivered:
		return "an earlier credit of the same period is not delivered"
	default:
		return "for a reason that this version does not know"
	}
}

// explainDifferences has a line for whatever was stored otherwise than it is
// worked out now. Whether an earlier credit was undelivered is known to who stored it
// alone.
func explainDifferences(owed, again Entitlement) []string {
	again = again.Less(Earlier{Entitled: owed.Before, Undelivered: owed.Reason == ReasonEarlierUndelivered})
	var lines []string
	for _, step := range []struct{ name, stored, now string }{
		{"basis", decimal(owed.Basis, 6), decimal(again.Basis, 6)},
		{"tier value", owed.TierValue.String(), again.TierValue.String()},
		{"tier", tierText(owed.TierFrom), tierText(again.TierFrom)},
		{"rate", fmt.Sprint(owed.Rate), fmt.Sprint(again.Rate)},
		{"gross", fmt.Sprint(owed.Gross), fmt.Sprint(again.Gross)},
		{"capped", fmt.Sprint(owed.Capped), fmt.Sprint(again.Capped)},
		{"reason", reasonText(owed.Reason), reasonText(again.Reason)},
		{"amount", fmt.Sprint(owed.Amount), fmt.Sprint(again.Amount)},
	} {
		if step.stored != step.now {
			lines = append(lines, fmt.Sprintf("differs: %s was stored as %s, this arithmetic makes %s", step.name, step.stored, step.now))
		}
	}
	return lines
}

func tierText(from *int64) string {
	if from == nil {
		return "none"
	}
	return "from " + strconv.FormatInt(*from, 10)
}

func reasonText(reason Reason) string {
	if reason == "" {
		return "none"
	}
	return string(reason)
}

// decimal is a number of 10^-digits in plain digits, without zeros at the end.
func decimal(number *big.Int, digits int) string {
	if number == nil {
		return "none"
	}
	text := new(big.Int).Abs(number).String()
	if missing := digits + 1 - len(text); missing > 0 {
		text = strings.Repeat("0", missing) + text
	}
	whole, part := text[:len(text)-digits], strings.TrimRight(text[len(text)-digits:], "0")
	if part != "" {
		whole += "." + part
	}
	if number.Sign() < 0 {
		return "-" + whole
	}
	return whole
}

// plainName is a category as it is, unless a terminal would not show it so.
func plainName(category string) string {
	if quoted := strconv.Quote(category); quoted != `"`+category+`"` {
		return quoted
	}
	return category
}

func count(num int, one, many string) string {
	if num == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", num, many)
}
