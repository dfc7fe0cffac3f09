package programme

import (
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// programmeReader reads one programme of a file.
type programmeReader struct {
	broken map[string]bool // fields that are told of, and need no second word
	file   *fileReader
	given  map[string]entry
	lines  map[string]int // where a field stands
	name   string         // the code, or which of the programmes it is
	start  int            // the line of the programme
	terms  Terms
}

// readProgramme returns the terms of the programme that is the num-th of the
// file, and the line that has its code. What is wrong is reported; the terms are
// then worth nothing but their code.
func (file *fileReader) readProgramme(num int, node ast.Node) (Terms, int) {
	p := &programmeReader{
		broken: map[string]bool{},
		file:   file,
		given:  map[string]entry{},
		lines:  map[string]int{},
		name:   fmt.Sprintf("programme %d", num),
		start:  lineOf(node),
		terms: Terms{
			InputsDeadline: DefaultInputsDeadline,
			MaxAttempts:    DefaultMaxAttempts,
			OnPartial:      DefaultOnPartial,
			Shape:          DefaultShape,
			TierBy:         DefaultTierBy,
		},
	}
	entries, reason := entriesOf(node)
	if reason != "" {
		file.report(p.start, "%s: must be a mapping, %s", p.name, reason)
		return Terms{}, p.start
	}
	if len(entries) > 0 {
		p.start = entries[0].line
	}
	p.identify(entries)
	p.collect(entries)
	p.readFields()
	p.require()
	p.checkBounds()
	return p.terms, p.line("code")
}

// identify reads what every other message needs to know: code and kind.
func (p *programmeReader) identify(entries []entry) {
	for _, entry := range entries {
		switch text, _ := textOf(entry.value); entry.key {
		case "code":
			if checkCode(text) == nil && p.lines["code"] == 0 {
				p.name, p.terms.Code = text, text
			}
			p.lines["code"] = entry.line
		case "kind":
			p.lines["kind"] = entry.line
			p.terms.Kind = Kind(text)
		}
	}
	if p.terms.Kind == Lossback {
		p.terms.Basis = BasisGame
	}
}

// collect sorts out fields that come twice, that are unknown, and that have no
// value.
func (p *programmeReader) collect(entries []entry) {
	for _, entry := range entries {
		_, isTwice := p.given[entry.key]
		p.given[entry.key] = entry
		switch {
		case isTwice:
			p.report(entry.key, entry.line, "must come once")
		case !isField(entry.key):
			p.file.report(entry.line, "%s: has no field %s", p.name, quote(entry.key))
			p.broken[entry.key] = true
		case isNothing(entry.value):
			p.report(entry.key, entry.line, "must have a value, or be left out")
		}
		p.lines[entry.key] = entry.line
	}
}

func isField(name string) bool {
	switch name {
	case "auto_approve_below", "basis", "budget", "cap", "categories", "code", "currency", "default_weight_ppm",
		"effective_from", "grace", "inputs_deadline", "kind", "less_promotions", "max_attempts", "min_payout",
		"on_partial", "period", "shape", "tier_by", "tiers", "time_zone", "window":
		return true
	default:
		return false
	}
}

// readFields fills in what is given, if it is of the right type, and a number
// within its bounds. The other bounds are looked at later, by the terms.
func (p *programmeReader) readFields() {
	terms := &p.terms
	readText(p, "basis", &terms.Basis)
	readText(p, "code", &terms.Code)
	readText(p, "currency", &terms.Currency)
	readText(p, "kind", &terms.Kind)
	readText(p, "on_partial", &terms.OnPartial)
	readText(p, "period", &terms.Period)
	readText(p, "shape", &terms.Shape)
	readText(p, "tier_by", &terms.TierBy)
	readText(p, "time_zone", &terms.TimeZone)

	p.with("auto_approve_below", readAmount(&terms.AutoApproveBelow, 0))
	p.with("budget", p.readBudget)
	p.with("cap", readAmount(&terms.Cap, 1))
	p.with("categories", p.readCategories)
	p.with("default_weight_ppm", readRate(&terms.DefaultWeight))
	p.with("effective_from", readDay(&terms.EffectiveFrom))
	p.with("grace", readDuration(&terms.Grace))
	p.with("inputs_deadline", readDuration(&terms.InputsDeadline))
	p.with("less_promotions", readBool(&terms.LessPromotions))
	p.with("max_attempts", readNumber(&terms.MaxAttempts, 1, MaxAttempts))
	p.with("min_payout", readNumber(&terms.MinPayout, 0, math.MaxInt64))
	p.with("tiers", p.readTiers)
	p.with("window", p.readWindow)
}

// require reports the fields that have no default and are not given.
func (p *programmeReader) require() {
	names := []string{"code", "kind", "currency", "period", "time_zone", "effective_from", "tiers"}
	switch p.terms.Kind {
	case Cashback, Rebate:
		names = append(names, "basis")
	case Lossback:
		names = append(names, "window")
	default: // what it needs is not known
	}
	for _, name := range names {
		if _, given := p.given[name]; !given {
			p.report(name, p.start, "is missing")
		}
	}
}

// checkBounds reports what is out of bounds, unless more basic things are wrong
// with the field.
func (p *programmeReader) checkBounds() {
	for _, problem := range p.terms.problems() {
		base, _, _ := strings.Cut(problem.field, ".")
		base, _, _ = strings.Cut(base, "[")
		if !p.broken[problem.field] && !p.broken[base] {
			p.report(problem.field, p.line(problem.field), "%s", problem.text)
		}
	}
}

func (p *programmeReader) report(field string, line int, format string, args ...any) {
	p.broken[field] = true
	p.file.report(line, "%s: %s %s", p.name, shorten(field), fmt.Sprintf(format, args...))
}

// line returns where a field stands, or where the programme does.
func (p *programmeReader) line(field string) int {
	if line, known := p.lines[field]; known {
		return line
	}
	return p.start
}

// with reads the value of a field that is given, and reports what is wrong.
func (p *programmeReader) with(field string, read valueReader) {
	entry, given := p.given[field]
	if !given || p.broken[field] {
		return
	}
	if reason := read(entry.value); reason != "" {
		p.report(field, entry.line, "%s", reason)
	}
}
