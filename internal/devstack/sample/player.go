package sample

import (
	"math/rand/v2"
	"strconv"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

// Player is an account as it stands: at the end of what [Write] wrote, or in
// the database when [Live] begins.
type Player struct {
	Balance  money.Minor
	Code     string
	Currency string
}

// statuses are what player.status counts.
func statuses() [4]activity.Status {
	return [4]activity.Status{activity.StatusActive, activity.StatusFrozen, activity.StatusClosed, activity.StatusSelfExcluded}
}

const (
	statusActive = iota
	statusFrozen
	statusClosed
	statusSelfExcluded
)

const mostVIP = 5

// player is one member of the simulated platform. There may be a million, so
// it is kept small.
type player struct {
	code string

	balance   int64 // minor units, exactly as the ledger has it
	baseStake int64 // for a round of slots, in base units
	cashOutAt int64 // balance at which a withdrawal is tempting; minor units
	meanGap   int64 // milliseconds between sessions; 0 never plays
	stake     int64 // usual stake of the running session; minor units

	agent      int32 // index of the agent, -1 for none
	numLeft    int32 // bets that the running session still plans
	rollingPPM money.RatePPM

	favourite uint8 // index of a game
	game      uint8 // of the running session
	inDollars bool
	status    uint8
	vip       uint8
}

func (p *player) currency() string {
	if p.inDollars {
		return "USD"
	}
	return "KRW"
}

// unit returns how many minor units the player's base unit has.
func (p *player) unit() int64 { return unitsOf(p.currency()) }

// Shares and shapes of the membership.
const (
	agentless     = 10 // one player in so many came by themselves
	idle          = 7  // one in so many never plays
	newcomer      = 8  // one in so many registers within the span
	whale         = 120
	promoted      = 60 // one in so many rises by a VIP level
	dollarsEvery  = 12
	fateEvery     = 200 // of so many in a row, a few end up frozen, excluded, or closed
	medianRate    = 0.148
	rateSigma     = 1.2
	medianStake   = 120 // base units
	stakeSigma    = 1.0
	mostPerDay    = 7.0
	playerMostPPM = 3000
	stepPPM       = 500
)

// newPlayer makes up the nth member, counted from 0.
func newPlayer(rng *rand.Rand, n int, tag string, agents []agent, games []game) player {
	p := player{
		agent:      -1,
		code:       "p-" + tag + "-" + strconv.Itoa(n+1),
		favourite:  pickGame(rng, games),
		inDollars:  n%dollarsEvery == dollarsEvery/2,
		rollingPPM: playerMostPPM,
	}
	if !oneIn(rng, agentless) {
		p.agent = pickAgent(rng, agents)
		p.rollingPPM = min(p.rollingPPM, agents[p.agent].rollingPPM)
	}
	p.rollingPPM = money.RatePPM(rng.Int32N(int32(p.rollingPPM)/stepPPM+1)) * stepPPM

	// Who comes often tends to play higher.
	interest, luck := rng.NormFloat64(), rng.NormFloat64()
	wealth := 0.3*interest + 0.95*luck
	stake := int64(logNormal(medianStake, stakeSigma, wealth))
	if oneIn(rng, whale) {
		stake *= 10 + rng.Int64N(50)
		wealth += 2
	}
	p.baseStake = chips(stake)

	perDay := min(mostPerDay, logNormal(medianRate, rateSigma, interest))
	if _, hasFate := fateOf(n); hasFate {
		perDay = max(perDay, 0.6) // so that the status meets somebody who plays
	} else if oneIn(rng, idle) {
		return p
	}
	p.meanGap = int64(float64(24*hour) / perDay)
	p.vip = vipOf(interest + wealth)
	return p
}

// vipOf returns the VIP level for a score of interest and wealth together;
// four of five players have none.
func vipOf(score float64) uint8 {
	level := uint8(0)
	for _, from := range [mostVIP]float64{1.3, 2.1, 2.75, 3.4, 4.2} {
		if score >= from {
			level++
		}
	}
	return level
}

// fateOf returns the status that the nth player ends up with, if it is not to
// stay active.
func fateOf(n int) (status uint8, hasFate bool) {
	switch n % fateEvery {
	case 7, 107:
		return statusFrozen, true
	case 57:
		return statusSelfExcluded, true
	case 157:
		return statusClosed, true
	}
	return statusActive, false
}

// pickGame draws a category by its popularity.
func pickGame(rng *rand.Rand, games []game) uint8 {
	drawn := rng.Uint32N(1000)
	for i := range games {
		if drawn < games[i].popularity {
			return uint8(i)
		}
		drawn -= games[i].popularity
	}
	panic("unreachable: popularities sum to 1000")
}
