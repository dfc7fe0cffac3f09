package settlement_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"time"
)

// span is a period, or a window: half-open.
type span struct {
	end, start time.Time
	firstDay   string
	key        string
}

func (s span) holds(at time.Time) bool { return !at.Before(s.start) && at.Before(s.end) }

// offer is a programme with its versions, and the periods that a world settles.
type offer struct {
	code, currency, kind, period, zone string
	deals                              []*deal
	spans                              []span
}

// deal is one version of a programme's terms.
type deal struct {
	basis, kind, shape, tierBy string
	effectiveFrom              string
	least, most                int64 // min_payout, and cap: 0 for none
	lessPromotions             bool
	tiers                      []rung
	unnamed                    int64            // weight of categories without a name, in ppm
	weights                    map[string]int64 // in ppm; nil: all count in full
	window                     time.Duration
}

// rung is a tier.
type rung struct{ from, ppm int64 }

func (d *deal) weight(category string) *big.Rat {
	if d.weights == nil {
		return whole(1)
	}
	ppm, isNamed := d.weights[category]
	if !isNamed {
		ppm = d.unnamed
	}
	return big.NewRat(ppm, 1_000_000)
}

// inForce is the newest version that was effective when a period began; nil if none.
func (o *offer) inForce(s span) (newest *deal) {
	for _, d := range o.deals {
		if d.effectiveFrom <= s.firstDay {
			newest = d
		}
	}
	return newest
}

// midnight is the first minute of a day by the clocks of a zone.
func midnight(zone, day string) time.Time {
	location, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		panic(err)
	}
	for at = at.Add(-20 * time.Hour); at.In(location).Format(time.DateOnly) < day; {
		at = at.Add(time.Minute)
	}
	return at
}

// change is a day around which periods are settled: mostly one of 23, 25 or other
// hours.
type change struct{ zone, day string }

// changes are of both directions: at night, at midnight itself (which comes twice or
// not at all), by half an hour, and none at offsets of 45 minutes.
func changes() []change {
	return []change{
		{"Europe/Berlin", "2025-10-26"}, {"Europe/Berlin", "2026-03-29"},
		{"America/New_York", "2025-11-02"}, {"America/New_York", "2026-03-08"},
		{"Australia/Lord_Howe", "2025-10-05"}, {"Australia/Lord_Howe", "2026-04-05"},
		{"Africa/Cairo", "2025-10-30"}, {"Africa/Cairo", "2026-04-24"},
		{"America/Havana", "2025-11-02"}, {"America/Havana", "2026-03-08"},
		{"Pacific/Chatham", "2026-04-05"}, {"Asia/Kathmandu", "2026-01-01"}, {"Asia/Seoul", "2026-02-28"},
	}
}

// spansAround are four periods, the second of which holds the day.
func spansAround(period string, around change) []span {
	day, err := time.Parse(time.DateOnly, around.day)
	if err != nil {
		panic(err)
	}
	step := func(day time.Time, num int) time.Time { return day.AddDate(0, 0, num) }
	key := func(day time.Time) string { return day.Format(time.DateOnly) }
	switch period {
	case "weekly":
		for day.Weekday() != time.Monday {
			day = day.AddDate(0, 0, -1)
		}
		step = func(day time.Time, num int) time.Time { return day.AddDate(0, 0, 7*num) }
		key = func(day time.Time) string {
			year, week := day.ISOWeek()
			return fmt.Sprintf("%04d-W%02d", year, week)
		}
	case "monthly":
		day = day.AddDate(0, 0, 1-day.Day())
		step = func(day time.Time, num int) time.Time { return day.AddDate(0, num, 0) }
		key = func(day time.Time) string { return day.Format("2006-01") }
	}
	var spans []span
	for num := -1; num < 3; num++ {
		first, next := step(day, num), step(day, num+1)
		spans = append(spans, span{
			end:      midnight(around.zone, next.Format(time.DateOnly)),
			firstDay: first.Format(time.DateOnly),
			key:      key(first),
			start:    midnight(around.zone, first.Format(time.DateOnly)),
		})
	}
	return spans
}

