package programme

import (
	"math/big"
	"time"

	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// Kind says what a programme pays a share of.
type Kind string

// The kinds that the file format knows; see unsupported.go for those that this
// version works out.
const (
	Cashback Kind = "cashback" // of the net loss of a period
	Lossback Kind = "lossback" // of the loss after a first deposit, once
	Rebate   Kind = "rebate"   // of the turnover of a period
)

// Basis says what the sum is made of that the amount is a share of.
type Basis string

// The bases: of a cashback the first two, of a rebate the others.
const (
	BasisCash  Basis = "cash"  // what was paid in and is gone
	BasisGame  Basis = "game"  // stakes less payouts
	BasisRisk  Basis = "risk"  // of each stake what was at risk
	BasisStake Basis = "stake" // stakes
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

// Terms are the terms of one programme, every default filled in. Amounts are
// minor units of Currency. The zero value is not valid; see [Terms.Validate] for
// the bounds of each field.
type Terms struct {
	AutoApproveBelow *money.Minor             // runs that pay less need no approval; nil: each that pays anything does
	Basis            Basis                    // what is lost
	Cap              *money.Minor             // the most that one player is paid for one period; nil: no bound
	Categories       map[string]money.RatePPM // the share of each category's loss that counts; nil: all of every category
	Code             string                   // the programme's name, for ever
	Currency         string                   // three capital letters; players of another are not concerned
	DefaultWeight    money.RatePPM            // the share of categories that Categories does not name
	EffectiveFrom    timewindow.Day           // periods that start on or after this local day
	Grace            time.Duration            // from a period's end to its run
	InputsDeadline   time.Duration            // how long a run waits for its watermarks
	Kind             Kind
	LessPromotions   bool        // promotion credits of the period are taken off the basis
	MaxAttempts      int         // passes of a run over what is undelivered
	MinPayout        money.Minor // less than this is not paid
	OnPartial        OnPartial
	Period           timewindow.Kind
	Shape            Shape
	TierBy           TierBy
	Tiers            []Tier // rising From
	TimeZone         string // IANA name
}

// Calendar returns the programme's periods. Fails for terms that are not valid.
func (terms Terms) Calendar() (timewindow.Calendar, error) {
	return timewindow.NewCalendar(terms.Period, terms.TimeZone)
}

// weight returns the share of a category's loss that counts.
func (terms Terms) weight(category string) money.RatePPM {
	if terms.Categories == nil {
		return money.MaxRatePPM
	}
	if weight, named := terms.Categories[category]; named {
		return weight
	}
	return terms.DefaultWeight
}

// tier returns the highest tier that the value reaches; false if it lies below
// the first.
func (terms Terms) tier(value *big.Int) (Tier, bool) {
	var reached Tier
	found := false
	for _, tier := range terms.Tiers {
		if big.NewInt(tier.From).Cmp(value) <= 0 {
			reached, found = tier, true
		}
	}
	return reached, found
}
