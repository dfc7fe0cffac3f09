package sample

import (
	"math/rand/v2"
	"strconv"
	"time"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

// simulation is a platform that runs in order of time. What happens to a player
// happens in the order in which its lines are emitted, so balances need no
// second look: a bet is placed when its stake is there, and one that is meant to
// be refused when it is not.
type simulation struct {
	emit    func(*activity.Line)
	games   []game
	members []agent // agents of the lowest level, the ones that have players
	pending queue
	players []player
	rhythm  rhythm
	rng     *rand.Rand
	stats   *Stats
	tag     string

	line activity.Line // the one being emitted; reused
}

// newSimulation sets the scene: all agents, and each player's registration and
// later turns of fate.
func newSimulation(config Config, covered span, stats *Stats, emit func(*activity.Line)) *simulation {
	s := &simulation{
		emit:   emit,
		games:  games(),
		rhythm: newRhythm(covered),
		rng:    rand.New(rand.NewPCG(config.Seed, generation)),
		stats:  stats,
		tag:    config.tag(covered),
	}
	// The watermarks first, since they come before what happens at that instant.
	for _, at := range covered.midnights {
		s.pending.schedule(event{at: at, kind: eventWatermark})
	}

	agents, firstLowest := newAgents(s.rng, config.Players, s.tag)
	s.members = agents[firstLowest:]
	founded := covered.start - history.Milliseconds() - hour
	for i := range agents {
		line := agents[i].line()
		s.send(&line, founded+int64(i))
		s.stats.Agents++
	}

	s.players = make([]player, config.Players)
	for n := range s.players {
		s.players[n] = newPlayer(s.rng, n, s.tag, s.members, s.games)
		s.planLife(uint32(n), covered)
	}
	return s
}

// planLife schedules the player's registration, and the lines that change its
// status or VIP level later, all at different times.
func (s *simulation) planLife(n uint32, covered span) {
	registered := covered.start - 1 - s.rng.Int64N(history.Milliseconds())
	if oneIn(s.rng, newcomer) {
		registered = covered.start + s.rng.Int64N(covered.end-covered.start)
	}
	s.pending.schedule(event{at: registered, kind: eventRegister, player: n})

	// Late enough that there is something to be paid for.
	from := max(covered.start+(covered.end-covered.start)/4, registered+1)
	if status, hasFate := fateOf(int(n)); hasFate && from < covered.end {
		changed := from + s.rng.Int64N(covered.end-from)
		s.pending.schedule(event{amount: int64(status), at: changed, kind: eventStatus, player: n})
		if status == statusFrozen && oneIn(s.rng, 4) {
			s.pending.schedule(event{amount: statusActive, at: changed + between(s.rng, [2]int64{12 * hour, 48 * hour}), kind: eventStatus, player: n})
		}
		return
	}
	if s.players[n].meanGap > 0 && oneIn(s.rng, promoted) && from < covered.end {
		s.pending.schedule(event{at: from + s.rng.Int64N(covered.end-from), kind: eventPromote, player: n})
	}
}

// step makes the next event happen; false if there is none before the end.
func (s *simulation) step() bool {
	at, ok := s.pending.nextAt()
	if !ok || at >= s.rhythm.end {
		return false
	}
	e := s.pending.pop()
	switch e.kind {
	case eventBet:
		s.playOn(e)
	case eventFirstDeposit:
		s.firstDeposit(e)
	case eventPromote:
		p := &s.players[e.player]
		p.vip = min(p.vip+1, mostVIP)
		s.sendPlayer(p, e.at)
	case eventRegister:
		s.register(e)
	case eventResult:
		s.settle(e)
	case eventSession:
		s.sitDown(e)
	case eventStatus:
		s.changeStatus(e)
	case eventVoid:
		s.void(e)
	case eventWatermark:
		s.sendWatermarks(e.at)
	case eventWithdraw:
		s.withdraw(e)
	}
	return true
}

func (s *simulation) register(e event) {
	p := &s.players[e.player]
	s.sendPlayer(p, e.at)
	if p.meanGap > 0 {
		e.kind = eventFirstDeposit
		e.at += between(s.rng, [2]int64{minute, 2 * hour})
		s.pending.schedule(e)
	}
}

// firstDeposit brings a member into the game; one of long ago, at the start.
func (s *simulation) firstDeposit(e event) {
	p := &s.players[e.player]
	if p.status != statusActive {
		return
	}
	s.deposit(p, e.at, p.baseStake*between(s.rng, [2]int64{10, 60}))
	if e.at < s.rhythm.start {
		s.planSession(e.player, s.rhythm.start)
		return
	}
	e.kind = eventSession
	e.at += between(s.rng, [2]int64{20 * second, 10 * minute})
	s.pending.schedule(e)
}

func (s *simulation) changeStatus(e event) {
	p := &s.players[e.player]
	status := uint8(e.amount)
	if status == statusClosed && p.balance > 0 {
		s.sendPayment(activity.TypeWithdrawal, p, e.at, p.balance)
	}
	p.status = status
	s.sendPlayer(p, e.at)
}

// withdraw takes out a part of the balance, if that is worth it.
func (s *simulation) withdraw(e event) {
	p := &s.players[e.player]
	if p.status != statusActive {
		return
	}
	amount := withdrawal(p.balance, between(s.rng, [2]int64{40, 96}), p.unit())
	if amount > 0 {
		s.sendPayment(activity.TypeWithdrawal, p, e.at, amount)
		p.cashOutAt = max(2*p.balance, p.cashOutAt/2)
	}
}

// deposit pays in about so many base units.
func (s *simulation) deposit(p *player, at, units int64) {
	s.sendPayment(activity.TypeDeposit, p, at, deposit(units)*p.unit())
	p.cashOutAt = 2 * p.balance
}

func (s *simulation) sendPayment(kind activity.Type, p *player, at, amount int64) {
	if kind == activity.TypeDeposit {
		p.balance += amount
		s.stats.Deposits++
		s.line.ID = s.id('d', s.stats.Deposits)
	} else {
		p.balance -= amount
		s.stats.Withdrawals++
		s.line.ID = s.id('w', s.stats.Withdrawals)
	}
	s.line.Amount = money.Minor(amount)
	s.line.Player = p.code
	s.line.Type = kind
	s.send(&s.line, at)
}

func (s *simulation) sendPlayer(p *player, at int64) {
	s.stats.PlayerLines++
	s.line.Agent = ""
	if p.agent >= 0 {
		s.line.Agent = s.members[p.agent].code
	}
	s.line.Currency = p.currency()
	s.line.Player = p.code
	s.line.RollingPPM = p.rollingPPM
	s.line.Status = statuses()[p.status]
	s.line.Type = activity.TypePlayer
	s.line.VIP = int32(p.vip)
	s.send(&s.line, at)
}

// sources have a watermark each; a settlement waits for those it needs.
func sources() [2]string { return [2]string{"bets", "cash"} }

// sendWatermarks says that everything before at has been sent.
func (s *simulation) sendWatermarks(at int64) {
	s.line.Type = activity.TypeWatermark
	for _, source := range sources() {
		s.stats.Watermarks++
		s.line.Source = source
		s.send(&s.line, at)
	}
}

func (s *simulation) send(line *activity.Line, at int64) {
	s.stats.Lines++
	line.At = time.UnixMilli(at).UTC()
	s.emit(line)
}

// id names the nth thing of a kind, counted from 1.
func (s *simulation) id(kind byte, n int64) string {
	return string(s.appendID(make([]byte, 0, 24), kind, n))
}

func (s *simulation) appendID(dst []byte, kind byte, n int64) []byte {
	dst = append(dst, kind, '-')
	dst = append(dst, s.tag...)
	dst = append(dst, '-')
	return strconv.AppendInt(dst, n, 10)
}
