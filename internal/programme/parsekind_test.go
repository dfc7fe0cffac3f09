package programme_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

func TestParse_Kinds(t *testing.T) {
	t.Parallel()

	t.Run("ReadsEachKind", func(t *testing.T) {
		t.Parallel()

		for _, tc := range []struct {
			change func(*programme.Terms)
			file   string
		}{
			{func(terms *programme.Terms) {
				terms.Code, terms.Kind, terms.Basis = "daily-rebate", programme.Rebate, programme.BasisStake
			}, minimalRebate},
			{func(terms *programme.Terms) {
				terms.Code, terms.Kind, terms.Basis = "daily-rebate", programme.Rebate, programme.BasisRisk
			}, minimalRisk},
			{func(terms *programme.Terms) { terms.Basis = programme.BasisCash }, minimalCash},
			{func(terms *programme.Terms) {
				terms.Code, terms.Kind, terms.Window = "daily-lossback", programme.Lossback, 72*time.Hour
			}, minimalLossback},
			{func(terms *programme.Terms) {
				terms.Code, terms.Kind, terms.Window = "daily-lossback", programme.Lossback, 72*time.Hour
			}, add(minimalLossback, "basis: game")},
			{func(terms *programme.Terms) { terms.Shape = programme.ShapeGraduated }, with("shape: graduated")},
			{func(terms *programme.Terms) {
				terms.Budget = &programme.Budget{Limit: 500_000_000, Window: timewindow.Monthly}
			}, with("budget: {window: monthly, limit: 500000000}")},
			{func(terms *programme.Terms) {
				terms.Budget = &programme.Budget{Limit: 1, Window: timewindow.Daily}
			}, with("budget:", "  limit: 1", "  window: daily")},
			// Defaults that are written out where they say nothing.
			{func(terms *programme.Terms) {
				terms.Code, terms.Kind, terms.Basis = "daily-rebate", programme.Rebate, programme.BasisStake
			}, add(minimalRebate, "less_promotions: false", "shape: slab")},
			{func(terms *programme.Terms) { terms.Basis = programme.BasisCash }, add(minimalCash, "less_promotions: false", "default_weight_ppm: 0")},
		} {
			want := newTerms(t)
			tc.change(&want)
			require.Equal(t, want, parseOne(t, tc.file), tc.file)
		}
	})

	t.Run("ReadsTheBoundsOfAWindow", func(t *testing.T) {
		t.Parallel()

		for text, want := range map[string]time.Duration{
			"1m": time.Minute, "60s": time.Minute, "90m": 90 * time.Minute, "8784h": 366 * 24 * time.Hour,
		} {
			require.Equal(t, want, parseOne(t, strings.Replace(minimalLossback, "72h", text, 1)).Window)
		}
	})
}

