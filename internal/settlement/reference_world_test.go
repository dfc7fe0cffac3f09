package settlement_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// world is random activity around the ends of periods, random programmes, and what the
// reference says of them. What comes of a world does not depend on how it is imported
// and settled, as long as each player's own lines keep their order.
type world struct {
	books   *books
	offers  []*offer
	people  []*script
	rng     *rand.Rand
	runs    map[string][]map[string]due // of a period: the items of its runs
	scale   int64                       // of amounts: up to where a rate of a basis leaves 64 bits
	status  []string
	steps   []worldStep
	zone    *time.Location
	settled int // rounds
}

// worldStep is one thing that happens, whole before the next: lines are imported,
// gifts booked, a period of each programme settled, or what was settled retried and
// adjusted.
type worldStep struct {
	amended []amended
	gifts   []gift
	lines   [][]string // of each player, in order
	settled []settledSpan
}

// settledSpan is a period with what everybody gets of it.
type settledSpan struct {
	offer *offer
	owed  map[string]due
	span  span
}

// gift is a promotion credit.
type gift struct {
	amount int64
	at     time.Time
	player string
}

// script is a player whose lines are being made up.
type script struct {
	code, currency string
	first          time.Time // deposit, by its time
	lines          []string
	numIDs         int
	open           []string // bets
	taken          map[time.Time]bool
}

const (
	numOffers = 5
	numPeople = 36
)

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 42))
	around := changes()[int(seed)%len(changes())]
	zone, err := time.LoadLocation(around.zone)
	if err != nil {
		panic(err)
	}
	w := &world{
		books: newBooks(), rng: rng, runs: make(map[string][]map[string]due), scale: pick[int64](rng, 1, 1, 1_000, 1_000_000_000), zone: zone,
		status: []string{"active", "active", "active", "active", "active", "active", "active", "active", "frozen", "closed", "self_excluded"},
	}
	if seed%6 == 5 {
		w.status = []string{"frozen"} // so that runs deliver nothing
	}
	for number := range numOffers {
		w.offers = append(w.offers, drawOffer(rng, number, w.scale, around))
	}
	for number := range numPeople {
		w.people = append(w.people, &script{
			code: "p-" + strconv.Itoa(number), currency: pick(rng, "KRW", "KRW", "KRW", "KRW", "USD"), taken: make(map[time.Time]bool),
		})
	}
	w.live()
	return w
}

// live makes up what happens, in order. Between the periods' settlements come late
// lines, some of them for periods that are settled already.
func (w *world) live() {
	for _, p := range w.people {
		w.register(p)
		w.play(p, 10)
	}
	w.cut(w.watermarks())
	w.give()
	for _, p := range w.people {
		w.play(p, 16)
	}
	w.cut()
	for range 3 {
		w.settle()
		for _, p := range w.people {
			w.late(p)
			w.play(p, 5)
		}
		w.cut()
	}
	for range 2 {
		w.amend()
		for _, p := range w.people {
			w.say(p, w.instant())
			w.play(p, 8)
		}
		w.cut()
	}
	w.amend()
}

// cut ends a step of lines.
func (w *world) cut(more ...[]string) {
	step := worldStep{lines: more}
	for _, p := range w.people {
		step.lines = append(step.lines, p.lines)
		p.lines = nil
	}
	w.steps = append(w.steps, step)
}

// watermarks say that all is in. They are no player's, so they come at any time.
func (w *world) watermarks() []string {
	var last time.Time
	for _, o := range w.offers {
		if end := o.spans[len(o.spans)-1].end; end.After(last) {
			last = end
		}
	}
	var lines []string
	for _, at := range []time.Time{last.AddDate(0, -1, 0), last} {
		for _, source := range []string{"bets", "cash"} {
			lines = append(lines, encode(map[string]any{"type": "watermark", "source": source, "at": at.UTC().Format(time.RFC3339Nano)}))
		}
	}
	return lines
}

// settle settles one period of each programme. Two at once of one lossback would be a
// race for the players whom both concern, with either winner right.
func (w *world) settle() {
	var step worldStep
	for _, o := range w.offers {
		first := 0
		if o.inForce(o.spans[0]) == nil {
			first = 1
		}
		// The middle one first, for some.
		number := first + w.settled
		if len(o.code)%2 == int(o.deals[0].least%2) {
			number = first + []int{1, 0, 2}[w.settled]
		}
		s := o.spans[number]
		owed := w.books.settle(o, s)
		w.runs[periodKey(o, s)] = []map[string]due{owed}
		step.settled = append(step.settled, settledSpan{offer: o, owed: owed, span: s})
		if o.inForce(s) != o.deals[0] {
			w.books.see("second version of a %s", o.kind)
		}
	}
	w.settled++
	w.steps = append(w.steps, step)
}

// give books promotion credits, as other settlements did in their time.
func (w *world) give() {
	var step worldStep
	for _, p := range w.people {
		for range w.rng.IntN(3) {
			given := gift{amount: 1 + w.rng.Int64N(900*w.scale), at: w.instantOf(p), player: p.code}
			step.gifts = append(step.gifts, given)
			w.books.apply(encode(map[string]any{
				"type": "gift", "player": p.code, "amount": given.amount, "at": given.at.Format(time.RFC3339Nano),
			}))
		}
	}
	w.steps = append(w.steps, step)
}

