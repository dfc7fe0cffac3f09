package settlement_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// told is one raw line, as its JSON has it. A gift is none that can be imported: a
// promotion credit that another settlement booked.
type told struct {
	Amount   int64     `json:"amount"`
	At       time.Time `json:"at"`
	Bet      string    `json:"bet"`
	Category string    `json:"category"`
	Currency string    `json:"currency"`
	ID       string    `json:"id"`
	Payout   int64     `json:"payout"`
	Player   string    `json:"player"`
	Stake    int64     `json:"stake"`
	Status   string    `json:"status"`
	Type     string    `json:"type"`
	VIP      int64     `json:"vip"`
}

// books are a second calculation of all that settlements rest on. They know the raw
// lines in the order in which they were applied, and nothing else: no database, no
// sums, no code of the product.
type books struct {
	people map[string]*person
	seen   map[string]int // what was come across, so that a test knows what it tested
	wagers map[string]*wager
}

// person is a player with all that the lines say.
type person struct {
	balance  int64              // in order of application
	claims   map[string][]claim // by programme and period
	code     string
	currency string
	entries  []entry // of the wallet
	entitled map[string]bool
	gifts    []entry
	lines    []told // of type player
	payments []told // that were not refused
	rounds   []round
	version  int64 // bookings of the wallet
}

// entry is an amount at a time.
type entry struct {
	amount int64
	at     time.Time
}

// wager is a bet that was not refused.
type wager struct {
	line   told
	player *person
}

// round is a bet with its result.
type round struct {
	at            time.Time // of the result
	category      string
	payout, stake int64
}

func newBooks() *books {
	return &books{people: make(map[string]*person), seen: make(map[string]int), wagers: make(map[string]*wager)}
}

// apply books a raw line, and reports whether it was not refused.
func (b *books) apply(raw string) bool {
	var line told
	if err := json.Unmarshal([]byte(raw), &line); err != nil {
		panic(fmt.Sprintf("unreachable: the world writes good lines: %v", err))
	}
	owner := b.people[line.Player]
	switch line.Type {
	case "player":
		if owner == nil {
			owner = &person{claims: make(map[string][]claim), code: line.Player, currency: line.Currency, entitled: make(map[string]bool)}
			b.people[line.Player] = owner
		}
		owner.lines = append(owner.lines, line)
	case "deposit":
		owner.payments = append(owner.payments, line)
		owner.move(line.Amount, line.At)
	case "withdrawal":
		if owner.balance < line.Amount {
			return b.refuse(line)
		}
		owner.payments = append(owner.payments, line)
		owner.move(-line.Amount, line.At)
	case "bet":
		if owner.balance < line.Stake {
			return b.refuse(line)
		}
		owner.move(-line.Stake, line.At)
		b.wagers[line.ID] = &wager{line: line, player: owner}
	case "result":
		of := b.wagers[line.Bet]
		of.player.move(line.Payout, line.At)
		of.player.rounds = append(of.player.rounds, round{at: line.At, category: of.line.Category, payout: line.Payout, stake: of.line.Stake})
	case "void":
		of := b.wagers[line.Bet]
		of.player.move(of.line.Stake, line.At)
		b.seen["void"]++
	case "gift":
		owner.gifts = append(owner.gifts, entry{amount: line.Amount, at: line.At})
		owner.move(line.Amount, line.At)
	}
	return true
}

func (b *books) refuse(line told) bool {
	b.seen["refused "+line.Type]++
	return false
}

func (p *person) move(amount int64, at time.Time) {
	p.balance += amount
	p.entries = append(p.entries, entry{amount: amount, at: at})
	p.version++
}

// newest is the last line before an instant, by the time that it speaks of.
func (p *person) newest(before time.Time) (newest told) {
	for _, line := range p.lines {
		if line.At.Before(before) && line.At.After(newest.At) {
			newest = line
		}
	}
	return newest
}

func (p *person) status() string { return p.newest(endOfTime()).Status }

// endOfTime is behind everything that lines speak of.
func endOfTime() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }

// balanceAt is what the wallet held at an instant, by the times of its entries.
func (p *person) balanceAt(at time.Time) (sum int64) {
	for _, entry := range p.entries {
		if entry.at.Before(at) {
			sum += entry.amount
		}
	}
	return sum
}

// firstDeposit is the earliest, by its time.
func (p *person) firstDeposit() (first told, isThere bool) {
	for _, payment := range p.payments {
		if payment.Type == "deposit" && (!isThere || payment.At.Before(first.At)) {
			first, isThere = payment, true
		}
	}
	return first, isThere
}