// TestParse_RefusesOneThingOfAKind has files with a single thing wrong that
// depends on the kind, or is of a field that not all programmes have.
func TestParse_RefusesOneThingOfAKind(t *testing.T) {
	t.Parallel()

	window := func(text string) string { return strings.Replace(minimalLossback, "window: 72h", text, 1) }
	for _, tc := range []struct{ file, want string }{
		// Basis.
		{strings.Replace(minimal, "basis: game", "basis: stake", 1), `8: daily-cashback: basis of a cashback must be cash or game, got "stake"`},
		{strings.Replace(minimal, "basis: game", "basis: risk", 1), `8: daily-cashback: basis of a cashback must be cash or game, got "risk"`},
		{strings.Replace(minimalRebate, "basis: stake", "basis: game", 1), `8: daily-rebate: basis of a rebate must be risk or stake, got "game"`},
		{strings.Replace(minimalRebate, "basis: stake", "basis: turnover", 1), `8: daily-rebate: basis of a rebate must be risk or stake, got "turnover"`},
		{strings.Replace(minimalRebate, "    basis: stake\n", "", 1), `2: daily-rebate: basis is missing`},
		{add(minimalLossback, "basis: cash"), `10: daily-lossback: basis of a lossback must be game, got "cash"`},
		{add(minimalLossback, "basis: stake"), `10: daily-lossback: basis of a lossback must be game, got "stake"`},
		{add(minimalLossback, "basis:"), `10: daily-lossback: basis must have a value, or be left out`},
		{add(minimalLossback, "basis: 7"), `10: daily-lossback: basis must be text, got 7`},
		{strings.Replace(minimal, "kind: cashback\n", "kind: Cashback\n", 1), `3: daily-cashback: kind must be cashback, lossback, or rebate, got "Cashback"`},
		{strings.Replace(minimal, "kind: cashback\n", "kind: 7\n", 1), `3: daily-cashback: kind must be text, got 7`},

		// Window.
		{window("#"), `2: daily-lossback: window is missing`},
		{window("window:"), `8: daily-lossback: window must have a value, or be left out`},
		{window("window: 72"), `8: daily-lossback: window must be a duration, such as 2h or 90m, got 72`},
		{window("window: 3d"), `8: daily-lossback: window must be a duration, such as 2h or 90m, got "3d"`},
		{window("window: [72h]"), `8: daily-lossback: window must be a duration, such as 2h or 90m, got a list`},
		{window("window: 0"), `8: daily-lossback: window must be a duration from 1m0s to 8784h0m0s, got 0s`},
		{window("window: -72h"), `8: daily-lossback: window must be a duration from 1m0s to 8784h0m0s, got -72h0m0s`},
		{window("window: 59s"), `8: daily-lossback: window must be a duration from 1m0s to 8784h0m0s, got 59s`},
		{window("window: 8784h0m1s"), `8: daily-lossback: window must be a duration from 1m0s to 8784h0m0s, got 8784h0m1s`},
		{window("window: 60.5s"), `8: daily-lossback: window must be whole seconds, got 1m0.5s`},
		{with("window: 72h"), `10: daily-cashback: window must be left out of a cashback: only a lossback counts from the first deposit on`},
		{with("window: 0s"), `10: daily-cashback: window must be left out of a cashback: only a lossback counts from the first deposit on`},
		{add(minimalRebate, "window: x"), `10: daily-rebate: window must be left out of a rebate: only a lossback counts from the first deposit on`},

		// Promotions.
		{add(minimalRebate, "less_promotions: true"), `10: daily-rebate: less_promotions must be left out of a rebate: promotions are no part of a turnover`},
		{add(minimalRisk, "less_promotions: true"), `10: daily-rebate: less_promotions must be left out of a rebate: promotions are no part of a turnover`},
		{add(minimalCash, "less_promotions: true"), `10: daily-cashback: less_promotions must be left out with basis cash: its closing balance holds the promotions already`},

		// Categories.
		{add(minimalCash, "categories: {slots: 5}"), `10: daily-cashback: categories must be left out with basis cash: balances and payments are of no category`},
		{add(minimalCash, "categories: {}"), `10: daily-cashback: categories must be left out with basis cash: balances and payments are of no category`},
		{add(minimalCash, "default_weight_ppm: 5"), `10: daily-cashback: default_weight_ppm must be left out with basis cash: balances and payments are of no category`},

		// Shape.
		{with("tier_by: vip", "shape: graduated"), `11: daily-cashback: shape must be slab with tier_by vip, got "graduated": bands are parts of the basis`},
		{add(minimalLossback, "shape: graduated", "tier_by: vip"), `10: daily-lossback: shape must be slab with tier_by vip, got "graduated": bands are parts of the basis`},
		{with("shape: bands"), `10: daily-cashback: shape must be graduated or slab, got "bands"`},

		// Budget.
		{with("budget:"), `10: daily-cashback: budget must have a value, or be left out`},
		{with("budget: 500"), `10: daily-cashback: budget must be {window, limit}, got 500`},
		{with("budget: [500]"), `10: daily-cashback: budget must be {window, limit}, got a list`},
		{with("budget: {limit: 5}"), `10: daily-cashback: budget.window is missing`},
		{with("budget: {window: daily}"), `10: daily-cashback: budget.limit is missing`},
		{with("budget:", "  window: yearly", "  limit: 5"), `11: daily-cashback: budget.window must be daily, weekly, or monthly, got "yearly"`},
		{with("budget:", "  window: 7", "  limit: 5"), `11: daily-cashback: budget.window must be text, got 7`},
		{with("budget:", "  window:", "  limit: 5"), `11: daily-cashback: budget.window must be text, got no value`},
		{with("budget:", "  window: daily", "  limit: 0"), `12: daily-cashback: budget.limit must be from 1 to 9223372036854775807, got 0`},
		{with("budget:", "  window: daily", "  limit: -1"), `12: daily-cashback: budget.limit must be from 1 to 9223372036854775807, got -1`},
		{with("budget:", "  window: daily", "  limit: 1e9"), `12: daily-cashback: budget.limit must be a whole number in plain digits, got "1e9"`},
		{with("budget:", "  window: daily", "  limit: 5.5"), `12: daily-cashback: budget.limit must be a whole number in plain digits, got 5.5`},
		{with("budget:", "  window: daily", "  limit: 9223372036854775808"), `12: daily-cashback: budget.limit must be from 1 to 9223372036854775807, got 9223372036854775808`},
		{with("budget:", "  window: daily", "  limit: 5", "  limit: 5"), `13: daily-cashback: budget.limit must come once`},
		{with("budget:", "  window: daily", "  limit: 5", "  per: player"), `13: daily-cashback: budget.per is unknown: a budget has window and limit`},
		{with("budget: {window: daily, limit: 5}", "budget: {window: daily, limit: 5}"), `11: daily-cashback: budget must come once`},
	} {
		t.Run(tc.want, func(t *testing.T) {
			t.Parallel()

			parsed, err := programme.Parse("test.yaml", strings.NewReader(tc.file))
			require.EqualError(t, err, "test.yaml:"+tc.want)
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.Nil(t, parsed)
		})
	}

	t.Run("NothingOfAnEmptyBudget", func(t *testing.T) {
		t.Parallel()

		_, err := programme.Parse("test.yaml", strings.NewReader(with("budget: {}")))
		require.EqualError(t, err, "test.yaml:10: daily-cashback: budget.window is missing\ntest.yaml:10: daily-cashback: budget.limit is missing")
	})
}

