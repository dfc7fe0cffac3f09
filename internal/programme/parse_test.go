package programme_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

func TestParse(t *testing.T) {
	t.Parallel()

	t.Run("ReadsEachField", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, programme.Terms{
			AutoApproveBelow: minor(100_000_000),
			Basis:            programme.BasisGame,
			Cap:              minor(1_000_000),
			Categories:       map[string]money.RatePPM{"live": 200_000, "slots": 1_000_000},
			Code:             "weekly-cashback",
			Currency:         "KRW",
			EffectiveFrom:    day(t, "2026-10-01"),
			Grace:            2 * time.Hour,
			InputsDeadline:   24 * time.Hour,
			Kind:             programme.Cashback,
			LessPromotions:   true,
			MaxAttempts:      6,
			MinPayout:        100,
			OnPartial:        programme.OnPartialComplete,
			Period:           timewindow.Weekly,
			Shape:            programme.ShapeSlab,
			TierBy:           programme.TierByVIP,
			Tiers:            []programme.Tier{{From: 0, Rate: 50_000}, {From: 3, Rate: 100_000}},
			TimeZone:         "Asia/Seoul",
		}, parseOne(t, readWeekly(t)))
	})

	t.Run("FillsInWhatIsLeftOut", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, programme.Terms{
			Basis:          programme.BasisGame,
			Code:           "daily-cashback",
			Currency:       "EUR",
			EffectiveFrom:  day(t, "2026-10-01"),
			InputsDeadline: 24 * time.Hour,
			Kind:           programme.Cashback,
			MaxAttempts:    6,
			OnPartial:      programme.OnPartialComplete,
			Period:         timewindow.Daily,
			Shape:          programme.ShapeSlab,
			TierBy:         programme.TierByBasis,
			Tiers:          []programme.Tier{{From: 0, Rate: 100_000}},
			TimeZone:       "Europe/Berlin",
		}, newTerms(t))
	})

	t.Run("ReadsWhatElseYAMLAllows", func(t *testing.T) {
		t.Parallel()

		plain := newTerms(t)
		for _, text := range []string{
			strings.ReplaceAll(minimal, "\n", "\r\n"),
			"\ufeff" + minimal,
			"# a comment\n---\n" + minimal,
			minimal + "...\n",
			strings.ReplaceAll(minimal, "daily-cashback", `"daily-cashback"`),
			strings.ReplaceAll(minimal, "2026-10-01", "'2026-10-01'"),
			strings.ReplaceAll(minimal, "tiers: [{from: 0, rate_ppm: 100000}]", "tiers:\n    - from: 0\n      rate_ppm: 100000"),
			`{"programmes": [{"code": "daily-cashback", "kind": "cashback", "currency": "EUR", "period": "daily",
				"time_zone": "Europe/Berlin", "effective_from": "2026-10-01", "basis": "game",
				"tiers": [{"from": 0, "rate_ppm": 100000}]}]}`,
		} {
			require.Equal(t, plain, parseOne(t, text), text)
		}
	})

	t.Run("KeepsTheOrderOfTheFile", func(t *testing.T) {
		t.Parallel()

		second := strings.TrimPrefix(strings.ReplaceAll(minimal, "daily-cashback", "another"), "programmes:\n")
		parsed := parse(t, minimal+second)
		require.Len(t, parsed, 2)
		require.Equal(t, "daily-cashback", parsed[0].Code)
		require.Equal(t, "another", parsed[1].Code)
	})

	t.Run("ReadsEachOtherWordOfAList", func(t *testing.T) {
		t.Parallel()

		terms := parseOne(t, with("tier_by: vip", "on_partial: error", "less_promotions: false", "grace: 90m", "auto_approve_below: 0",
			"categories: {slots: 0}", "default_weight_ppm: 1000000", "cap: 9223372036854775807", "min_payout: 9223372036854775807"))
		require.Equal(t, programme.OnPartialError, terms.OnPartial)
		require.Equal(t, 90*time.Minute, terms.Grace)
		require.Equal(t, money.Minor(0), *terms.AutoApproveBelow)
		require.Equal(t, money.MaxRatePPM, terms.DefaultWeight)
		require.Equal(t, money.Minor(1<<63-1), *terms.Cap)
	})

	t.Run("PassesOnAFailureToRead", func(t *testing.T) {
		t.Parallel()

		cause := errors.New("disk on fire")
		_, err := programme.Parse("test.yaml", iotest.ErrReader(cause))
		require.ErrorIs(t, err, cause)
		require.EqualError(t, err, "read test.yaml: disk on fire")
		require.False(t, fault.Is(err, fault.KindInvalid))
	})
}