// due is what a player gets of one period, and why.
type due struct {
	Amount   int64
	Basis    string // a fraction
	Delivery string // empty for the excluded
	Reason   string // of an exclusion, or of a refused delivery
}

// settle works out a period for everybody, and credits it.
func (b *books) settle(o *offer, s span) map[string]due {
	d := o.inForce(s)
	owed := make(map[string]due)
	for _, p := range b.sorted() {
		basis, isConcerned := b.basis(o, d, s, p)
		if !isConcerned {
			continue
		}
		if p.currency != o.currency {
			b.seen["other currency"]++
			continue
		}
		amount, reason := b.share(d, p, basis, p.newest(s.end).VIP)
		item := due{Amount: amount, Reason: reason}
		if key := periodKey(o, s); reason == "" {
			item = b.grant(p, key, claim{amount: amount, first: b.firstOf(p, key)}, o.code)
		}
		item.Basis = basis.RatString()
		owed[p.code] = item
		b.see("%s/%s is %s", d.kind, d.basis, strings.TrimSpace(item.Delivery+" "+item.Reason))
	}
	b.see("%s in %s over %s", o.period, o.zone, s.end.Sub(s.start))
	b.see("zone %s", o.zone)
	b.see("%s", outcomeOf(owed))
	return owed
}

func (b *books) see(format string, args ...any) { b.seen[fmt.Sprintf(format, args...)]++ }

// sorted are all players, so that what is come across is the same each time.
func (b *books) sorted() []*person {
	var sorted []*person
	for _, p := range b.people {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, c *person) int {
		if a.code < c.code {
			return -1
		}
		return 1
	})
	return sorted
}

// basis is what the rate applies to, and whether the player is concerned at all.
func (b *books) basis(o *offer, d *deal, s span, p *person) (basis *big.Rat, isConcerned bool) {
	if d.kind == "lossback" {
		return b.lossBasis(o, d, s, p)
	}
	net, turnover, played := b.games(d, s, p)
	switch {
	case d.kind == "rebate":
		return turnover, played
	case d.basis == "game":
		return net.Sub(net, whole(b.gifted(d, s, p))), played
	}

	deposits, withdrawals := int64(0), int64(0)
	for _, payment := range p.payments {
		if !s.holds(payment.At) {
			continue
		}
		b.edge(s, payment.At, "payment")
		isConcerned = true
		if payment.Type == "deposit" {
			deposits += payment.Amount
		} else {
			withdrawals += payment.Amount
		}
	}
	if isConcerned && !played {
		b.seen["cash without a game"]++
	}
	return whole(p.balanceAt(s.start) + deposits - withdrawals - p.balanceAt(s.end)), isConcerned || played
}

// lossBasis is that of a player whose window ends in the period and who was not
// entitled before.
func (b *books) lossBasis(o *offer, d *deal, s span, p *person) (basis *big.Rat, isConcerned bool) {
	if claims := p.claims[periodKey(o, s)]; len(claims) > 0 {
		// An earlier deposit that came later changes nothing.
		if first, _ := p.firstDeposit(); first.At.Before(claims[0].first.At) {
			b.seen["a first deposit that came too late"]++
		}
		return b.lostOf(d, p, claims[0].first), true
	}
	first, isThere := p.firstDeposit()
	if !isThere {
		return nil, false
	}
	window := span{start: first.At, end: first.At.Add(d.window)}
	if !s.holds(window.end) {
		if window.end.Equal(s.end) {
			b.seen["window ends with the period"]++
		}
		return nil, false
	}
	b.edge(s, window.end, "window")
	if first.At.Before(midnight(o.zone, o.deals[0].effectiveFrom)) {
		b.seen["first deposit before effective_from"]++
		return nil, false
	}
	if p.entitled[o.code] {
		b.seen["entitled before"]++
		return nil, false
	}
	if window.start.Before(s.start) {
		b.seen["window of two periods"]++
	}
	return b.lostOf(d, p, first), true
}

// lostOf is what was lost of a first deposit.
func (b *books) lostOf(d *deal, p *person, first told) *big.Rat {
	window := span{start: first.At, end: first.At.Add(d.window)}
	net, _, _ := b.games(d, window, p)
	net.Sub(net, whole(b.gifted(d, window, p)))
	if net.Cmp(whole(first.Amount)) > 0 {
		b.seen["more lost than paid in first"]++
		return whole(first.Amount)
	}
	if net.Sign() < 0 {
		return whole(0)
	}
	return net
}

