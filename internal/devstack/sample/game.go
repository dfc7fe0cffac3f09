package sample

import "math/rand/v2"

// win is one way in which a bet ends well.
type win struct {
	chance uint32 // in ten millionths
	pays   int64  // the stake included, in hundredths of it
}

const (
	certain   = 10_000_000 // the unit of chances
	perMille  = certain / 1000
	wholeRate = 100 // the unit of win.pays
)

// game is how one category is played.
type game struct {
	category string

	delayMS    [2]int64 // from a stake to its result; of a lottery, after its draw
	gapMS      [2]int64 // from one stake to the next in a session; longer than most delays
	meanBets   float64  // of a session
	popularity uint32   // share of the sessions, in tenths of a percent
	stakeTimes int64    // stakes are so many times those of slots
	tail       bool     // delays are exponential: delayMS holds the least and the mean beyond it
	ticket     int64    // price in base units where everybody pays the same, else 0
	voidChance uint32   // in ten millionths
	wins       []win    // they leave the house its edge; every other bet is lost
}

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
)

// lottery is drawn once a day, at this local hour.
const (
	lottery  = "lottery"
	drawHour = 21
)

// games are all categories. What a stake of 100 returns on average, in this
// order: 95, 97.5, 93.8, 94, 55.5.
func games() []game {
	return []game{{
		category: "slots",
		delayMS:  [2]int64{1 * second, 3 * second},
		gapMS:    [2]int64{4 * second, 9 * second},
		meanBets: 22, popularity: 380, stakeTimes: 1,
		voidChance: 2 * perMille,
		wins: []win{
			{1_000_000, 50}, {800_000, 100}, {600_000, 200}, {300_000, 300}, {180_000, 500}, {90_000, 1000},
			{40_000, 2000}, {18_000, 5000}, {7_000, 10_000}, {1_600, 50_000}, {450, 200_000}, {40, 500_000},
		},
	}, {
		category: "live",
		delayMS:  [2]int64{14 * second, 24 * second},
		gapMS:    [2]int64{25 * second, 60 * second},
		meanBets: 12, popularity: 240, stakeTimes: 5,
		voidChance: 7 * perMille,
		wins:       []win{{900_000, 100}, {2_286_000, 195}, {2_150_000, 200}, {10_000, 900}},
	}, {
		category: "sports",
		delayMS:  [2]int64{95 * minute, 5 * hour},
		gapMS:    [2]int64{1 * minute, 10 * minute},
		meanBets: 2.2, popularity: 220, stakeTimes: 10, tail: true,
		voidChance: 40 * perMille,
		// The common odds with the price of the bookmaker, then two kinds of parlay.
		wins: []win{
			{914_520, 155}, {810_000, 175}, {1_243_420, 190}, {675_000, 210}, {363_460, 260},
			{222_350, 340}, {85_910, 550}, {29_330, 1200}, {5_330, 4500},
		},
	}, {
		category: "poker",
		delayMS:  [2]int64{2 * minute, 290 * second},
		gapMS:    [2]int64{5 * minute, 30 * minute},
		meanBets: 3, popularity: 60, stakeTimes: 8,
		voidChance: 10 * perMille,
		wins:       []win{{800_000, 200}, {500_000, 400}, {250_000, 800}, {125_000, 1600}, {50_000, 3600}},
	}, {
		category: lottery,
		delayMS:  [2]int64{2 * second, 9 * second},
		gapMS:    [2]int64{20 * second, 90 * second},
		meanBets: 1.5, popularity: 100, stakeTimes: 1, ticket: 100,
		voidChance: 1 * perMille,
		wins:       []win{{600_000, 100}, {250_000, 500}, {80_000, 2000}, {14_000, 10_000}, {500, 100_000}, {20, 1_000_000}},
	}}
}

// payout draws what a bet returns, often nothing, rounded down.
func (g *game) payout(rng *rand.Rand, stake int64) int64 {
	drawn := rng.Uint32N(certain)
	for _, win := range g.wins {
		if drawn < win.chance {
			// Split, so that no stake can overflow.
			return stake/wholeRate*win.pays + stake%wholeRate*win.pays/wholeRate
		}
		drawn -= win.chance
	}
	return 0
}

// delay draws how long a bet stays open, in milliseconds.
func (g *game) delay(rng *rand.Rand) int64 {
	if g.tail {
		return g.delayMS[0] + exponential(rng, g.delayMS[1])
	}
	return between(rng, g.delayMS)
}
