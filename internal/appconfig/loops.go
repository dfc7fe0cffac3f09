package appconfig

import (
	"slices"
	"strings"

	"truegreen/internal/freshness"
)

// allLoops picks every loop.
const allLoops = "all"

// LoopGroup is a word of TRUEGREEN_LOOPS that stands for several loops.
type LoopGroup struct {
	Loops []string
	Name  string
}

// Loops lists the names of the loops that a worker can work.
func Loops() []string {
	var names []string
	for _, loop := range freshness.DefaultLoops() {
		names = append(names, loop.Name)
	}
	return names
}

// LoopGroups lists the groups, "all" first.
func LoopGroups() []LoopGroup {
	return []LoopGroup{
		{Loops: Loops(), Name: allLoops},
		{Loops: []string{"outbox_wallet", "outbox_rolling", "outbox_agent"}, Name: "outbox"},
		{Loops: []string{"settlement_tick", "settlement_rebate", "settlement_cashback", "settlement_lossback"}, Name: "settlement"},
	}
}

// loopWords are all words that TRUEGREEN_LOOPS may hold.
func loopWords() []string {
	var words []string
	for _, group := range LoopGroups() {
		words = append(words, group.Name)
	}
	return append(words, Loops()...)
}

// parseLoops writes out a comma-separated list of loops and groups. It is false
// for an empty list and for a word that is neither.
func parseLoops(text string) ([]string, bool) {
	picked := make(map[string]bool)
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		known := slices.Contains(Loops(), word)
		picked[word] = true
		for _, group := range LoopGroups() {
			if group.Name == word {
				known = true
				for _, loop := range group.Loops {
					picked[loop] = true
				}
			}
		}
		if !known {
			return nil, false
		}
	}

	var loops []string
	for _, loop := range Loops() {
		if picked[loop] {
			loops = append(loops, loop)
		}
	}
	return loops, true
}
