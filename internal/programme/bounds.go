package programme

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// Bounds of terms.
const (
	MaxAttempts       = 100
	MaxCategories     = 256
	MaxCategoryLength = 64 // characters, as of a line of activity
	MaxCodeLength     = 64
	MaxTiers          = 100
	MaxWait           = 31 * 24 * time.Hour  // of Grace and InputsDeadline
	MaxWindow         = 366 * 24 * time.Hour // of a lossback
	MinWindow         = time.Minute
)

// problem is what is wrong with a field, which goes by its name in the file:
// cap, tiers[1].from, categories.slots.
type problem struct{ field, text string }

func wrong(field, format string, args ...any) []problem {
	return []problem{{field: field, text: fmt.Sprintf(format, args...)}}
}

// Validate returns one error of [fault.KindInvalid] that names each field which
// is out of its bounds, the bound, and the value.
func (terms Terms) Validate() error {
	var all []error
	for _, problem := range terms.problems() {
		all = append(all, fmt.Errorf("%s %s", problem.field, problem.text))
	}
	if len(all) == 0 {
		return nil
	}
	return fault.Invalid("terms of programme %q: %w", terms.Code, errors.Join(all...))
}

// problems lists what is out of its bounds, in the order of the file format.
func (terms Terms) problems() []problem {
	return slices.Concat(
		checkCode(terms.Code),
		terms.checkKind(),
		checkCurrency(terms.Currency),
		checkCalendar(terms.Period, terms.TimeZone),
		checkEffectiveFrom(terms.EffectiveFrom),
		checkDuration("grace", terms.Grace, 0, MaxWait),
		checkDuration("inputs_deadline", terms.InputsDeadline, time.Second, MaxWait),
		terms.checkBasis(),
		terms.checkWindow(),
		terms.checkCategories(),
		terms.checkTierBy(),
		terms.checkShape(),
		terms.checkTiers(),
		terms.checkAmounts(),
		terms.checkLessPromotions(),
		terms.checkBudget(),
		checkRange("max_attempts", int64(terms.MaxAttempts), 1, MaxAttempts),
		checkOneOf("on_partial", terms.OnPartial, OnPartialComplete, OnPartialError),
	)
}

// checkCode: the code is a part of references, of topics, and of command lines.
func checkCode(code string) []problem {
	const letters, inside = "abcdefghijklmnopqrstuvwxyz0123456789", "-_"
	if code != "" && len(code) <= MaxCodeLength &&
		strings.Trim(code, letters+inside) == "" && strings.Trim(code[:1], letters) == "" {
		return nil
	}
	return wrong("code", "must be 1 to %d of a-z, 0-9, - and _, the first a letter or digit, got %s", MaxCodeLength, quote(code))
}

func checkCurrency(currency string) []problem {
	if len(currency) == 3 && strings.Trim(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return nil
	}
	return wrong("currency", "must be three capital letters, got %s", quote(currency))
}

func checkCalendar(period timewindow.Kind, zone string) []problem {
	found := checkOneOf("period", period, timewindow.Daily, timewindow.Weekly, timewindow.Monthly)
	if _, err := timewindow.NewCalendar(timewindow.Daily, zone); err != nil {
		found = append(found, wrong("time_zone", "must be the IANA name of a zone, such as Asia/Seoul, got %s", quote(zone))...)
	}
	return found
}

func checkEffectiveFrom(day timewindow.Day) []problem {
	if day.IsZero() {
		return wrong("effective_from", "must be a day, such as 2026-10-01")
	}
	return nil
}

// checkDuration: whole seconds, so that the stored form reads as an interval too.
func checkDuration(field string, duration, least, most time.Duration) []problem {
	if duration < least || duration > most {
		return wrong(field, "must be a duration from %s to %s, got %s", least, most, duration)
	}
	if duration%time.Second != 0 {
		return wrong(field, "must be whole seconds, got %s", duration)
	}
	return nil
}

