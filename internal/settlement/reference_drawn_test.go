package settlement_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReference_DrawsEverything asks the reference what it came across in the worlds
// that each run of all tests settles: two calculations must not agree about nothing.
func TestReference_DrawsEverything(t *testing.T) {
	t.Parallel()

	seen := make(map[string]int)
	for seed := range uint64(usualWorlds) {
		for what, num := range newWorld(seed).books.seen {
			seen[what] += num
		}
	}
	for _, what := range drawn() {
		require.Positive(t, seen[what], "%s: of %v", what, seen)
	}
	// Periods that are longer or shorter by a change of clocks.
	for _, period := range []string{"daily", "weekly", "monthly"} {
		numShorter, numLonger := 0, 0
		for what, num := range seen {
			if !strings.HasPrefix(what, period+" in ") {
				continue
			}
			_, length, _ := strings.Cut(what, " over ")
			switch length {
			case "23h0m0s", "23h30m0s", "167h0m0s", "167h30m0s", "743h0m0s", "743h30m0s", "719h0m0s":
				numShorter += num
			case "25h0m0s", "24h30m0s", "169h0m0s", "168h30m0s", "745h0m0s", "744h30m0s", "721h0m0s", "720h30m0s":
				numLonger += num
			}
		}
		require.Positive(t, numShorter, period)
		require.Positive(t, numLonger, period)
	}
}

// drawn is all that must come up.
func drawn() []string {
	all := []string{
		"all_delivered", "no_eligible", "none_delivered", "partial",
		"below min_payout", "just min_payout", "rounded down", "rounded to 0", "weight 0", "won more than the stake",
		"cash without a game", "other currency", "refused bet", "refused withdrawal", "void",
		"entitled before", "first deposit before effective_from", "more lost than paid in first", "window of two periods",
		"window ends with the period", "cashback less promotions", "lossback less promotions",
		"no tier by basis, graduated", "no tier by basis, slab", "no tier by vip, slab",
	}
	for _, of := range []string{"cashback/cash", "cashback/game", "lossback/game", "rebate/risk", "rebate/stake"} {
		none := "winner"
		if strings.HasPrefix(of, "rebate") {
			none = "no_turnover"
		}
		for _, what := range []string{"credited", "failed wallet_frozen", "self_excluded", "closed", none, "no_tier", "below_min"} {
			all = append(all, fmt.Sprintf("%s is %s", of, what))
		}
	}
	for _, kind := range []string{"cashback", "lossback", "rebate"} {
		all = append(all, kind+" is capped", "second version of a "+kind)
	}
	for _, kind := range []string{"cashback", "lossback", "rebate"} {
		for _, what := range []string{"credited", "failed", "overpaid", "earlier_undelivered"} {
			all = append(all, fmt.Sprintf("adjustment of %s is %s", kind, what))
		}
	}
	all = append(all,
		"adjusted beyond false", "adjusted beyond true", "overpaid by more than nothing: true", "a first deposit that came too late",
		"adjustment all_delivered", "adjustment no_eligible", "adjustment none_delivered", "adjustment partial",
		"retried is credited", "retried is failed", "retried is withheld")
	for _, shape := range []string{"graduated by basis", "slab by basis", "slab by vip"} {
		for number := range 3 {
			all = append(all, fmt.Sprintf("%s reaches tier %d", shape, number+1))
		}
	}
	// A microsecond before each end of a period, at it, and one after.
	for _, what := range []string{"result", "payment", "window", "promotion"} {
		all = append(all, what+" at start+0", what+" at start+1", what+" at end-1")
	}
	all = append(all, "result at start-1", "result at end+0", "result at end+1")
	for _, one := range changes() {
		all = append(all, "zone "+one.zone)
	}
	return all
}