// TestParse_RefusesOneThing has files with a single thing wrong, and the whole
// error.
func TestParse_RefusesOneThing(t *testing.T) {
	t.Parallel()

	const tiers = "tiers: [{from: 0, rate_ppm: 100000}]"
	for _, tc := range []struct{ file, want string }{
		// The file.
		{"", `test.yaml: has no programmes`},
		{"# nothing\n", `test.yaml: has no programmes`},
		{"---\n", `test.yaml: has no programmes`},
		{"\n\n[]\n", `test.yaml:3: must be a mapping with programmes, got a list`},
		{"programmes\n", `test.yaml:1: must be a mapping with programmes, got "programmes"`},
		{"programmes:\n", `test.yaml:1: programmes must be a list, got no value`},
		{"programmes: []\n", `test.yaml:1: has no programmes`},
		{"programmes: {}\n", `test.yaml:1: programmes must be a list, got a mapping`},
		{"{}\n", `test.yaml:1: has no programmes`},
		{"programmes: [7]\n", `test.yaml:1: programme 1: must be a mapping, got 7`},
		{"programmes:\n- \n", `test.yaml:2: programme 1: must be a mapping, got no value`},
		{minimal + "other: 1\n", `test.yaml:10: has no field "other": all it has is programmes`},
		{minimal + "programmes: []\n", `test.yaml:10: programmes must come once`},
		{minimal + "---\n" + minimal, `test.yaml:11: must be a single document`},
		{minimal + "\xff", `test.yaml: must be valid UTF-8`},
		{minimal + strings.Repeat("#\n", programme.MaxFileBytes/2), `test.yaml: must have at most 1048576 bytes`},
		{minimal + "\t- x\n", `test.yaml:10: found character '	' that cannot start any token`},
		{"programmes: [\n", `test.yaml:1: sequence end token ']' not found`},
		{"a: " + strings.Repeat("[", 33), `test.yaml:1: has values within values, more than 32 deep`},
		{"a:\n  " + strings.Repeat("- ", 33), `test.yaml:2: has values within values, more than 32 deep`},
		{strings.Repeat("a: 1\n", 33_334), `test.yaml: has too many values, more than fit 100000 words and marks; split it`},

		// Fields.
		{with("budjet: 1"), `test.yaml:10: daily-cashback: has no field "budjet"`},
		{with("Cap: 1"), `test.yaml:10: daily-cashback: has no field "Cap"`},
		{with("1: 1"), `test.yaml:10: daily-cashback: has no field "1"`},
		{with("cap: 1", "cap: 1"), `test.yaml:11: daily-cashback: cap must come once`},
		{with(`"cap": 1`, "min_payout: 1", "cap: 1"), `test.yaml:12: daily-cashback: cap must come once`},
		{with("cap:"), `test.yaml:10: daily-cashback: cap must have a value, or be left out`},
		{with("cap: null"), `test.yaml:10: daily-cashback: cap must have a value, or be left out`},
		{with("cap: &a 5"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got an anchor or alias, which is not taken: write the value out`},
		{with("cap: !!int 5"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got a tag, which is not taken: write the value out`},

		// Fields without a default.
		{instead(t, "code: daily-cashback\n    kind", "kind"), `test.yaml:2: programme 1: code is missing`},
		{instead(t, "    kind: cashback\n", ""), `test.yaml:2: daily-cashback: kind is missing`},
		{instead(t, "    currency: EUR\n", ""), `test.yaml:2: daily-cashback: currency is missing`},
		{instead(t, "    period: daily\n", ""), `test.yaml:2: daily-cashback: period is missing`},
		{instead(t, "    time_zone: Europe/Berlin\n", ""), `test.yaml:2: daily-cashback: time_zone is missing`},
		{instead(t, "    effective_from: 2026-10-01\n", ""), `test.yaml:2: daily-cashback: effective_from is missing`},
		{instead(t, "    basis: game\n", ""), `test.yaml:2: daily-cashback: basis is missing`},
		{instead(t, "    "+tiers+"\n", ""), `test.yaml:2: daily-cashback: tiers is missing`},

		// Words.
		{instead(t, "daily-cashback", "Daily"), `test.yaml:2: programme 1: code must be 1 to 64 of a-z, 0-9, - and _, the first a letter or digit, got "Daily"`},
		{instead(t, "daily-cashback", "-x"), `test.yaml:2: programme 1: code must be 1 to 64 of a-z, 0-9, - and _, the first a letter or digit, got "-x"`},
		{instead(t, "daily-cashback", "a/b"), `test.yaml:2: programme 1: code must be 1 to 64 of a-z, 0-9, - and _, the first a letter or digit, got "a/b"`},
		{instead(t, "daily-cashback", `""`), `test.yaml:2: programme 1: code must be 1 to 64 of a-z, 0-9, - and _, the first a letter or digit, got ""`},
		{instead(t, "daily-cashback", strings.Repeat("x", 65)), `test.yaml:2: programme 1: code must be 1 to 64 of a-z, 0-9, - and _, the first a letter or digit, got "` + strings.Repeat("x", 60) + `"…`},
		{instead(t, "daily-cashback", "2026"), `test.yaml:2: programme 1: code must be text, got 2026`},
		{instead(t, "kind: cashback", "kind: cashbck"), `test.yaml:3: daily-cashback: kind must be cashback, lossback, or rebate, got "cashbck"`},
		{instead(t, "EUR", "eur"), `test.yaml:4: daily-cashback: currency must be three capital letters, got "eur"`},
		{instead(t, "EUR", "true"), `test.yaml:4: daily-cashback: currency must be text, got true`},
		{instead(t, "period: daily", "period: hourly"), `test.yaml:5: daily-cashback: period must be daily, weekly, or monthly, got "hourly"`},
		{instead(t, "Europe/Berlin", "Local"), `test.yaml:6: daily-cashback: time_zone must be the IANA name of a zone, such as Asia/Seoul, got "Local"`},
		{instead(t, "Europe/Berlin", "Europe/Atlantis"), `test.yaml:6: daily-cashback: time_zone must be the IANA name of a zone, such as Asia/Seoul, got "Europe/Atlantis"`},
		{instead(t, "Europe/Berlin", `+09:00`), `test.yaml:6: daily-cashback: time_zone must be the IANA name of a zone, such as Asia/Seoul, got "+09:00"`},
		{instead(t, "2026-10-01", "2026-02-30"), `test.yaml:7: daily-cashback: effective_from must be a day from 1973 on, such as 2026-10-01, got "2026-02-30"`},
		{instead(t, "2026-10-01", "1972-12-31"), `test.yaml:7: daily-cashback: effective_from must be a day from 1973 on, such as 2026-10-01, got "1972-12-31"`},
		{instead(t, "2026-10-01", "20261001"), `test.yaml:7: daily-cashback: effective_from must be text, got 20261001`},
		{instead(t, "basis: game", "basis: games"), `test.yaml:8: daily-cashback: basis of a cashback must be cash or game, got "games"`},
		{with("tier_by: level"), `test.yaml:10: daily-cashback: tier_by must be basis or vip, got "level"`},
		{with("shape: flat"), `test.yaml:10: daily-cashback: shape must be graduated or slab, got "flat"`},
		{with("on_partial: fail"), `test.yaml:10: daily-cashback: on_partial must be complete or error, got "fail"`},
		{with("on_partial: |", "  complete"), `test.yaml:10: daily-cashback: on_partial must be text, got a block of text`},
		{with("less_promotions: yes"), `test.yaml:10: daily-cashback: less_promotions must be true or false, got "yes"`},
		{with(`less_promotions: "true"`), `test.yaml:10: daily-cashback: less_promotions must be true or false, got "true"`},
		{with("less_promotions: 1"), `test.yaml:10: daily-cashback: less_promotions must be true or false, got 1`},

		// Durations.
		{with("grace: 2"), `test.yaml:10: daily-cashback: grace must be a duration, such as 2h or 90m, got 2`},
		{with("grace: 1d"), `test.yaml:10: daily-cashback: grace must be a duration, such as 2h or 90m, got "1d"`},
		{with("grace: [2h]"), `test.yaml:10: daily-cashback: grace must be a duration, such as 2h or 90m, got a list`},
		{with("grace: -1h"), `test.yaml:10: daily-cashback: grace must be a duration from 0s to 744h0m0s, got -1h0m0s`},
		{with("grace: 745h"), `test.yaml:10: daily-cashback: grace must be a duration from 0s to 744h0m0s, got 745h0m0s`},
		{with("grace: 1.5s"), `test.yaml:10: daily-cashback: grace must be whole seconds, got 1.5s`},
		{with("inputs_deadline: 0s"), `test.yaml:10: daily-cashback: inputs_deadline must be a duration from 1s to 744h0m0s, got 0s`},

		// Numbers.
		{with("cap: 0"), `test.yaml:10: daily-cashback: cap must be from 1 to 9223372036854775807, got 0`},
		{with("cap: -5"), `test.yaml:10: daily-cashback: cap must be from 1 to 9223372036854775807, got -5`},
		{with("cap: 9223372036854775808"), `test.yaml:10: daily-cashback: cap must be from 1 to 9223372036854775807, got 9223372036854775808`},
		{with("cap: 1e6"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got "1e6"`},
		{with("cap: 1.0e6"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got 1.0e6`},
		{with("cap: 1_000"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got 1_000`},
		{with("cap: 1000.0"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got 1000.0`},
		{with("cap: 0x10"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got 0x10`},
		{with("cap: 010"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got 010`},
		{with("cap: +10"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got +10`},
		{with("cap: .inf"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got .inf`},
		{with("cap: 1,000"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got "1,000"`},
		{with(`cap: "1000"`), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got "1000"`},
		{with("cap: true"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got true`},
		{with("cap: {}"), `test.yaml:10: daily-cashback: cap must be a whole number in plain digits, got a mapping`},
		{with("cap: 99", "min_payout: 100"), `test.yaml:10: daily-cashback: cap must not be below min_payout, 100: nobody would ever be paid, got 99`},
		{with("min_payout: -1"), `test.yaml:10: daily-cashback: min_payout must be from 0 to 9223372036854775807, got -1`},
		{with("auto_approve_below: -1"), `test.yaml:10: daily-cashback: auto_approve_below must be from 0 to 9223372036854775807, got -1`},
		{with("max_attempts: 0"), `test.yaml:10: daily-cashback: max_attempts must be from 1 to 100, got 0`},
		{with("max_attempts: 101"), `test.yaml:10: daily-cashback: max_attempts must be from 1 to 100, got 101`},

		// Categories.
		{with("categories: 5"), `test.yaml:10: daily-cashback: categories must be a mapping of names and weights, got 5`},
		{with("categories: {}"), `test.yaml:10: daily-cashback: categories must name a category, or be left out: each then counts in full`},
		{with("default_weight_ppm: 5"), `test.yaml:10: daily-cashback: default_weight_ppm must be left out, or categories be named: without them each counts in full, got 5`},
		{with("categories: {slots: 0}", "default_weight_ppm: -1"), `test.yaml:11: daily-cashback: default_weight_ppm must be from 0 to 1000000, got -1`},
		{with("categories:", "  live: 1", "  slots: 1000001"), `test.yaml:12: daily-cashback: categories.slots must be from 0 to 1000000, got 1000001`},
		{with("categories:", "  live: 0.5"), `test.yaml:11: daily-cashback: categories.live must be a whole number in plain digits, got 0.5`},
		{with("categories:", "  live:"), `test.yaml:11: daily-cashback: categories.live must be a whole number in plain digits, got no value`},
		{with("categories:", "  live: 1", "  live: 1"), `test.yaml:12: daily-cashback: categories must name "live" once`},
		{with("categories:", "  7: 1"), `test.yaml:11: daily-cashback: categories must have names that are text: put 7 in quotes`},
		{with("categories:", `  "": 1`), `test.yaml:10: daily-cashback: categories names must have 1 to 64 characters, got ""`},
		{with("categories:", `  "a\nb": 1`), `test.yaml:10: daily-cashback: categories names must not contain control characters, got "a\nb"`},
		{with("categories:", `  "a\nb": x`), `test.yaml:10: daily-cashback: categories names must not contain control characters, got "a\nb"` + "\n" +
			`test.yaml:11: daily-cashback: categories.a\nb must be a whole number in plain digits, got "x"`},
		{with("categories: {" + manyCategories(257) + "}"), `test.yaml:10: daily-cashback: categories must name at most 256, got 257`},

		// Tiers.
		{instead(t, tiers, "tiers: []"), `test.yaml:9: daily-cashback: tiers must be 1 to 100, got 0`},
		{instead(t, tiers, "tiers: {from: 0, rate_ppm: 5}"), `test.yaml:9: daily-cashback: tiers must be a list of {from, rate_ppm}, got a mapping`},
		{instead(t, tiers, "tiers: ["+strings.Repeat("{from: 0, rate_ppm: 5},", 101)+"]"), `test.yaml:9: daily-cashback: tiers must be 1 to 100, got 101`},
		{instead(t, tiers, "tiers:\n    - {from: 0, rate_ppm: 5}\n    - 5"), `test.yaml:11: daily-cashback: tiers must be a list of {from, rate_ppm}, got 5`},
		{instead(t, tiers, "tiers:\n    - {from: 0, rate_ppm: 5}\n    - {from: 0, rate_ppm: 5}"), `test.yaml:11: daily-cashback: tiers[1].from must be above that of the tier before, 0, got 0`},
		{instead(t, tiers, "tiers:\n    - {from: 0, rate_ppm: 5}\n    - {from: -1, rate_ppm: 5}"), `test.yaml:11: daily-cashback: tiers[1].from must be from 0 to 9223372036854775807, got -1`},
		{instead(t, tiers, "tiers:\n    - from: 0\n      rate_ppm: 1000001"), `test.yaml:11: daily-cashback: tiers[0].rate_ppm must be from 0 to 1000000, got 1000001`},
		{instead(t, tiers, "tiers:\n    - from: 0\n      rate_ppm: 5%"), `test.yaml:11: daily-cashback: tiers[0].rate_ppm must be a whole number in plain digits, got "5%"`},
		{instead(t, tiers, "tiers:\n    - {from: x, rate_ppm: 5}\n    - {from: 0, rate_ppm: 5}"), `test.yaml:10: daily-cashback: tiers[0].from must be a whole number in plain digits, got "x"`},
		{instead(t, tiers, "tiers:\n    - from: 0"), `test.yaml:10: daily-cashback: tiers[0].rate_ppm is missing`},
		{instead(t, tiers, "tiers:\n    - rate_ppm: 0"), `test.yaml:10: daily-cashback: tiers[0].from is missing`},
		{instead(t, tiers, "tiers: [{from: 0, rate_ppm: 5}, {}]"), "test.yaml:9: daily-cashback: tiers[1].from is missing\ntest.yaml:9: daily-cashback: tiers[1].rate_ppm is missing"},
		{instead(t, tiers, "tiers:\n    - from: 0\n      from: 0\n      rate_ppm: 5"), `test.yaml:11: daily-cashback: tiers[0].from must come once`},
		{instead(t, tiers, "tiers:\n    - from: 0\n      rate: 5\n      rate_ppm: 5"), `test.yaml:11: daily-cashback: tiers[0].rate is unknown: a tier has from and rate_ppm`},
		{instead(t, tiers, "tier_by: vip\n    tiers: [{from: 2147483648, rate_ppm: 5}]"), `test.yaml:10: daily-cashback: tiers[0].from must be from 0 to 2147483647, got 2147483648`},
	} {
		t.Run(tc.want, func(t *testing.T) {
			t.Parallel()

			parsed, err := programme.Parse("test.yaml", strings.NewReader(tc.file))
			require.EqualError(t, err, tc.want)
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.Nil(t, parsed)
		})
	}
}

func manyCategories(num int) string {
	var list []string
	for i := range num {
		list = append(list, "c"+strconv.Itoa(i)+": 1")
	}
	return strings.Join(list, ", ")
}

func TestParse_RefusesManyThings(t *testing.T) {
	t.Parallel()

	refuse := func(t *testing.T, text string) string {
		t.Helper()
		_, err := programme.Parse("test.yaml", strings.NewReader(text))
		require.True(t, fault.Is(err, fault.KindInvalid))
		return err.Error()
	}

	t.Run("AtOnceInTheOrderOfTheFile", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, strings.TrimPrefix(`
test.yaml:2: weekly: currency is missing
test.yaml:2: weekly: effective_from is missing
test.yaml:4: weekly: period must be daily, weekly, or monthly, got "fortnightly"
test.yaml:6: weekly: basis must be text, got 7
test.yaml:7: weekly: has no field "tier"
test.yaml:8: weekly: tiers[0].from must be from 0 to 9223372036854775807, got -1
test.yaml:8: weekly: tiers[1].rate_ppm must be from 0 to 1000000, got 2000000
test.yaml:9: weekly: cap must be a whole number in plain digits, got 0.5
test.yaml:12: first-deposit: tiers must be a list of {from, rate_ppm}, got 7
test.yaml:12: first-deposit: time_zone is missing
test.yaml:12: first-deposit: effective_from is missing
test.yaml:12: first-deposit: kind must be cashback, lossback, or rebate, got "lossbak"
test.yaml:13: weekly: code must be unique, line 2 has it too`, "\n"), refuse(t, `programmes:
  - code: weekly
    kind: cashback
    period: fortnightly
    time_zone: UTC
    basis: 7
    tier: 5
    tiers: [{from: -1, rate_ppm: 5}, {from: 5, rate_ppm: 2000000}]
    cap: 0.5

  # one line
  - {code: first-deposit, kind: lossbak, currency: KRW, period: daily, window: 72h, tiers: 7}
  - code: weekly
    kind: cashback
    currency: EUR
    period: weekly
    time_zone: UTC
    effective_from: 2026-10-01
    basis: game
    tiers: [{from: 0, rate_ppm: 100000}]
`))
	})

	t.Run("UpTo50", func(t *testing.T) {
		t.Parallel()

		var lines []string
		for i := range 53 {
			lines = append(lines, "x"+strconv.Itoa(i)+": 1")
		}
		told := strings.Split(refuse(t, with(lines...)), "\n")
		require.Len(t, told, 51)
		require.Equal(t, `test.yaml:59: daily-cashback: has no field "x49"`, told[49])
		require.Equal(t, `test.yaml: and 3 more`, told[50])
	})
}

// TestParse_Written writes what Parse reads.
func TestParse_Written(t *testing.T) {
	t.Parallel()

	t.Run("ReadsTheStoredFormOfEveryTerms", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms := drawTerms(byRapid{t})
			text, err := terms.Canonical()
			require.NoError(t, err)
			// JSON is YAML too, but what is null must be left out of a file.
			file := string(text)
			for _, field := range []string{"auto_approve_below", "cap", "categories"} {
				file = strings.ReplaceAll(file, `"`+field+`":null,`, "")
			}
			require.Equal(t, terms, parseOne(t, `{"programmes": [`+file+`]}`))
		})
	})
}

// FuzzParse: whatever the file, Parse returns, and what it returns is valid.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		minimal, minimalRisk, minimalCash, minimalLossback, readWeekly(f),
		add(minimalRebate, "shape: graduated", "budget: {window: daily, limit: 1}"), with("budget: {window: 7}", "window: 0"), "", "programmes: []", "a: &a [*a]", "<<: {a: b}", "? a\n: b", "- - - -", "{a: {b: [c",
		"a: |\n  b\n", "a: >-\n", "%YAML 1.2\n---\n", "!!map {}", "'\n", "\"\\", "programmes:\n- {code: a, kind: cashback}\n",
		"programmes: [{tiers: [{from: 1e6, rate_ppm: ~}], categories: {? : }}]", "\t", "a:\n\tb", "---\n---\n", "#", "*a", "@",
		"programmes:\n- code: x\n  kind: cashback\n  categories: {a.b[0]: 5, a.b[0]: -5}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := programme.Parse("fuzz.yaml", strings.NewReader(string(data)))
		if err != nil {
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.Nil(t, all)
			require.Contains(t, err.Error(), "fuzz.yaml")
			return
		}
		require.NotEmpty(t, all)
		for _, terms := range all {
			require.NoError(t, terms.Validate())
			text, err := terms.Canonical()
			require.NoError(t, err)
			again, err := programme.Decode(text)
			require.NoError(t, err)
			require.Equal(t, terms, again)
		}
	})
}