// drawOffer makes a programme up, with one version or two.
func drawOffer(rng *rand.Rand, number int, scale int64, around change) *offer {
	o := &offer{
		code:     fmt.Sprintf("offer-%d", number),
		currency: pick(rng, "KRW", "KRW", "KRW", "USD"),
		// Each world has all kinds, lossback twice: fewer players are concerned.
		kind:   []string{"rebate", "cashback", "lossback", "cashback", "lossback"}[number%5],
		period: pick(rng, "daily", "weekly", "monthly"),
		zone:   around.zone,
	}
	o.spans = spansAround(o.period, around)
	first := drawDeal(rng, o.kind, scale)
	first.effectiveFrom = o.spans[0].firstDay
	if rng.IntN(3) == 0 {
		// Within a period, which then is nobody's.
		begins, _ := time.Parse(time.DateOnly, o.spans[0].firstDay)
		first.effectiveFrom = begins.AddDate(0, 0, 1).Format(time.DateOnly)
	}
	o.deals = []*deal{first}
	if rng.IntN(2) == 0 {
		second := drawDeal(rng, o.kind, scale)
		second.effectiveFrom = o.spans[2].firstDay
		o.deals = append(o.deals, second)
	}
	return o
}

// pick draws one of several.
func pick[T any](rng *rand.Rand, options ...T) T { return options[rng.IntN(len(options))] }

// drawDeal makes terms up.
func drawDeal(rng *rand.Rand, kind string, scale int64) *deal {
	d := &deal{basis: "game", kind: kind, shape: "slab", tierBy: pick(rng, "basis", "basis", "vip")}
	switch kind {
	case "rebate":
		d.basis = pick(rng, "risk", "stake")
	case "cashback":
		d.basis = pick(rng, "cash", "game")
	case "lossback":
		d.window = pick(rng, time.Minute, 90*time.Minute, 24*time.Hour, 25*time.Hour, 72*time.Hour, 7*24*time.Hour)
	}
	if d.basis == "game" {
		d.lessPromotions = rng.IntN(2) == 0
	}
	if d.basis != "cash" && rng.IntN(3) > 0 {
		d.weights = map[string]int64{"slots": drawShare(rng, 1_000_000)}
		if rng.IntN(2) == 0 {
			d.weights["live"] = drawShare(rng, 1_000_000)
		}
		if rng.IntN(2) == 0 {
			d.unnamed = drawShare(rng, 1_000_000)
		}
	}
	if d.tierBy == "basis" {
		d.shape = pick(rng, "graduated", "slab")
	}
	from, step := rng.Int64N(2), int64(2)
	if d.tierBy == "basis" {
		from, step = pick(rng, 0, 0, 1, rng.Int64N(1_500*scale)), 3_000*scale
	}
	for range 1 + rng.IntN(4) {
		d.tiers = append(d.tiers, rung{from: from, ppm: drawShare(rng, 300_000)})
		from += 1 + rng.Int64N(step)
	}
	d.least = pick(rng, 0, rng.Int64N(50), rng.Int64N(300*scale))
	if rng.IntN(2) == 0 {
		d.most = d.least + 1 + rng.Int64N(1_000*scale)
	}
	return d
}

// drawShare draws millionths, now and then the least and the most.
func drawShare(rng *rand.Rand, most int64) int64 {
	return pick(rng, 0, 1, 1_000_000, rng.Int64N(most), rng.Int64N(most), rng.Int64N(most), rng.Int64N(most), rng.Int64N(most))
}

// yaml is a version as a file has it. Auto-approval spares the world a person.
func (o *offer) yaml(d *deal, maxAttempts int) string {
	var text strings.Builder
	fmt.Fprintf(&text, `programmes:
  - code: %s
    kind: %s
    currency: %s
    period: %s
    time_zone: %s
    effective_from: %s
    basis: %s
    tier_by: %s
    shape: %s
    auto_approve_below: 9000000000000000000
    min_payout: %d
    max_attempts: %d
`, o.code, d.kind, o.currency, o.period, o.zone, d.effectiveFrom, d.basis, d.tierBy, d.shape, d.least, maxAttempts)
	if d.most > 0 {
		fmt.Fprintf(&text, "    cap: %d\n", d.most)
	}
	if d.window > 0 {
		fmt.Fprintf(&text, "    window: %s\n", d.window)
	}
	if d.lessPromotions {
		text.WriteString("    less_promotions: true\n")
	}
	if d.weights != nil {
		text.WriteString("    categories:\n")
		for name, ppm := range d.weights {
			fmt.Fprintf(&text, "      %s: %d\n", name, ppm)
		}
		if d.unnamed > 0 {
			fmt.Fprintf(&text, "    default_weight_ppm: %d\n", d.unnamed)
		}
	}
	text.WriteString("    tiers:\n")
	for _, tier := range d.tiers {
		fmt.Fprintf(&text, "      - {from: %d, rate_ppm: %d}\n", tier.from, tier.ppm)
	}
	return text.String()
}