// games weighs what a player lost and what counts of the stakes.
func (b *books) games(d *deal, s span, p *person) (net, turnover *big.Rat, played bool) {
	net, turnover = whole(0), whole(0)
	for _, r := range p.rounds {
		b.edge(s, r.at, "result")
		if !s.holds(r.at) {
			continue
		}
		played = true
		counted := r.stake
		if d.basis == "risk" {
			if counted = r.payout - r.stake; counted < 0 {
				counted = -counted
			}
			if counted > r.stake {
				b.seen["won more than the stake"]++
				counted = r.stake
			}
		}
		weight := d.weight(r.category)
		net.Add(net, new(big.Rat).Mul(whole(r.stake-r.payout), weight))
		turnover.Add(turnover, new(big.Rat).Mul(whole(counted), weight))
		if weight.Sign() == 0 {
			b.seen["weight 0"]++
		}
	}
	return net, turnover, played
}

// gifted is what is to be deducted of promotion credits.
func (b *books) gifted(d *deal, s span, p *person) (sum int64) {
	if !d.lessPromotions {
		return 0
	}
	for _, gift := range p.gifts {
		if s.holds(gift.at) {
			b.edge(s, gift.at, "promotion")
			b.see("%s less promotions", d.kind)
			sum += gift.amount
		}
	}
	return sum
}

// share takes the rate of a basis, and says why nothing is paid.
func (b *books) share(d *deal, p *person, basis *big.Rat, vip int64) (amount int64, reason string) {
	switch status := p.status(); {
	case status == "self_excluded" || status == "closed":
		return 0, status
	case basis.Sign() <= 0 && d.kind == "rebate":
		return 0, "no_turnover"
	case basis.Sign() <= 0:
		return 0, "winner"
	}
	value := basis
	if d.tierBy == "vip" {
		value = whole(vip)
	}
	if value.Cmp(whole(d.tiers[0].from)) < 0 {
		b.see("no tier by %s, %s", d.tierBy, d.shape)
		return 0, "no_tier"
	}

	exact, numTiers := new(big.Rat), 0
	for i, tier := range d.tiers {
		if value.Cmp(whole(tier.from)) < 0 {
			break
		}
		numTiers++
		rate := big.NewRat(tier.ppm, 1_000_000)
		if d.shape == "slab" {
			exact.Mul(basis, rate)
			continue
		}
		// From here up, all earns the difference to the rate below.
		if i > 0 {
			rate.Sub(rate, big.NewRat(d.tiers[i-1].ppm, 1_000_000))
		}
		above := new(big.Rat).Sub(basis, whole(tier.from))
		exact.Add(exact, above.Mul(above, rate))
	}
	b.see("%s by %s reaches tier %d", d.shape, d.tierBy, min(numTiers, 3))
	if !exact.IsInt() {
		b.seen["rounded down"]++
	}
	amount = new(big.Int).Div(exact.Num(), exact.Denom()).Int64()
	if d.most > 0 && amount > d.most {
		b.see("%s is capped", d.kind)
		amount = d.most
	}
	switch {
	case amount == 0:
		b.seen["rounded to 0"]++
		return 0, "below_min"
	case amount < d.least:
		b.seen["below min_payout"]++
		return 0, "below_min"
	case amount == d.least:
		b.seen["just min_payout"]++
	}
	return amount, ""
}

// edge notes what lies at the ends of a span.
func (b *books) edge(s span, at time.Time, what string) {
	for name, edge := range map[string]time.Time{"start": s.start, "end": s.end} {
		if off := at.Sub(edge).Microseconds(); off >= -1 && off <= 1 {
			b.see("%s at %s%+d", what, name, off)
		}
	}
}

// outcomeOf is what a run delivers.
func outcomeOf(owed map[string]due) string {
	credited, failed, withheld := 0, 0, 0
	for _, item := range owed {
		switch item.Delivery {
		case "withheld":
			withheld++
		case "credited":
			credited++
		case "failed":
			failed++
		}
	}
	switch {
	case credited+failed+withheld == 0:
		return "no_eligible"
	case credited+failed == 0:
		return "all_withheld"
	case failed == 0:
		return "all_delivered"
	case credited == 0:
		return "none_delivered"
	default:
		return "partial"
	}
}

func whole(number int64) *big.Rat { return new(big.Rat).SetInt64(number) }
