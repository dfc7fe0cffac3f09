package programme

import (
	"fmt"
	"math"
	"time"

	"github.com/goccy/go-yaml/ast"

	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// valueReader puts a value where it belongs, and returns what is wrong with it, ""
// if nothing is.
type valueReader func(value ast.Node) (reason string)

func (p *programmeReader) readCategories(value ast.Node) string {
	entries, reason := entriesOf(value)
	if reason != "" {
		return "must be a mapping of names and weights, " + reason
	}
	p.terms.Categories = map[string]money.RatePPM{}
	for _, entry := range entries {
		field := "categories." + entry.key
		_, isTwice := p.terms.Categories[entry.key]
		var weight money.RatePPM
		reason := readRate(&weight)(entry.value)
		switch {
		case !entry.isText:
			p.report("categories", entry.line, "must have names that are text: put %s in quotes", shorten(entry.key))
		case isTwice:
			p.report("categories", entry.line, "must name %s once", quote(entry.key))
		case reason != "":
			p.report(field, entry.line, "%s", reason)
		}
		p.lines[field] = entry.line
		p.terms.Categories[entry.key] = weight
	}
	return ""
}

func (p *programmeReader) readTiers(value ast.Node) string {
	items, reason := listOf(value)
	if reason != "" {
		return "must be a list of {from, rate_ppm}, " + reason
	}
	for i, item := range items {
		p.readTier(i, item)
	}
	return ""
}

func (p *programmeReader) readTier(index int, item ast.Node) {
	var tier Tier
	name := tierName(index)
	entries, reason := entriesOf(item)
	if reason != "" {
		p.report("tiers", lineOf(item), "must be a list of {from, rate_ppm}, %s", reason)
	} else {
		p.readParts(name, "a tier", lineOf(item), entries, []part{
			{name: "from", read: readNumber(&tier.From, 0, math.MaxInt64)},
			{name: "rate_ppm", read: readRate(&tier.Rate)},
		})
	}
	// A start that can't be read says nothing about the next one.
	p.broken[tierName(index+1)+".from"] = p.broken[name+".from"]
	p.terms.Tiers = append(p.terms.Tiers, tier)
}

func (p *programmeReader) readBudget(value ast.Node) string {
	entries, reason := entriesOf(value)
	if reason != "" {
		return "must be {window, limit}, " + reason
	}
	budget := &Budget{}
	p.readParts("budget", "a budget", lineOf(value), entries, []part{
		{name: "window", read: func(value ast.Node) string {
			text, reason := textOf(value)
			budget.Window = timewindow.Kind(text)
			return reason
		}},
		{name: "limit", read: readNumber(&budget.Limit, 1, math.MaxInt64)},
	})
	p.terms.Budget = budget
	return ""
}

// readWindow refuses the field itself where it has no meaning, a 0 too.
func (p *programmeReader) readWindow(value ast.Node) string {
	if reason := noWindow(p.terms.Kind); reason != "" {
		return reason
	}
	return readDuration(&p.terms.Window)(value)
}

// part is one of the two fields of a value that is a mapping.
type part struct {
	name string
	read valueReader
}

// readParts reads a value of two fields, both of which must be there. what is the
// value in words, line where it begins.
func (p *programmeReader) readParts(name, what string, line int, entries []entry, parts []part) {
	seen := map[string]bool{}
	for _, entry := range entries {
		field := name + "." + entry.key
		if line = entry.line; seen[entry.key] {
			p.report(field, line, "must come once")
		}
		seen[entry.key] = true
		p.lines[field] = line
		reason := fmt.Sprintf("is unknown: %s has %s and %s", what, parts[0].name, parts[1].name)
		for _, part := range parts {
			if part.name == entry.key {
				reason = part.read(entry.value)
			}
		}
		if reason != "" {
			p.report(field, line, "%s", reason)
		}
	}
	for _, part := range parts {
		if !seen[part.name] {
			p.report(name+"."+part.name, line, "is missing")
		}
	}
}

func readText[T ~string](p *programmeReader, field string, into *T) {
	p.with(field, func(value ast.Node) string {
		text, reason := textOf(value)
		*into = T(text)
		return reason
	})
}

// readNumber takes whole numbers from least to most, which T must be able to hold.
func readNumber[T ~int | ~int32 | ~int64](into *T, least, most int64) valueReader {
	return func(value ast.Node) string {
		number, reason := numberOf(value, least, most)
		*into = T(number)
		return reason
	}
}

func readRate(into *money.RatePPM) valueReader {
	return readNumber(into, 0, int64(money.MaxRatePPM))
}

func readAmount(into **money.Minor, least int64) valueReader {
	return func(value ast.Node) string {
		*into = new(money.Minor)
		return readNumber(*into, least, math.MaxInt64)(value)
	}
}

func readBool(into *bool) valueReader {
	return func(value ast.Node) (reason string) {
		*into, reason = boolOf(value)
		return reason
	}
}

func readDay(into *timewindow.Day) valueReader {
	return func(value ast.Node) string {
		text, reason := textOf(value)
		if reason != "" {
			return reason
		}
		day, err := timewindow.ParseDay(text)
		if err != nil {
			return fmt.Sprintf("must be a day from %d on, such as 2026-10-01, got %s", timewindow.MinYear, quote(text))
		}
		*into = day
		return ""
	}
}

// readDuration takes a bare 0 too, which is the same in every unit.
func readDuration(into *time.Duration) valueReader {
	return func(value ast.Node) string {
		text, isPlain := plainOf(value)
		if !isPlain {
			text, _ = textOf(value)
		}
		duration, err := time.ParseDuration(text)
		if err != nil {
			return "must be a duration, such as 2h or 90m, got " + describe(value)
		}
		*into = duration
		return ""
	}
}
