package programme_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// The stored forms of the two files, and their hashes. Hashes are kept with what
// was approved: if one of these changes, so does the meaning of stored rows.
const (
	storedMinimal = `{"code":"daily-cashback","kind":"cashback","currency":"EUR","period":"daily",` +
		`"time_zone":"Europe/Berlin","effective_from":"2026-10-01","grace":"0s","inputs_deadline":"24h0m0s","basis":"game",` +
		`"categories":null,"default_weight_ppm":0,"tier_by":"basis","shape":"slab","tiers":[{"from":0,"rate_ppm":100000}],` +
		`"cap":null,"min_payout":0,"less_promotions":false,"auto_approve_below":null,"max_attempts":6,"on_partial":"complete"}`
	storedWeekly = `{"code":"weekly-cashback","kind":"cashback","currency":"KRW","period":"weekly",` +
		`"time_zone":"Asia/Seoul","effective_from":"2026-10-01","grace":"2h0m0s","inputs_deadline":"24h0m0s","basis":"game",` +
		`"categories":{"live":200000,"slots":1000000},"default_weight_ppm":0,"tier_by":"vip","shape":"slab",` +
		`"tiers":[{"from":0,"rate_ppm":50000},{"from":3,"rate_ppm":100000}],"cap":1000000,"min_payout":100,` +
		`"less_promotions":true,"auto_approve_below":100000000,"max_attempts":6,"on_partial":"complete"}`
	hashMinimal = "b5291eb9154eb5718e79dd53f739f4bb4925bcd7879059c3f4050d31b76c1c84"
	hashWeekly  = "866b07ff54d509947b79bca2aec51504f9a1c75dc9d41206c0c4f3ec53a8327f"
)

func readWeekly(t require.TestingT) string {
	text, err := os.ReadFile(filepath.Join("testdata", "weekly-cashback.yaml"))
	require.NoError(t, err)
	return string(text)
}

func TestTerms_Canonical(t *testing.T) {
	t.Parallel()

	t.Run("WritesEveryFieldInAFixedOrder", func(t *testing.T) {
		t.Parallel()

		for file, want := range map[string]string{minimal: storedMinimal, readWeekly(t): storedWeekly} {
			text, err := parseOne(t, file).Canonical()
			require.NoError(t, err)
			require.Equal(t, want, string(text))
		}
	})

	t.Run("WritesWindowAndBudgetWhereThereIsOne", func(t *testing.T) {
		t.Parallel()

		text, err := parseOne(t, add(minimalLossback, "budget: {limit: 5, window: monthly}")).Canonical()
		require.NoError(t, err)
		require.Equal(t, strings.NewReplacer(
			"cashback", "lossback",
			`"basis":"game"`, `"basis":"game","window":"72h0m0s"`,
			`"auto_approve_below"`, `"budget":{"limit":5,"window":"monthly"},"auto_approve_below"`,
		).Replace(storedMinimal), string(text))
	})

	t.Run("RefusesTermsThatAreNotValid", func(t *testing.T) {
		t.Parallel()

		_, err := programme.Terms{Kind: programme.Cashback}.Canonical()
		require.True(t, fault.Is(err, fault.KindInvalid))
		terms := newTerms(t)
		terms.MaxAttempts, terms.TimeZone = 0, "Local"
		_, err = terms.Canonical()
		require.EqualError(t, err, "terms of programme \"daily-cashback\": "+
			"time_zone must be the IANA name of a zone, such as Asia/Seoul, got \"Local\"\n"+
			"max_attempts must be from 1 to 100, got 0")
	})
}

