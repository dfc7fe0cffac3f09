package programme

import (
	"errors"
	"fmt"
	"slices"

	"truegreen/internal/fault"
)

// This file has what goes together and what does not: which bases, and which
// other fields, a kind of programme can have. Of a kind that is not known nothing
// is said that depends on it.

// checkRules refuses terms that Parse and Decode would have refused: they must
// not be paid by the wrong rule. It is quick, since it is asked for each player.
func (terms Terms) checkRules() error {
	var all []error
	for _, problem := range slices.Concat(
		terms.checkKind(),
		terms.checkBasis(),
		terms.checkWindow(),
		terms.checkTierBy(),
		terms.checkShape(),
		terms.checkLessPromotions(),
	) {
		all = append(all, fmt.Errorf("%s %s", problem.field, problem.text))
	}
	if len(all) == 0 {
		return nil
	}
	return fault.Invalid("%w", errors.Join(all...))
}

func isKind(kind Kind) bool { return kind == Cashback || kind == Lossback || kind == Rebate }

func (terms Terms) checkKind() []problem {
	return checkOneOf("kind", terms.Kind, Cashback, Lossback, Rebate)
}

func (terms Terms) checkBasis() []problem {
	var known []Basis
	switch terms.Kind {
	case Cashback:
		known = []Basis{BasisCash, BasisGame}
	case Lossback:
		known = []Basis{BasisGame}
	case Rebate:
		known = []Basis{BasisRisk, BasisStake}
	default:
		if terms.Basis == "" {
			return nil
		}
		return checkOneOf("basis", terms.Basis, BasisCash, BasisGame, BasisRisk, BasisStake)
	}
	if slices.Contains(known, terms.Basis) {
		return nil
	}
	names := make([]string, 0, len(known))
	for _, one := range known {
		names = append(names, string(one))
	}
	return wrong("basis", "of a %s must be %s, got %s", terms.Kind, orList(names), quote(string(terms.Basis)))
}

func (terms Terms) checkWindow() []problem {
	if terms.Kind == Lossback {
		return checkDuration("window", terms.Window, MinWindow, MaxWindow)
	}
	if reason := noWindow(terms.Kind); reason != "" && terms.Window != 0 {
		return wrong("window", "%s", reason)
	}
	return nil
}

// noWindow says why a kind of programme has no window, "" if it may have one.
func noWindow(kind Kind) string {
	if kind == Lossback || !isKind(kind) {
		return ""
	}
	return fmt.Sprintf("must be left out of a %s: only a lossback counts from the first deposit on", kind)
}

// checkNoCategories: money that is paid in and out is of no category.
func (terms Terms) checkNoCategories() []problem {
	const reason = "must be left out with basis cash: balances and payments are of no category"
	var found []problem
	if terms.Categories != nil {
		found = wrong("categories", reason)
	}
	if terms.DefaultWeight != 0 {
		found = append(found, wrong("default_weight_ppm", reason)...)
	}
	return found
}

func (terms Terms) checkTierBy() []problem {
	return checkOneOf("tier_by", terms.TierBy, TierByBasis, TierByVIP)
}

func (terms Terms) checkShape() []problem {
	if terms.Shape == ShapeGraduated && terms.TierBy == TierByVIP {
		return wrong("shape", "must be slab with tier_by vip, got %q: bands are parts of the basis", terms.Shape)
	}
	return checkOneOf("shape", terms.Shape, ShapeGraduated, ShapeSlab)
}

func (terms Terms) checkLessPromotions() []problem {
	switch {
	case !terms.LessPromotions:
		return nil
	case terms.Basis == BasisCash:
		return wrong("less_promotions", "must be left out with basis cash: its closing balance holds the promotions already")
	case terms.Kind == Rebate:
		return wrong("less_promotions", "must be left out of a rebate: promotions are no part of a turnover")
	default:
		return nil
	}
}
