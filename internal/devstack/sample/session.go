package sample

import (
	"math"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

const (
	// mostBets is the longest session.
	mostBets = 400
	// favoured is how often, in percent, a session is of the favourite game.
	favoured = 70
	// What somebody does who cannot pay the next stake, in percent; otherwise the
	// session is over. To overreach is to try a bet that will be refused.
	refill    = 40
	overreach = 25
)

// planSession schedules the player's next session, at the earliest at from.
func (s *simulation) planSession(n uint32, from int64) {
	if at, ok := s.rhythm.nextSession(s.rng, from, s.players[n].meanGap); ok {
		s.pending.schedule(event{at: at, kind: eventSession, player: n})
	}
}

// sitDown begins a session: which game, how high, how long, and a deposit if
// the balance is low.
func (s *simulation) sitDown(e event) {
	p := &s.players[e.player]
	if p.status != statusActive {
		s.planSession(e.player, e.at)
		return
	}
	p.game = p.favourite
	if s.rng.Int64N(100) >= favoured {
		p.game = pickGame(s.rng, s.games)
	}
	g := &s.games[p.game]
	p.numLeft = 1 + int32(min(mostBets, math.Floor(g.meanBets*s.rng.ExpFloat64())))
	stake := chips(p.baseStake * g.stakeTimes / (1 + s.rng.Int64N(3)))
	if g.ticket > 0 {
		stake = g.ticket
	}
	p.stake = stake * p.unit()

	e.kind = eventBet
	if p.balance < p.stake*min(10, int64(p.numLeft)) {
		s.deposit(p, e.at, stake*between(s.rng, [2]int64{8, 40}))
		e.at += between(s.rng, [2]int64{15 * second, 90 * second})
		s.pending.schedule(e)
		return
	}
	s.playOn(e)
}

// playOn places the session's next bet, and schedules its result and the bet
// after it.
func (s *simulation) playOn(e event) {
	p := &s.players[e.player]
	if p.numLeft <= 0 || p.status != statusActive {
		s.getUp(e)
		return
	}
	g := &s.games[p.game]
	stake := p.stake * s.raise()
	if p.balance < stake {
		stake = p.stake
	}
	if p.balance < stake {
		s.runDry(e, stake)
		return
	}

	p.numLeft--
	p.balance -= stake
	s.sendBet(p, e.at, stake)

	due := e.at + g.delay(s.rng)
	if g.category == lottery {
		due = s.rhythm.nextDraw(e.at) + g.delay(s.rng)
	}
	outcome := event{at: due, bet: uint64(s.stats.Bets), kind: eventResult, player: e.player}
	if s.rng.Uint32N(certain) < g.voidChance {
		outcome.kind = eventVoid
		outcome.amount = stake
	} else {
		outcome.amount = g.payout(s.rng, stake)
	}
	s.pending.schedule(outcome)

	e.at += between(s.rng, g.gapMS)
	s.pending.schedule(e)
}

// raise draws how many times the usual stake somebody sets.
func (s *simulation) raise() int64 {
	switch drawn := s.rng.Uint32N(100); {
	case drawn < 80:
		return 1
	case drawn < 92:
		return 2
	case drawn < 97:
		return 3
	default:
		return 5
	}
}

// runDry is what happens when the balance does not reach the stake.
func (s *simulation) runDry(e event, stake int64) {
	p := &s.players[e.player]
	switch drawn := s.rng.Int64N(100); {
	case drawn < refill:
		s.deposit(p, e.at, stake/p.unit()*between(s.rng, [2]int64{8, 40}))
	case drawn < refill+overreach:
		s.stats.Refused++
		s.sendBet(p, e.at, stake)
	default:
		p.numLeft = 0
	}
	e.at += between(s.rng, [2]int64{10 * second, 60 * second})
	s.pending.schedule(e)
}

// getUp ends a session; some take money out, most of all when they are well
// ahead.
func (s *simulation) getUp(e event) {
	p := &s.players[e.player]
	tempted := int64(15)
	if p.balance >= p.cashOutAt {
		tempted = 60
	}
	if p.status == statusActive && p.balance > 0 && s.rng.Int64N(100) < tempted {
		s.pending.schedule(event{at: e.at + between(s.rng, [2]int64{minute, 20 * minute}), kind: eventWithdraw, player: e.player})
	}
	s.planSession(e.player, e.at)
}

// settle pays a bet out, or tells that it is lost.
func (s *simulation) settle(e event) {
	p := &s.players[e.player]
	p.balance += e.amount
	s.stats.Results++
	s.line.Bet = s.id('b', int64(e.bet))
	s.line.Payout = money.Minor(e.amount)
	s.line.Type = activity.TypeResult
	s.send(&s.line, e.at)
	if p.numLeft <= 0 && e.amount > 0 && p.balance >= p.cashOutAt && oneIn(s.rng, 2) {
		s.pending.schedule(event{at: e.at + between(s.rng, [2]int64{5 * minute, 3 * hour}), kind: eventWithdraw, player: e.player})
	}
}

func (s *simulation) void(e event) {
	s.players[e.player].balance += e.amount
	s.stats.Voids++
	s.line.Bet = s.id('b', int64(e.bet))
	s.line.Type = activity.TypeVoid
	s.send(&s.line, e.at)
}

func (s *simulation) sendBet(p *player, at, stake int64) {
	s.stats.Bets++
	s.line.Category = s.games[p.game].category
	s.line.ID = s.id('b', s.stats.Bets)
	s.line.Player = p.code
	s.line.Stake = money.Minor(stake)
	s.line.Type = activity.TypeBet
	s.send(&s.line, at)
}