func TestTerms_Hash(t *testing.T) {
	t.Parallel()

	t.Run("StaysWhatItWas", func(t *testing.T) {
		t.Parallel()

		for file, want := range map[string]string{minimal: hashMinimal, readWeekly(t): hashWeekly} {
			hash, err := parseOne(t, file).Hash()
			require.NoError(t, err)
			require.Equal(t, want, hash)
		}
	})

	t.Run("TermsThatWereStoredByAnEarlierVersionKeepTheirs", func(t *testing.T) {
		t.Parallel()

		for text, want := range map[string]string{storedMinimal: hashMinimal, storedWeekly: hashWeekly} {
			terms, err := programme.Decode([]byte(text))
			require.NoError(t, err)
			require.Zero(t, terms.Window)
			require.Nil(t, terms.Budget)
			again, err := terms.Canonical()
			require.NoError(t, err)
			require.Equal(t, text, string(again))
			hash, err := terms.Hash()
			require.NoError(t, err)
			require.Equal(t, want, hash)
		}
	})

	t.Run("ADefaultThatIsWrittenOutIsTheSame", func(t *testing.T) {
		t.Parallel()

		hash, err := parseOne(t, with("grace: 0", "inputs_deadline: 1440m", "tier_by: basis", "shape: slab", "min_payout: 0",
			"less_promotions: false", "max_attempts: 6", "on_partial: complete")).Hash()
		require.NoError(t, err)
		require.Equal(t, hashMinimal, hash)
	})

	t.Run("DiffersWithEachField", func(t *testing.T) {
		t.Parallel()

		seen := map[string]string{hashMinimal: "none"}
		for name, change := range map[string]func(*programme.Terms){
			"auto_approve_below": func(terms *programme.Terms) { terms.AutoApproveBelow = minor(0) },
			"budget.limit":       func(terms *programme.Terms) { terms.Budget = &programme.Budget{Limit: 1, Window: "daily"} },
			"budget.window":      func(terms *programme.Terms) { terms.Budget = &programme.Budget{Limit: 1, Window: "weekly"} },
			"basis":              func(terms *programme.Terms) { terms.Basis = programme.BasisCash },
			"kind": func(terms *programme.Terms) {
				terms.Kind, terms.Window = programme.Lossback, time.Hour
			},
			"kind and basis": func(terms *programme.Terms) { terms.Kind, terms.Basis = programme.Rebate, programme.BasisRisk },
			"shape":          func(terms *programme.Terms) { terms.Shape = programme.ShapeGraduated },
			"window": func(terms *programme.Terms) {
				terms.Kind, terms.Window = programme.Lossback, 2*time.Hour
			},
			"cap":        func(terms *programme.Terms) { terms.Cap = minor(1) },
			"categories": func(terms *programme.Terms) { terms.Categories = map[string]money.RatePPM{"slots": 0} },
			"code":       func(terms *programme.Terms) { terms.Code = "other" },
			"currency":   func(terms *programme.Terms) { terms.Currency = "USD" },
			"default_weight_ppm": func(terms *programme.Terms) {
				terms.Categories, terms.DefaultWeight = map[string]money.RatePPM{"slots": 0}, 1
			},
			"effective_from":  func(terms *programme.Terms) { terms.EffectiveFrom = day(t, "2026-10-02") },
			"grace":           func(terms *programme.Terms) { terms.Grace = 1e9 },
			"inputs_deadline": func(terms *programme.Terms) { terms.InputsDeadline = 1e9 },
			"less_promotions": func(terms *programme.Terms) { terms.LessPromotions = true },
			"max_attempts":    func(terms *programme.Terms) { terms.MaxAttempts = 7 },
			"min_payout":      func(terms *programme.Terms) { terms.MinPayout = 1 },
			"on_partial":      func(terms *programme.Terms) { terms.OnPartial = programme.OnPartialError },
			"period":          func(terms *programme.Terms) { terms.Period = "weekly" },
			"tier_by":         func(terms *programme.Terms) { terms.TierBy = programme.TierByVIP },
			"tiers.from":      func(terms *programme.Terms) { terms.Tiers[0].From = 1 },
			"tiers.rate_ppm":  func(terms *programme.Terms) { terms.Tiers[0].Rate = 1 },
			"time_zone":       func(terms *programme.Terms) { terms.TimeZone = "Europe/Paris" },
		} {
			terms := newTerms(t)
			change(&terms)
			hash, err := terms.Hash()
			require.NoError(t, err, name)
			require.NotContains(t, seen, hash, name)
			seen[hash] = name
		}
	})
}

