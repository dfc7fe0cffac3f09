package programme_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

func readGuide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "write-a-programme.md"))
	require.NoError(t, err)
	return string(text)
}

// guideExamples has what the guide tells of the players of its examples, by the
// code of the programme.
func guideExamples() map[string]programme.Activity {
	bet := func(stake, payout money.Minor) programme.CategorySum {
		return programme.CategorySum{
			Category: "slots", Payout: payout, Risk: min(max(payout-stake, stake-payout), stake), Stake: stake,
		}
	}
	return map[string]programme.Activity{
		"daily-rebate": {Categories: []programme.CategorySum{
			{Category: "slots", Payout: 1_900_000, Stake: 2_000_003}, {Category: "live", Stake: 1_500_000},
		}},
		"weekly-risk": {Categories: []programme.CategorySum{bet(1000, 0), bet(1000, 1950), bet(1000, 5000), bet(1000, 1000)}},
		"weekly-cashback": {Promotions: 60_000, VIP: 3, Categories: []programme.CategorySum{
			{Category: "slots", Payout: 400_000, Stake: 900_000}, {Category: "live", Payout: 500_000, Stake: 300_000},
		}},
		"monthly-cash": {Cash: &programme.Cash{Closing: 30_001, Deposits: 400_000, Opening: 50_000, Withdrawals: 120_000}},
		"first-deposit": {FirstDeposit: 200_000, Categories: []programme.CategorySum{
			{Category: "slots", Payout: 230_000, Stake: 500_000},
		}},
	}
}

func TestGuide(t *testing.T) {
	t.Parallel()

	t.Run("ItsExamplesAreWorkedOutAsItSays", func(t *testing.T) {
		t.Parallel()

		examples := guideExamples()
		blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```(.*?)```text\n(.*?)```").FindAllStringSubmatch(readGuide(t), -1)
		require.Len(t, blocks, len(examples))
		kinds := map[string]bool{}
		for _, block := range blocks {
			terms := parseOne(t, block[1])
			activity, known := examples[terms.Code]
			require.True(t, known, terms.Code)
			delete(examples, terms.Code)
			activity.Status = "active"
			owed, err := terms.Entitle(activity)
			require.NoError(t, err)
			require.Equal(t, block[3], strings.Join(terms.Explain(owed, activity), "\n")+"\n")
			requireReference(t, terms, activity, owed)
			// The words above the figures come to the same.
			require.Contains(t, block[2], inThousands(owed.Amount))
			kinds[string(terms.Kind)+"/"+string(terms.Basis)] = true
		}
		require.Empty(t, examples)
		require.Len(t, kinds, 5, "each kind and basis has an example")
	})

	t.Run("ItHasEachFieldAndEachReason", func(t *testing.T) {
		t.Parallel()

		guide := readGuide(t)
		for _, field := range strings.Fields(`auto_approve_below basis budget cap categories code currency default_weight_ppm
			effective_from grace inputs_deadline kind less_promotions max_attempts min_payout on_partial period shape
			tier_by tiers time_zone window`) {
			_, err := programme.Parse("test.yaml", strings.NewReader(with(field+": {x: y}")))
			require.NotContains(t, err.Error(), "has no field")
			require.Contains(t, guide, "\n| `"+field+"` | ")
		}
		for _, reason := range []programme.Reason{
			programme.ReasonSelfExcluded, programme.ReasonClosed, programme.ReasonNoTurnover, programme.ReasonWinner,
			programme.ReasonNoTier, programme.ReasonBelowMin, programme.ReasonOverpaid, programme.ReasonEarlierUndelivered,
		} {
			require.Contains(t, guide, "\n| `"+string(reason)+"` | ")
		}
	})

	t.Run("ItsDefaultsAreThose", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, parseOne(t, minimal), parseOne(t, with("grace: 0", "inputs_deadline: 24h", "tier_by: basis",
			"shape: slab", "min_payout: 0", "less_promotions: false", "max_attempts: 6", "on_partial: complete")))
	})

	t.Run("WhatItSaysIsRefusedIsRefusedInItsWords", func(t *testing.T) {
		t.Parallel()

		rows := regexp.MustCompile("(?m)^\\| .* \\| `(.*)` \\|$").FindAllStringSubmatch(section(t, readGuide(t), "What is refused"), -1)
		files := []string{
			strings.Replace(minimalRebate, "basis: stake", "basis: game", 1),
			add(minimalRebate, "less_promotions: true"),
			add(minimalCash, "less_promotions: true"),
			add(minimalCash, "categories: {slots: 5}"),
			add(minimalCash, "default_weight_ppm: 5"),
			with("default_weight_ppm: 5"),
			with("window: 72h"),
			strings.Replace(minimalLossback, "    window: 72h\n", "", 1),
			with("shape: graduated", "tier_by: vip"),
			with("cap: 99", "min_payout: 100"),
			with("budget: {window: daily}"),
		}
		require.Len(t, rows, len(files))
		for i, file := range files {
			_, err := programme.Parse("test.yaml", strings.NewReader(file))
			require.Error(t, err)
			require.True(t, strings.HasSuffix(err.Error(), ": "+rows[i][1]), "%s: %s", rows[i][1], err)
		}
	})
}

// section returns what stands under a heading.
func section(t *testing.T, guide, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(guide, "\n## "+heading+"\n")
	require.True(t, found)
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// inThousands writes an amount as the guide's sentences do: 8,999.
func inThousands(amount money.Minor) string {
	if amount < 1000 {
		return strconv.FormatInt(int64(amount), 10)
	}
	return fmt.Sprintf("%d,%03d", amount/1000, amount%1000)
}
