package audit_test

import (
	"context"
	"fmt"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbfactory"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// termsOf are cashback's, of another kind, basis and shape.
func termsOf(t *testing.T, of programme.Terms) programme.Terms {
	t.Helper()
	terms := cashback(t)
	terms.Kind, terms.Basis = of.Kind, of.Basis
	if of.Shape != "" {
		terms.Shape = of.Shape
	}
	switch {
	case of.Basis == programme.BasisCash:
		terms.Categories, terms.DefaultWeight, terms.LessPromotions = nil, 0, false
	case of.Kind == programme.Rebate:
		terms.LessPromotions = false
	case of.Kind == programme.Lossback:
		terms.Window = programme.MinWindow
	}
	return terms
}

// moved is the activity of a player who lost so much in cash.
func moved(amount money.Minor) programme.Activity {
	return programme.Activity{
		Cash:   &programme.Cash{Closing: 30, Deposits: amount + 70, Opening: -20, Withdrawals: 20},
		Status: "active",
	}
}

// turnedOver is lost with what was at risk, of which live games count in part.
func turnedOver(amount money.Minor) programme.Activity {
	return programme.Activity{
		Categories: []programme.CategorySum{
			{Category: "live", Payout: min(7, amount), Risk: min(4, amount), Stake: min(11, amount)},
			{Category: "slots", Payout: amount / 2, Risk: amount - amount/2, Stake: amount},
		},
		Promotions: 7,
		Status:     "active",
	}
}

// deposited is lost after a first deposit.
func deposited(first, amount money.Minor) programme.Activity {
	activity := lost(amount)
	activity.FirstDeposit = first
	return activity
}

func as(status string, activity programme.Activity) programme.Activity {
	activity.Status = status
	return activity
}

// kind is terms, with a player for each fate under them.
type kind struct {
	name        string
	corruptions []corruption // besides those that are tried of every kind
	items       []given      // alice's, the first, is eligible and not capped; carol's basis is 0 or less
	reasons     map[string]programme.Reason
	terms       programme.Terms // kind, basis, shape
	wrong       programme.Reason
}

// kinds are all kinds and bases, by slabs.
func kinds() []kind {
	set := func(player, set string) string {
		return "UPDATE settlement_item SET " + set + " WHERE id = {item awaiting_approval/" + player + "};"
	}
	rules := func(set string) string { return "UPDATE programme_version SET rules = rules || '" + set + "'" }
	one := func(player string) []string {
		return []string{"audit_settlement_basis: run {run awaiting_approval}, item {item awaiting_approval/" + player + "}"}
	}
	all := []string{"audit_settlement_basis: *"}
	eligible := func(player string, activity programme.Activity) given {
		return given{activity: activity, delivery: "pending", player: player}
	}
	excluded := func(player string, activity programme.Activity) given {
		return given{activity: activity, player: player}
	}
	reasons := func(none programme.Reason) map[string]programme.Reason {
		return map[string]programme.Reason{
			"carol": none, "dave": programme.ReasonClosed, "erin": programme.ReasonNoTier, "frank": programme.ReasonSelfExcluded, "gina": programme.ReasonBelowMin,
		}
	}
	// A player for each fate, by what makes a basis of about that size.
	fates := func(of func(money.Minor) programme.Activity) []given {
		return []given{
			eligible("alice", of(120_345)), eligible("bob", of(500_000)), excluded("carol", of(0)), excluded("dave", as("closed", of(0))),
			excluded("erin", of(900)), excluded("frank", as("self_excluded", of(50_000))), excluded("gina", of(1_100)), eligible("hank", as("frozen", of(50_000))),
		}
	}
	return []kind{
		{
			name: "CashbackOfGames", terms: programme.Terms{Kind: programme.Cashback, Basis: programme.BasisGame},
			items: append([]given{eligible("alice", lost(120_345)), excluded("carol", lost(-300))}, fates(lost)[3:]...),
			wrong: programme.ReasonNoTurnover, reasons: reasons(programme.ReasonWinner),
			corruptions: []corruption{
				{"PromotionsThatAreNotDeducted", rules(`{"less_promotions": false}`), all, "its inputs make"},
				{"TermsOfALossback", rules(`{"kind": "lossback"}`), all, "inputs lack a first deposit"},
			},
		},
		{
			name: "CashbackOfCash", terms: programme.Terms{Kind: programme.Cashback, Basis: programme.BasisCash},
			items: append(fates(moved)[:2:2], append([]given{excluded("carol", moved(-1))}, fates(moved)[3:]...)...),
			wrong: programme.ReasonNoTurnover, reasons: reasons(programme.ReasonWinner),
			corruptions: []corruption{
				{"AnotherOpening", set("alice", `inputs = jsonb_set(inputs, '{cash,opening}', '"-19"')`), one("alice"), "basis is 120345.000000, its inputs make 120346000000 millionths"},
				{"OtherDeposits", set("alice", `inputs = jsonb_set(inputs, '{cash,deposits}', '"0"')`), one("alice"), "its inputs make -70000000 millionths"},
				{"OtherWithdrawals", set("alice", `inputs = jsonb_set(inputs, '{cash,withdrawals}', '"21"')`), one("alice"), "its inputs make 120344000000 millionths"},
				{"AnotherClosing", set("carol", `inputs = jsonb_set(inputs, '{cash,closing}', '"31"')`), one("carol"), "its inputs make -2000000 millionths"},
				{"InputsWithoutCash", set("carol", "inputs = inputs - 'cash'"), one("carol"), "inputs lack cash"},
				{"InputsWithoutAnOpening", set("carol", "inputs = inputs #- '{cash,opening}'"), one("carol"), "inputs lack cash"},
				{"InputsWithoutDeposits", set("carol", "inputs = inputs #- '{cash,deposits}'"), one("carol"), "inputs lack cash"},
				{"InputsWithoutWithdrawals", set("carol", "inputs = inputs #- '{cash,withdrawals}'"), one("carol"), "inputs lack cash"},
				{"InputsWithoutAClosing", set("carol", "inputs = jsonb_set(inputs, '{cash,closing}', 'null')"), one("carol"), "inputs lack cash"},
				{"TermsOfGames", rules(`{"basis": "game"}`), all, "its inputs make 0 millionths"},
			},
		},
		{
			name: "RebateOfStakes", terms: programme.Terms{Kind: programme.Rebate, Basis: programme.BasisStake},
			items: fates(turnedOver), wrong: programme.ReasonWinner, reasons: reasons(programme.ReasonNoTurnover),
			corruptions: []corruption{
				{"AnotherStake", set("alice", `inputs = jsonb_set(inputs, '{categories,0,stake}', '"12"')`), one("alice"), "basis is 120347.200000, its inputs make 120347400000 millionths"},
				{"InputsWithoutAStake", set("carol", "inputs = inputs #- '{categories,0,stake}'"), one("carol"), "inputs lack amounts of categories"},
				{"InputsWithoutCategories", set("carol", "inputs = inputs - 'categories'"), one("carol"), "inputs lack amounts of categories"},
				{"OtherWeights", rules(`{"categories": {"live": 200001, "slots": 1000000}}`), all, "its inputs make 120347200011"},
				{"TermsOfRisks", rules(`{"basis": "risk"}`), all, "inputs lack amounts of categories"},
				{"TermsOfGames", rules(`{"basis": "game"}`), all, "terms are a rebate of basis game, which"},
			},
		},
		{
			name: "RebateOfRisks", terms: programme.Terms{Kind: programme.Rebate, Basis: programme.BasisRisk},
			items: fates(func(amount money.Minor) programme.Activity { return turnedOver(2 * amount) }), wrong: programme.ReasonWinner, reasons: reasons(programme.ReasonNoTurnover),
			corruptions: []corruption{
				{"AnotherRisk", set("alice", `inputs = jsonb_set(inputs, '{categories,0,risk}', '"5"')`), one("alice"), "basis is 120345.800000, its inputs make 120346000000 millionths"},
				{"InputsWithoutARisk", set("carol", "inputs = inputs #- '{categories,1,risk}'"), one("carol"), "inputs lack amounts of categories"},
				{"TermsOfStakes", rules(`{"basis": "stake"}`), all, "its inputs make 240692200000"},
			},
		},
		{
			name: "Lossback", terms: programme.Terms{Kind: programme.Lossback, Basis: programme.BasisGame},
			items: append([]given{
				eligible("alice", deposited(130_000, 120_345)), eligible("bob", deposited(3_000, 500_000)), excluded("carol", deposited(5_000, -300)),
			}, fates(func(amount money.Minor) programme.Activity { return deposited(200_000, amount) })[3:]...),
			wrong: programme.ReasonNoTurnover, reasons: reasons(programme.ReasonWinner),
			corruptions: []corruption{
				{"AnotherFirstDeposit", set("bob", `inputs = jsonb_set(inputs, '{first_deposit,amount}', '"3001"')`), one("bob"), "basis is 3000.000000, its inputs make 3001000000 millionths"},
				{"AFirstDepositBelowTheLoss", set("alice", `inputs = jsonb_set(inputs, '{first_deposit,amount}', '"120000"')`), one("alice"), "its inputs make 120000000000 millionths"},
				{"AnotherPayout", set("alice", `inputs = jsonb_set(inputs, '{categories,0,payout}', '"91"')`), one("alice"), "basis is 120356.600000, its inputs make 120356550000 millionths"},
				{"OtherPromotions", set("alice", `inputs = jsonb_set(inputs, '{promotions}', '"8"')`), one("alice"), "its inputs make 120355600000 millionths"},
				{"PromotionsThatAreNotDeducted", rules(`{"less_promotions": false}`), all, "its inputs make 120363600000 millionths"},
				{"AWinBelowZero", set("carol", "basis_minor = -288.4, tier_value = -289"), one("carol"), "basis is -288.4, its inputs make 0 millionths"},
				{"InputsWithoutAFirstDeposit", set("carol", "inputs = inputs - 'first_deposit'"), one("carol"), "inputs lack a first deposit"},
				{"InputsWithAFirstDepositOfNothing", set("carol", `inputs = jsonb_set(inputs, '{first_deposit,amount}', '"0"')`), one("carol"), "inputs lack a first deposit"},
				{"InputsWithoutPromotions", set("carol", "inputs = inputs - 'promotions'"), one("carol"), "inputs lack promotions"},
				{"TermsOfACashback", rules(`{"kind": "cashback"}`), all, "basis is 3000.000000, its inputs make 500011600000"},
			},
		},
	}
}

// commonCorruptions are those of every kind, basis and shape. alice reached the
// second tier.
func commonCorruptions(t *testing.T, w *world, tested kind) []corruption {
	t.Helper()
	owed, err := w.terms.Entitle(tested.items[0].activity)
	require.NoError(t, err)
	const items = "UPDATE settlement_item SET "
	const alice, carol = " WHERE id = {item awaiting_approval/alice};", " WHERE id = {item awaiting_approval/carol};"
	found := func(view, player string) []string {
		return []string{"audit_settlement_" + view + ": run {run awaiting_approval}, item {item awaiting_approval/" + player + "}"}
	}
	pay := func(gross money.Minor) string {
		return fmt.Sprintf(items+"amount_minor = %d, capped_minor = %[1]d, gross_minor = %[1]d"+alice, gross) +
			"UPDATE settlement_run SET eligible_minor = (SELECT sum(amount_minor) FROM settlement_item) WHERE id = {run awaiting_approval}"
	}
	makes := map[programme.Shape]string{programme.ShapeGraduated: "bands", programme.ShapeSlab: "rate"}[w.terms.Shape]
	wrongly := func(gross money.Minor) string {
		return fmt.Sprintf("gross is %d, its basis and %s make %d\n", gross, makes, owed.Gross)
	}
	corruptions := []corruption{
		{"ABasisThatIsAMillionthMore", items + "basis_minor = basis_minor + 0.000001" + alice, found("basis", "alice"), "its inputs make " + owed.Basis.String() + " millionths"},
		{"ABasisThatIsAMillionthLess", items + "basis_minor = basis_minor - 0.000001, tier_value = floor(basis_minor - 0.000001)" + carol, found("basis", "carol"), "millionths"},
		{"AGrossOfOneMore", pay(owed.Gross + 1), found("amount", "alice"), wrongly(owed.Gross + 1)},
		{"AGrossOfOneLess", pay(owed.Gross - 1), found("amount", "alice"), wrongly(owed.Gross - 1)},
		{"TheRateOfTheFirstTier", items + "rate_ppm = 50000" + alice, found("amount", "alice"), "rate is 50000, its tier makes 70000"},
		{"TheFirstTier", items + "tier_from = 1000" + alice, found("amount", "alice"), "tier is 1000, its tier value reaches 100000"},
		{"TheReasonOfAnotherKind", items + "reason = '" + string(tested.wrong) + "'" + carol, found("reason", "carol"), "reason is " + string(tested.wrong) + ", it should be " + string(tested.reasons["carol"])},
		{"AReasonThatComesLater", items + "reason = '" + string(tested.reasons["carol"]) + "' WHERE id = {item awaiting_approval/dave}", found("reason", "dave"), "it should be closed"},
		{"TermsOfAnUnknownBasis", `UPDATE programme_version SET rules = rules || '{"basis": "loyalty"}'`, []string{"audit_settlement_basis: *"}, "of basis loyalty, which this audit does not know"},
		{"TermsOfAnUnknownShape", `UPDATE programme_version SET rules = rules || '{"shape": "stairs"}'`, []string{"audit_settlement_amount: *"}, "of shape stairs, which this audit does not know"},
	}
	if w.terms.Shape == programme.ShapeGraduated {
		slab := money.Minor(new(big.Int).Div(new(big.Int).Mul(owed.Basis, big.NewInt(int64(owed.Rate))), big.NewInt(1e12)).Int64())
		perBand := flooredPerBand(w.terms, owed)
		require.Less(t, perBand, owed.Gross, "of the bands each has a part of a unit")
		require.NotEqual(t, slab, owed.Gross)
		corruptions = append(corruptions,
			corruption{"AGrossRoundedForEachBand", pay(perBand), found("amount", "alice"), wrongly(perBand)},
			corruption{"AGrossByTheRateOfTheWhole", pay(slab), found("amount", "alice"), wrongly(slab)},
			corruption{"AnotherLowerBand", `UPDATE programme_version SET rules = jsonb_set(rules, '{tiers,0,rate_ppm}', '40000')`, []string{"audit_settlement_amount: *"}, "its basis and bands make"},
		)
	}
	return corruptions
}

// flooredPerBand is what a player would get if each band were rounded down, as it
// must not be.
func flooredPerBand(terms programme.Terms, owed programme.Entitlement) money.Minor {
	million := big.NewInt(1_000_000)
	total := new(big.Int)
	for i, tier := range terms.Tiers {
		if *owed.TierFrom < tier.From {
			break
		}
		part := new(big.Int).Sub(owed.Basis, new(big.Int).Mul(big.NewInt(tier.From), million))
		if tier.From < *owed.TierFrom {
			part.Mul(big.NewInt(terms.Tiers[i+1].From-tier.From), million)
		}
		part.Mul(part, big.NewInt(int64(tier.Rate)))
		total.Add(total, part.Div(part, new(big.Int).Mul(million, million)))
	}
	return money.Minor(total.Int64())
}

// TestFindings_Kinds has items of every kind, basis and shape, as the calculation
// makes them, and breaks each.
func TestFindings_Kinds(t *testing.T) {
	t.Parallel()
	for _, shape := range []programme.Shape{programme.ShapeGraduated, programme.ShapeSlab} {
		for _, tested := range kinds() {
			t.Run(tested.name+"/"+string(shape), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				tested.terms.Shape = shape
				w := &world{terms: termsOf(t, tested.terms), tx: begin(ctx, t)}
				// Rates and a start that leave parts of a unit in both bands.
				w.terms.Tiers[0] = programme.Tier{From: 1_001, Rate: 50_000}
				for _, item := range tested.items {
					dbfactory.Player(ctx, t, w.tx, &dbfactory.PlayerOpts{Code: item.player})
					owed, err := w.terms.Entitle(item.activity)
					require.NoError(t, err)
					require.Equal(t, tested.reasons[item.player], owed.Reason, item.player)
				}
				w.programme(ctx, t)
				w.run(ctx, t, ending{state: "awaiting_approval"}, tested.items...)

				found, details := findings(ctx, t, w.tx)
				require.Empty(t, found, details)
				for _, broken := range append(commonCorruptions(t, w, tested), tested.corruptions...) {
					w.refuses(ctx, t, broken)
				}
				found, details = findings(ctx, t, w.tx)
				require.Empty(t, found, details)
			})
		}
	}
}

// refuses breaks the world, expects what is to find it, and mends it again.
func (w *world) refuses(ctx context.Context, t *testing.T, broken corruption) {
	t.Helper()
	savepoint, err := w.tx.Begin(ctx)
	require.NoError(t, err)
	inside := &world{terms: w.terms, tx: savepoint}
	inside.breaks(ctx, t, broken)
	require.NoError(t, savepoint.Rollback(ctx))
}
