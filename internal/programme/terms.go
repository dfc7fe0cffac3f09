package programme

import (
	"math/big"
	"time"

	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// Kind says what a programme pays a share of.
type Kind string

// The kinds.
const (
	Cashback Kind = "cashback" // of the net loss of a period
	Lossback Kind = "lossback" // of the loss after a first deposit, once
	Rebate   Kind = "rebate"   // of the turnover of a period
)

// Basis says what the sum is made of that the amount is a share of.
type Basis string

// The bases: of a cashback the first two, of a rebate the last two, of a lossback
// [BasisGame].
const (
	BasisCash  Basis = "cash"  // what was paid in and is gone
	BasisGame  Basis = "game"  // stakes less payouts
	BasisRisk  Basis = "risk"  // of each stake what was at risk
	BasisStake Basis = "stake" // stakes
)

// The sources whose watermarks say that nothing of a period is missing.
const (
	SourceBets = "bets" // bets and their results
	SourceCash = "cash" // deposits and withdrawals
)

// TierBy says which value picks the tier.
type TierBy string

// The values that may pick a tier.
const (
	TierByBasis TierBy = "basis" // the basis, in minor units
	TierByVIP   TierBy = "vip"   // the player's VIP level
)

// Shape says which part of the basis the rate of a tier counts for.
type Shape string

// The shapes.
const (
	ShapeGraduated Shape = "graduated" // each tier's rate for its own band
	ShapeSlab      Shape = "slab"      // the reached tier's rate for the whole
)

// OnPartial says how a run's job ends when some credits, but not all, could not
// be delivered.
type OnPartial string

// The ends of a partly delivered run's job.
const (
	OnPartialComplete OnPartial = "complete" // the job completes; the run says partial
	OnPartialError    OnPartial = "error"    // the job fails as well
)

// What terms are when a file leaves a field out; every other field is 0, or nil.
const (
	DefaultInputsDeadline = 24 * time.Hour
	DefaultMaxAttempts    = 6
	DefaultOnPartial      = OnPartialComplete
	DefaultShape          = ShapeSlab
	DefaultTierBy         = TierByBasis
)

// Tier pays Rate to whoever reaches From and not the next tier's.
type Tier struct {
	From int64         `json:"from"` // inclusive; a VIP level, or minor units
	Rate money.RatePPM `json:"rate_ppm"`
}

// Budget bounds what all runs of a programme pay together. What a run pays is
// counted in the window that holds the start of its period.
type Budget struct {
	Limit  money.Minor     `json:"limit"`  // minor units, above 0
	Window timewindow.Kind `json:"window"` // local days, ISO weeks or months of the programme's time zone
}

// Terms are the terms of one programme, every default filled in. Amounts are
// minor units of Currency. The zero value is not valid; see [Terms.Validate] for
// the bounds of each field.
type Terms struct {
	AutoApproveBelow *money.Minor             // runs that pay less need no approval; nil: each that pays anything does
	Basis            Basis                    // what the sum is made of that the amount is a share of
	Budget           *Budget                  // what is paid to all together; nil: no bound
	Cap              *money.Minor             // the most that one player is paid for one period; nil: no bound
	Categories       map[string]money.RatePPM // the share of each category that counts; nil: all of every category
	Code             string                   // the programme's name, for ever
	Currency         string                   // three capital letters; players of another are not concerned
	DefaultWeight    money.RatePPM            // the share of categories that Categories does not name
	EffectiveFrom    timewindow.Day           // periods that start on or after this local day
	Grace            time.Duration            // from a period's end to its run
	InputsDeadline   time.Duration            // how long a run waits for its watermarks
	Kind             Kind
	LessPromotions   bool        // promotion credits of the period are taken off the loss
	MaxAttempts      int         // passes of a run over what is undelivered
	MinPayout        money.Minor // less than this is not paid
	OnPartial        OnPartial
	Period           timewindow.Kind
	Shape            Shape
	TierBy           TierBy
	Tiers            []Tier        // rising From
	TimeZone         string        // IANA name
	Window           time.Duration // of a lossback: how long after the first deposit losses count; else 0
}

// Calendar returns the programme's periods. Fails for terms that are not valid.
func (terms Terms) Calendar() (timewindow.Calendar, error) {
	return timewindow.NewCalendar(terms.Period, terms.TimeZone)
}

// Sources returns, sorted, the sources whose watermarks must have reached the end
// of a period before it can be worked out.
func (terms Terms) Sources() []string {
	if terms.Basis == BasisCash || terms.Kind == Lossback {
		return []string{SourceBets, SourceCash}
	}
	return []string{SourceBets}
}

// weight returns the share of a category that counts.
func (terms Terms) weight(category string) money.RatePPM {
	if terms.Categories == nil {
		return money.MaxRatePPM
	}
	if weight, named := terms.Categories[category]; named {
		return weight
	}
	return terms.DefaultWeight
}

// reached returns how many tiers the value reaches. The last of them is the
// player's.
func (terms Terms) reached(value *big.Int) int {
	num := 0
	for num < len(terms.Tiers) && big.NewInt(terms.Tiers[num].From).Cmp(value) <= 0 {
		num++
	}
	return num
}

// band is a part of the basis, with the rate that it is paid at.
type band struct {
	amount *big.Int // in millionths
	from   int64    // where it begins
	rate   money.RatePPM
	until  int64 // where the next one begins; -1: there is none
}

// bands divides a basis that reaches so many tiers, above 0: into one piece, or
// at the start of each tier. What lies below the first is in none of them.
func (terms Terms) bands(basis *big.Int, reached int) []band {
	if terms.Shape != ShapeGraduated {
		tier := terms.Tiers[reached-1]
		return []band{{amount: basis, from: tier.From, rate: tier.Rate, until: -1}}
	}
	bands := make([]band, 0, reached)
	for i, tier := range terms.Tiers[:reached] {
		one := band{from: tier.From, rate: tier.Rate, until: -1}
		end := basis
		if i+1 < len(terms.Tiers) {
			one.until = terms.Tiers[i+1].From
		}
		if i+1 < reached {
			end = millionths(money.Minor(one.until))
		}
		one.amount = new(big.Int).Sub(end, millionths(money.Minor(one.from)))
		bands = append(bands, one)
	}
	return bands
}