// TestParse_EveryCombination tries every word of every field that depends on
// another, all with all: a file is read if and only if the list of what goes
// together has it, and what is refused is refused at the line of a field that is
// not as it must be.
func TestParse_EveryCombination(t *testing.T) {
	t.Parallel()

	options := [][]string{
		{"kind: cashback", "kind: lossback", "kind: rebate"},
		{"", "basis: cash", "basis: game", "basis: risk", "basis: stake"},
		{"tier_by: basis", "tier_by: vip"},
		{"shape: slab", "shape: graduated"},
		{"", "less_promotions: true", "less_promotions: false"},
		{"", "categories: {slots: 5}"},
		{"", "default_weight_ppm: 5", "default_weight_ppm: 0"},
		{"", "window: 72h"},
		{"", "budget: {window: weekly, limit: 7}"},
	}
	numRead := 0
	for _, words := range combinations(options) {
		file := strings.Replace(minimal, "    kind: cashback\n", "", 1)
		file = add(strings.Replace(file, "    basis: game\n", "", 1), words...)
		wrong := notTogether(words)

		parsed, err := programme.Parse("test.yaml", strings.NewReader(file))
		if len(wrong) == 0 {
			require.NoError(t, err, file)
			require.Len(t, parsed, 1)
			requireWords(t, words, parsed[0])
			numRead++
			continue
		}
		require.True(t, fault.Is(err, fault.KindInvalid), file)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, len(wrong), "%s: %s", file, err)
		for _, field := range wrong {
			line := slices.IndexFunc(strings.Split(file, "\n"), func(line string) bool { return strings.HasPrefix(line, "    "+field+":") }) + 1
			if line == 0 {
				line = 2 // it is missing: that of the programme
			}
			prefix := fmt.Sprintf("test.yaml:%d: daily-cashback: %s ", line, field)
			require.True(t, slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, prefix) }), "%s: %s", prefix, err)
		}
	}
	require.Greater(t, numRead, 100)
}

// combinations returns every choice of one word of each list, without those that
// are empty.
func combinations(options [][]string) [][]string {
	all := [][]string{nil}
	for _, words := range options {
		var longer [][]string
		for _, before := range all {
			for _, word := range words {
				chosen := slices.Clone(before)
				if word != "" {
					chosen = append(chosen, word)
				}
				longer = append(longer, chosen)
			}
		}
		all = longer
	}
	return all
}

// notTogether returns the fields that are wrong, by a list of its own.
func notTogether(words []string) []string {
	has := func(word string) bool { return slices.Contains(words, word) }
	hasField := func(field string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.HasPrefix(word, field+":") })
	}
	var wrong []string
	add := func(isWrong bool, field string) {
		if isWrong {
			wrong = append(wrong, field)
		}
	}
	isLossback, isRebate, isCash := has("kind: lossback"), has("kind: rebate"), has("basis: cash")
	switch {
	case isLossback:
		add(hasField("basis") && !has("basis: game"), "basis")
	case isRebate:
		add(!has("basis: stake") && !has("basis: risk"), "basis")
	default:
		add(!has("basis: game") && !isCash, "basis")
	}
	add(has("shape: graduated") && has("tier_by: vip"), "shape")
	add(has("less_promotions: true") && (isRebate || isCash), "less_promotions")
	add(isCash && hasField("categories"), "categories")
	add(has("default_weight_ppm: 5") && (isCash || !hasField("categories")), "default_weight_ppm")
	add(hasField("window") != isLossback, "window")
	return wrong
}

// requireWords looks for each word in the terms that were read.
func requireWords(t *testing.T, words []string, terms programme.Terms) {
	t.Helper()
	has := func(word string) bool { return slices.Contains(words, word) }
	for _, word := range words {
		field, value, _ := strings.Cut(word, ": ")
		switch field {
		case "kind":
			require.Equal(t, value, string(terms.Kind))
		case "basis":
			require.Equal(t, value, string(terms.Basis))
		case "tier_by":
			require.Equal(t, value, string(terms.TierBy))
		case "shape":
			require.Equal(t, value, string(terms.Shape))
		}
	}
	require.Equal(t, has("less_promotions: true"), terms.LessPromotions)
	require.Equal(t, has("categories: {slots: 5}"), terms.Categories != nil)
	require.Equal(t, has("default_weight_ppm: 5"), terms.DefaultWeight == money.RatePPM(5))
	require.Equal(t, has("window: 72h"), terms.Window == 72*time.Hour)
	require.Equal(t, has("budget: {window: weekly, limit: 7}"), terms.Budget != nil)
}