func TestDecode(t *testing.T) {
	t.Parallel()

	t.Run("GivesBackWhatWasWrittenWhateverTheOrderAndSpacing", func(t *testing.T) {
		t.Parallel()

		rapid.Check(t, func(t *rapid.T) {
			terms := drawTerms(byRapid{t})
			text, err := terms.Canonical()
			require.NoError(t, err)
			hash, err := terms.Hash()
			require.NoError(t, err)

			for _, given := range [][]byte{text, reordered(t, text)} {
				again, err := programme.Decode(given)
				require.NoError(t, err)
				require.Equal(t, terms, again)
				hashAgain, err := again.Hash()
				require.NoError(t, err)
				require.Equal(t, hash, hashAgain)
			}
		})
	})

	t.Run("RefusesWhatWasNotWritten", func(t *testing.T) {
		t.Parallel()

		change := func(old, replacement string) string {
			require.Equal(t, 1, strings.Count(storedWeekly, old), old)
			return strings.Replace(storedWeekly, old, replacement, 1)
		}
		for given, reason := range map[string]string{
			"":                  "EOF",
			"null":              `kind must be cashback, lossback, or rebate, got ""`,
			"[]":                "cannot unmarshal array",
			storedWeekly[:100]:  "unexpected EOF",
			storedWeekly + "{}": "more follows after the object",
			change(`"max_attempts":6`, `"max_attempts":0`):                                          "max_attempts must be from 1 to 100, got 0",
			change(`"max_attempts":6`, `"max_attempts":6.5`):                                        "cannot unmarshal number 6.5",
			change(`"max_attempts":6`, `"attempts":6`):                                              `unknown field "attempts"`,
			change(`"max_attempts":6`, `"MAX_ATTEMPTS":6`):                                          "not as they were written",
			change(`"cap":1000000,`, ``):                                                            "not as they were written",
			change(`"cap":1000000,`, `"cap":"1000000",`):                                            "cannot unmarshal string",
			change(`"cap":1000000,`, `"cap":1e6,`):                                                  "cannot unmarshal number 1e6",
			change(`"rate_ppm":100000`, `"rate_ppm":1000001`):                                       "tiers[1].rate_ppm must be from 0 to 1000000, got 1000001",
			change(`,"rate_ppm":100000`, ``):                                                        "not as they were written",
			change(`"kind":"cashback"`, `"kind":"rebate"`):                                          `basis of a rebate must be risk or stake, got "game"`,
			change(`"shape":"slab"`, `"shape":"graduated"`):                                         `shape must be slab with tier_by vip, got "graduated": bands are parts of the basis`,
			change(`"basis":"game"`, `"basis":"game","window":"0s"`):                                "not as they were written",
			change(`"basis":"game"`, `"basis":"game","window":"1h0m0s"`):                            "window must be left out of a cashback",
			change(`"max_attempts"`, `"budget":null,"max_attempts"`):                                "not as they were written",
			change(`"max_attempts"`, `"budget":{"limit":5},"max_attempts"`):                         `budget.window must be daily, weekly, or monthly, got ""`,
			change(`"max_attempts"`, `"budget":{"limit":5,"window":"daily","of":1},"max_attempts"`): `unknown field "of"`,
			change(`"grace":"2h0m0s"`, `"grace":"2 hours"`):                                         "read duration",
			change(`"grace":"2h0m0s"`, `"grace":"2h"`):                                              "not as they were written",
			change(`"grace":"2h0m0s"`, `"grace":7200`):                                              "cannot unmarshal number",
			change(`"effective_from":"2026-10-01",`, ``):                                            "effective_from must be a day, such as 2026-10-01",
			change(`"2026-10-01"`, `"2026-10-32"`):                                                  "must be a date of the calendar",
			change(`"slots":1000000`, `"slots":-1`):                                                 "categories.slots must be from 0 to 1000000, got -1",
			change(`{"live":200000,"slots":1000000}`, `{}`):                                         "categories must name a category, or be left out",
			change(`"slots":1000000`, `"slots":1,"slots":1,`+`"`):                                   "invalid character",
		} {
			_, err := programme.Decode([]byte(given))
			require.True(t, fault.Is(err, fault.KindInvalid), "%s: %v", given, err)
			require.ErrorContains(t, err, "read stored terms", given)
			require.ErrorContains(t, err, reason, given)
		}
	})
}

// reordered does to an object what a jsonb column does: keys in another order, and
// other spacing.
func reordered(t require.TestingT, text []byte) []byte {
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &fields))
	sorted, err := json.Marshal(fields)
	require.NoError(t, err)
	require.NotEqual(t, text, sorted)
	var spaced bytes.Buffer
	require.NoError(t, json.Indent(&spaced, sorted, " ", "\t"))
	return spaced.Bytes()
}

func TestTerms_Calendar(t *testing.T) {
	t.Parallel()

	t.Run("IsThatOfPeriodAndZone", func(t *testing.T) {
		t.Parallel()

		terms := parseOne(t, readWeekly(t))
		calendar, err := terms.Calendar()
		require.NoError(t, err)
		for span := range calendar.From(terms.EffectiveFrom) {
			require.Equal(t, "2026-W41", span.Key)
			require.Equal(t, "2026-10-04T15:00:00Z", span.Start.Format("2006-01-02T15:04:05Z07:00"))
			break
		}
	})

	t.Run("RefusesTermsThatAreNotValid", func(t *testing.T) {
		t.Parallel()

		_, err := programme.Terms{}.Calendar()
		require.Error(t, err)
	})
}