func encode(line map[string]any) string {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// add adds a line of a player, and reports whether it is not refused. Its time is
// given by any clock: it means an instant.
func (w *world) add(p *script, at time.Time, line map[string]any) bool {
	line["at"] = pick(w.rng, at.UTC(), at.In(w.zone)).Format(time.RFC3339Nano)
	text := encode(line)
	p.lines = append(p.lines, text)
	return w.books.apply(text)
}

func (p *script) id(prefix string) string {
	p.numIDs++
	return fmt.Sprintf("%s-%s-%d", prefix, p.code, p.numIDs)
}

// register opens a player, often long after or before what the player does.
func (w *world) register(p *script) {
	w.say(p, w.instant())
	p.first = w.firstDeposit()
	w.pay(p, "deposit", p.first, 1+w.rng.Int64N(pick[int64](w.rng, 1_000, 40_000, 40_000)*w.scale))
}

// say is what a player is from an instant on. An instant holds one line.
func (w *world) say(p *script, at time.Time) {
	for p.taken[at] {
		at = at.Add(time.Microsecond)
	}
	p.taken[at] = true
	w.add(p, at, map[string]any{
		"type": "player", "player": p.code, "agent": nil, "currency": p.currency, "rolling_ppm": 0,
		"status": pick(w.rng, w.status...), "vip": w.rng.IntN(6),
	})
}

func (w *world) pay(p *script, kind string, at time.Time, amount int64) {
	for p.taken[at] { // which of two at once is the first is nobody's business
		at = at.Add(time.Microsecond)
	}
	p.taken[at] = true
	w.add(p, at, map[string]any{"type": kind, "id": p.id(kind[:1]), "player": p.code, "amount": amount})
}

// late now and then brings an earlier deposit than all before.
func (w *world) late(p *script) {
	if w.rng.IntN(4) > 0 {
		return
	}
	p.first = p.first.Add(-pick(w.rng, time.Microsecond, time.Duration(1+w.rng.Int64N(int64(48*time.Hour))))).Truncate(time.Microsecond)
	w.pay(p, "deposit", p.first, 1+w.rng.Int64N(5_000*w.scale))
}

// play makes up what a player does.
func (w *world) play(p *script, num int) {
	for range w.rng.IntN(num + 1) {
		switch w.rng.IntN(12) {
		case 0:
			w.say(p, w.instant())
		case 1:
			at := w.instant()
			if at.Before(p.first) {
				at = p.first.Add(time.Duration(1+w.rng.IntN(3)) * time.Microsecond)
			}
			w.pay(p, "deposit", at, 1+w.rng.Int64N(5_000*w.scale))
		case 2:
			w.pay(p, "withdrawal", w.instant(), 1+w.rng.Int64N(4_000*w.scale))
		default:
			w.bet(p)
		}
		for len(p.open) > 0 && w.rng.IntN(3) > 0 {
			w.decide(p)
		}
	}
}

func (w *world) bet(p *script) {
	id := p.id("b")
	isIn := w.add(p, w.instantOf(p), map[string]any{
		"type": "bet", "id": id, "player": p.code, "category": pick(w.rng, "slots", "live", "sports"), "stake": 1 + w.rng.Int64N(3_000*w.scale),
	})
	if isIn {
		p.open = append(p.open, id)
	}
}

// decide ends one of the bets that are open.
func (w *world) decide(p *script) {
	place := w.rng.IntN(len(p.open))
	id := p.open[place]
	p.open = append(p.open[:place], p.open[place+1:]...)
	stake := w.books.wagers[id].line.Stake
	if w.rng.IntN(8) == 0 {
		w.add(p, w.instantOf(p), map[string]any{"type": "void", "bet": id})
		return
	}
	payout := pick(w.rng, 0, 0, 0, w.rng.Int64N(stake+1), w.rng.Int64N(stake+1), stake, w.rng.Int64N(4*stake))
	w.add(p, w.instantOf(p), map[string]any{"type": "result", "bet": id, "payout": payout})
}

// instant is one around the periods: at an end of one, or anywhere.
func (w *world) instant() time.Time {
	s := pick(w.rng, pick(w.rng, w.offers...).spans...)
	if w.rng.IntN(5) < 2 {
		return w.near(pick(w.rng, s.start, s.end))
	}
	length := s.end.Sub(s.start)
	return s.start.Add(time.Duration(w.rng.Int64N(int64(length*3/2))) - length/4).Truncate(time.Microsecond)
}

// instantOf is one in which a player does something: any, or in a window after the
// first deposit.
func (w *world) instantOf(p *script) time.Time {
	d := w.lossback()
	switch w.rng.IntN(8) {
	case 0:
		return w.near(p.first.Add(d.window))
	case 1:
		return w.near(p.first)
	case 2:
		return p.first.Add(time.Duration(w.rng.Int64N(int64(d.window)))).Truncate(time.Microsecond)
	default:
		return w.instant()
	}
}

// firstDeposit is such that a window ends in a period, mostly.
func (w *world) firstDeposit() time.Time {
	switch w.rng.IntN(8) {
	case 0:
		o := pick(w.rng, w.offers...)
		return w.near(midnight(o.zone, o.deals[0].effectiveFrom))
	case 1:
		return w.instant()
	default:
		return w.instant().Add(-w.lossback().window)
	}
}

// lossback is the terms of one.
func (w *world) lossback() *deal {
	return pick(w.rng, pick(w.rng, w.offers[2], w.offers[4]).deals...)
}

func (w *world) near(at time.Time) time.Time {
	return at.Add(time.Duration(w.rng.IntN(3)-1) * time.Microsecond)
}
