package sample

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// LiveConfig are the settings of [Live].
type LiveConfig struct {
	// LinesPerSecond is how many lines come on average, watermarks left out. From
	// 1 to 10,000; defaults to 5.
	LinesPerSecond int

	// Seed picks who plays what.
	Seed uint64

	// Start is when this source begins: no line lies at or before it, and its
	// milliseconds are in all ids. So two sources for one database must not start
	// in the same millisecond. Required.
	Start time.Time

	// WatermarkInterval is how often both watermarks come, at least 1s. Defaults to
	// 1 min.
	WatermarkInterval time.Duration
}

// WithDefaults returns the config with its empty fields filled in.
func (config LiveConfig) WithDefaults() LiveConfig {
	if config.LinesPerSecond == 0 {
		config.LinesPerSecond = 5
	}
	if config.WatermarkInterval == 0 {
		config.WatermarkInterval = time.Minute
	}
	return config
}

func (config LiveConfig) validate() error {
	var errs []error
	if config.LinesPerSecond < 1 || config.LinesPerSecond > 10_000 {
		errs = append(errs, fault.Invalid("lines per second must be from 1 to 10000, got %d", config.LinesPerSecond))
	}
	if config.Start.IsZero() {
		errs = append(errs, fault.Invalid("start is required: when the source begins"))
	}
	if config.WatermarkInterval < time.Second {
		errs = append(errs, fault.Invalid("watermark interval must be at least 1s, got %s", config.WatermarkInterval))
	}
	return errors.Join(errs...)
}

const (
	// seats is how many players are at it at a time; after each bet, one in
	// roundsPerSeat leaves for somebody else.
	seats         = 24
	roundsPerSeat = 25

	// mostCatchUp is how much time without a call to Next is played after.
	mostCatchUp = int64(60 * 1000)

	// longestWait bounds how long a bet of the live source stays open, so that
	// whoever watches sees it settled.
	longestWait = 10 * minute

	// topUp is how seldom somebody pays in who has enough. Whoever has more than
	// ahead stakes is tempted to take a half out.
	topUp = 40
	ahead = 100

	// linesPerBet leaves out payments, which are few.
	linesPerBet = 2
)

// Live makes up activity that happens now, for players that exist. It keeps
// its own record of balances and open bets: stakes are bets only of what it
// knows to be there. It must be used by one goroutine at a time.
type Live struct {
	config  LiveConfig
	games   []game
	lastID  int64
	meanGap int64 // microseconds between bets
	members []livePlayer
	nextBet int64 // microseconds since 1970
	nextTip int64 // milliseconds since 1970 of the next watermarks
	pending queue
	rng     *rand.Rand
	seats   []uint32
	tag     string
	upTo    int64 // milliseconds since 1970: what lies there or before has been returned
}

type livePlayer struct {
	Player
	stake int64 // usual one, minor units
}

// NewLive returns a source for the given players, whose balances are what the
// database has now. Pass those that are active. Nothing of an earlier source is
// taken up again: bets that it left open stay so.
//
// Fails with [fault.KindInvalid] for a config out of its bounds, or without
// players.
func NewLive(players []Player, config LiveConfig) (*Live, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("make live activity: %w", err)
	}
	if len(players) == 0 {
		return nil, fault.Invalid("make live activity: there are no players, import some first")
	}
	start := config.Start.UnixMilli()
	live := &Live{
		config:  config,
		games:   games(),
		meanGap: 1_000_000 * linesPerBet / int64(config.LinesPerSecond),
		members: make([]livePlayer, len(players)),
		nextBet: start * 1000,
		nextTip: start + config.WatermarkInterval.Milliseconds(),
		rng:     rand.New(rand.NewPCG(config.Seed, uint64(start))),
		tag:     "l" + strings.TrimLeft(base32(uint64(start), 13), "0"),
		upTo:    start,
	}
	for i, player := range players {
		stake := chips(int64(logNormal(medianStake, stakeSigma, live.rng.NormFloat64())))
		live.members[i] = livePlayer{Player: player, stake: stake * unitsOf(player.Currency)}
	}
	live.seats = make([]uint32, min(seats, len(players)))
	for i := range live.seats {
		live.seats[i] = live.newcomer()
	}
	return live, nil
}

// Next returns what happened since the last call, up to now: sorted by time,
// seldom much, often nothing. After a gap of more than a minute only what was
// under way goes on in it, at its time; new bets come in the last minute.
//
// The lines must be applied in their order, before Next is called again; when
// that fails, the same lines again, since the ones to come build upon them, and
// the watermarks among those vouch for them.
func (live *Live) Next(now time.Time) []activity.Line {
	until := now.UnixMilli()
	if until <= live.upTo {
		return nil
	}
	var lines []activity.Line
	if until >= live.nextTip {
		// All that lies before has been returned by now, and what comes lies later.
		lines = live.watermarks(lines)
		live.nextTip = until + live.config.WatermarkInterval.Milliseconds()
	}
	live.nextBet = max(live.nextBet, (until-mostCatchUp)*1000)
	for {
		due, ok := live.pending.nextAt()
		bet := live.nextBet/1000 + 1
		switch {
		case ok && due <= bet && due <= until:
			lines = live.happen(lines, live.pending.pop())
		case bet <= until:
			lines = live.round(lines, bet)
			live.nextBet += exponential(live.rng, live.meanGap)
		default:
			live.upTo = until
			return lines
		}
	}
}