func (terms Terms) checkCategories() []problem {
	var found []problem
	switch {
	case terms.Basis == BasisCash:
		return terms.checkNoCategories()
	case terms.Categories == nil && terms.DefaultWeight != 0:
		return wrong("default_weight_ppm", "must be left out, or categories be named: without them each counts in full, got %d", terms.DefaultWeight)
	case terms.Categories != nil && len(terms.Categories) == 0:
		return wrong("categories", "must name a category, or be left out: each then counts in full")
	case len(terms.Categories) > MaxCategories:
		return wrong("categories", "must name at most %d, got %d", MaxCategories, len(terms.Categories))
	}
	for name, weight := range terms.Categories {
		field := "categories." + name
		if reason := checkCategory(name); reason != "" {
			found = append(found, wrong("categories", "%s, got %s", reason, quote(name))...)
			continue
		}
		found = append(found, checkRange(field, int64(weight), 0, int64(money.MaxRatePPM))...)
	}
	slices.SortFunc(found, func(a, b problem) int { return strings.Compare(a.field+a.text, b.field+b.text) })
	return append(found, checkRange("default_weight_ppm", int64(terms.DefaultWeight), 0, int64(money.MaxRatePPM))...)
}

// checkCategory keeps to what a category of a line of activity may be.
func checkCategory(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "names must be valid UTF-8"
	case name == "" || utf8.RuneCountInString(name) > MaxCategoryLength:
		return fmt.Sprintf("names must have 1 to %d characters", MaxCategoryLength)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }):
		return "names must not contain control characters"
	}
	return ""
}

func (terms Terms) checkTiers() []problem {
	if len(terms.Tiers) < 1 || len(terms.Tiers) > MaxTiers {
		return wrong("tiers", "must be 1 to %d, got %d", MaxTiers, len(terms.Tiers))
	}
	most := int64(math.MaxInt64)
	if terms.TierBy == TierByVIP {
		most = math.MaxInt32
	}
	var found []problem
	for i, tier := range terms.Tiers {
		name := tierName(i)
		below := checkRange(name+".from", tier.From, 0, most)
		if below == nil && i > 0 && tier.From <= terms.Tiers[i-1].From {
			below = wrong(name+".from", "must be above that of the tier before, %d, got %d", terms.Tiers[i-1].From, tier.From)
		}
		found = append(found, below...)
		found = append(found, checkRange(name+".rate_ppm", int64(tier.Rate), 0, int64(money.MaxRatePPM))...)
	}
	return found
}

func tierName(index int) string { return fmt.Sprintf("tiers[%d]", index) }

func (terms Terms) checkAmounts() []problem {
	found := checkRange("min_payout", int64(terms.MinPayout), 0, math.MaxInt64)
	if terms.Cap != nil {
		ofCap := checkRange("cap", int64(*terms.Cap), 1, math.MaxInt64)
		if ofCap == nil && found == nil && *terms.Cap < terms.MinPayout {
			ofCap = wrong("cap", "must not be below min_payout, %d: nobody would ever be paid, got %d", terms.MinPayout, *terms.Cap)
		}
		found = append(ofCap, found...)
	}
	if terms.AutoApproveBelow != nil {
		found = append(found, checkRange("auto_approve_below", int64(*terms.AutoApproveBelow), 0, math.MaxInt64)...)
	}
	return found
}

func (terms Terms) checkBudget() []problem {
	if terms.Budget == nil {
		return nil
	}
	return append(
		checkOneOf("budget.window", terms.Budget.Window, timewindow.Daily, timewindow.Weekly, timewindow.Monthly),
		checkRange("budget.limit", int64(terms.Budget.Limit), 1, math.MaxInt64)...)
}

func checkRange(field string, value, least, most int64) []problem {
	if value >= least && value <= most {
		return nil
	}
	return wrong(field, "must be from %d to %d, got %d", least, most, value)
}

func checkOneOf[T ~string](field string, value T, known ...T) []problem {
	if slices.Contains(known, value) {
		return nil
	}
	var names []string
	for _, one := range known {
		names = append(names, string(one))
	}
	return wrong(field, "must be %s, got %s", orList(names), quote(string(value)))
}

// orList joins names as in "daily, weekly, or monthly".
func orList(names []string) string {
	switch last := len(names) - 1; last {
	case 0:
		return names[0]
	case 1:
		return names[0] + " or " + names[1]
	default:
		return strings.Join(names[:last], ", ") + ", or " + names[last]
	}
}

// quote returns text for a message: quoted, in one line, and not too long.
func quote(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", text)
}