// Refused tells the source which of its bets the ledger refused, because a
// player had less than the source knew. They get no result, and the player
// pays in before betting again. Ids it does not know are ignored. Call it
// before Next.
func (live *Live) Refused(bets ...string) {
	for _, id := range bets {
		number, err := strconv.ParseUint(strings.TrimPrefix(id, "b-"+live.tag+"-"), 10, 64)
		if err != nil || number == 0 {
			continue
		}
		live.pending.remove(func(e event) bool {
			if e.bet != number {
				return false
			}
			live.members[e.player].Balance = 0
			return true
		})
	}
}

// round lets somebody bet, or pay in first and bet a little later.
func (live *Live) round(lines []activity.Line, at int64) []activity.Line {
	seat := live.rng.IntN(len(live.seats))
	n := live.seats[seat]
	member := &live.members[n]
	if oneIn(live.rng, roundsPerSeat) {
		live.seats[seat] = live.newcomer()
	}
	if int64(member.Balance) < 10*member.stake || oneIn(live.rng, topUp) {
		unit := unitsOf(member.Currency)
		amount := deposit(member.stake/unit*between(live.rng, [2]int64{20, 80})) * unit
		member.Balance += money.Minor(amount)
		live.pending.schedule(event{at: at + between(live.rng, [2]int64{2 * second, 9 * second}), kind: eventBet, player: n})
		return append(lines, live.payment(activity.TypeDeposit, member, amount, at))
	}
	return live.bet(lines, at, n)
}

// happen does what was scheduled.
func (live *Live) happen(lines []activity.Line, e event) []activity.Line {
	member := &live.members[e.player]
	switch e.kind {
	case eventBet:
		if int64(member.Balance) < member.stake {
			return lines
		}
		return live.bet(lines, e.at, e.player)
	case eventResult:
		member.Balance += money.Minor(e.amount)
		lines = append(lines, activity.Line{
			Type: activity.TypeResult, At: time.UnixMilli(e.at).UTC(), Bet: live.id('b', int64(e.bet)), Payout: money.Minor(e.amount),
		})
		if int64(member.Balance) > ahead*member.stake && oneIn(live.rng, 12) {
			live.pending.schedule(event{at: e.at + between(live.rng, [2]int64{5 * second, minute}), kind: eventWithdraw, player: e.player})
		}
		return lines
	case eventVoid:
		member.Balance += money.Minor(e.amount)
		return append(lines, activity.Line{
			Type: activity.TypeVoid, At: time.UnixMilli(e.at).UTC(), Bet: live.id('b', int64(e.bet)),
		})
	case eventWithdraw:
		amount := withdrawal(int64(member.Balance), 50, unitsOf(member.Currency))
		if amount == 0 {
			return lines
		}
		member.Balance -= money.Minor(amount)
		return append(lines, live.payment(activity.TypeWithdrawal, member, amount, e.at))
	default:
		panic("unreachable: only the kinds above are scheduled")
	}
}

// bet places one and schedules what becomes of it. The balance reaches the
// usual stake.
func (live *Live) bet(lines []activity.Line, at int64, n uint32) []activity.Line {
	member := &live.members[n]
	g := &live.games[pickGame(live.rng, live.games)]
	stake := member.stake
	if g.ticket > 0 {
		stake = min(stake, g.ticket*unitsOf(member.Currency))
	}
	live.lastID++
	member.Balance -= money.Minor(stake)

	wait := g.delay(live.rng)
	if wait > longestWait {
		wait = between(live.rng, [2]int64{minute, longestWait})
	}
	outcome := event{at: at + wait, bet: uint64(live.lastID), kind: eventResult, player: n}
	if live.rng.Uint32N(certain) < g.voidChance {
		outcome.kind = eventVoid
		outcome.amount = stake
	} else {
		outcome.amount = g.payout(live.rng, stake)
	}
	live.pending.schedule(outcome)
	return append(lines, activity.Line{
		Type: activity.TypeBet, At: time.UnixMilli(at).UTC(), Category: g.category,
		ID: live.id('b', live.lastID), Player: member.Code, Stake: money.Minor(stake),
	})
}

func (live *Live) payment(kind activity.Type, member *livePlayer, amount, at int64) activity.Line {
	live.lastID++
	return activity.Line{
		Type: kind, Amount: money.Minor(amount), At: time.UnixMilli(at).UTC(),
		ID: live.id(kind[0], live.lastID), Player: member.Code,
	}
}

func (live *Live) watermarks(lines []activity.Line) []activity.Line {
	for _, source := range sources() {
		lines = append(lines, activity.Line{Type: activity.TypeWatermark, At: time.UnixMilli(live.upTo).UTC(), Source: source})
	}
	return lines
}

// newcomer draws who sits down next: the first players come oftenest.
func (live *Live) newcomer() uint32 {
	n := uint32(len(live.members))
	return min(live.rng.Uint32N(n), live.rng.Uint32N(n), live.rng.Uint32N(n))
}

// id names a bet or payment, one count for all of them.
func (live *Live) id(kind byte, n int64) string {
	return string(kind) + "-" + live.tag + "-" + strconv.FormatInt(n, 10)
}
