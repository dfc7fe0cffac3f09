package settlement_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/settlement"
)

// claim is what a run found a player to be owed for a period.
type claim struct {
	amount   int64
	delivery string // credited, failed or withheld
	first    told   // the deposit of a lossback
}

// amended is a period that has been settled, with a retry of one of its runs, or with an
// adjustment.
type amended struct {
	offer   *offer
	owed    map[string]due // what the run's items are afterwards; of a retry, its parent's
	parent  int            // of a retry: the place of the run among those of its period
	retried map[string]due // of a retry: what it attempted, afterwards
	span    span
	isRetry bool
}

// periodKey names a period of a programme.
func periodKey(o *offer, s span) string { return o.code + " " + s.key }

// entitled is what was granted of a period, and whether a part is undelivered.
func (p *person) granted(key string) (sum int64, isUndelivered bool) {
	for _, c := range p.claims[key] {
		if c.delivery != "withheld" {
			sum += c.amount
		}
		if c.delivery == "failed" {
			isUndelivered = true
		}
	}
	return sum, isUndelivered
}

// grant notes a claim, and delivers it if the wallet takes it.
func (b *books) grant(p *person, key string, c claim, code string) due {
	item := due{Amount: c.amount, Delivery: "credited"}
	p.entitled[code] = true
	if p.status() == "frozen" {
		item.Delivery, item.Reason = "failed", "wallet_frozen"
	} else {
		p.move(c.amount, endOfTime())
	}
	c.delivery = item.Delivery
	p.claims[key] = append(p.claims[key], c)
	return item
}

// adjust works out a settled period once more, and credits the difference.
func (b *books) adjust(o *offer, s span) map[string]due {
	d, key := o.inForce(s), periodKey(o, s)
	owed := make(map[string]due)
	for _, p := range b.sorted() {
		basis, isConcerned := b.basis(o, d, s, p)
		if !isConcerned || p.currency != o.currency {
			continue
		}
		amount, reason := b.share(d, p, basis, p.newest(s.end).VIP)
		before, isUndelivered := p.granted(key)
		switch {
		case reason != "":
			amount = 0
		case amount <= before:
			b.see("overpaid by more than nothing: %t", amount < before)
			amount, reason = 0, "overpaid"
		case isUndelivered:
			amount, reason = 0, "earlier_undelivered"
		default:
			amount -= before
		}
		item := due{Reason: reason}
		if reason == "" {
			b.see("adjusted beyond %t", before > 0)
			item = b.grant(p, key, claim{amount: amount, first: b.firstOf(p, key)}, o.code)
		}
		item.Basis = basis.RatString()
		owed[p.code] = item
		b.see("adjustment of %s is %s", d.kind, cmp.Or(item.Delivery, item.Reason))
	}
	b.see("adjustment %s", outcomeOf(owed))
	return owed
}

// firstOf is the first deposit that a lossback is of: that of the player's claim, or the
// earliest.
func (b *books) firstOf(p *person, key string) told {
	if claims := p.claims[key]; len(claims) > 0 {
		return claims[0].first
	}
	first, _ := p.firstDeposit()
	return first
}

// retry attempts what a run has left, and says what its items are afterwards, and those
// that were attempted.
func (b *books) retry(o *offer, s span, before map[string]due) (after, retried map[string]due) {
	key := periodKey(o, s)
	after, retried = maps.Clone(before), make(map[string]due)
	for _, p := range b.sorted() {
		item := before[p.code]
		if item.Delivery != "failed" {
			continue
		}
		item.Delivery, item.Reason = "credited", ""
		switch p.status() {
		case "self_excluded":
			item.Delivery, item.Reason = "withheld", "self_excluded"
		case "frozen", "closed":
			item.Delivery, item.Reason = "failed", "wallet_"+p.status()
		default:
			p.move(item.Amount, endOfTime())
		}
		for i := range p.claims[key] {
			if c := &p.claims[key][i]; c.delivery == "failed" { // there is one at most
				c.delivery = item.Delivery
			}
		}
		after[p.code], retried[p.code] = item, item
		b.see("retried is %s", item.Delivery)
	}
	return after, retried
}

// amend retries runs of settled periods, and then adjusts the periods, of each programme
// one at a time.
func (w *world) amend() {
	var retries worldStep
	for _, o := range w.offers {
		for _, s := range o.spans {
			runs := w.runs[periodKey(o, s)]
			for place, owed := range runs {
				after, retried := w.books.retry(o, s, owed)
				if len(retried) > 0 {
					runs[place] = after
					retries.amended = append(retries.amended, amended{isRetry: true, offer: o, owed: after, parent: place, retried: retried, span: s})
				}
			}
		}
	}
	w.steps = append(w.steps, retries)
	for number := range w.offers[0].spans {
		var adjustments worldStep
		for _, o := range w.offers {
			s := o.spans[number]
			runs := w.runs[periodKey(o, s)]
			if len(runs) == 0 {
				continue
			}
			owed := w.books.adjust(o, s)
			w.runs[periodKey(o, s)] = append(runs, owed)
			adjustments.amended = append(adjustments.amended, amended{offer: o, owed: owed, span: s})
		}
		w.steps = append(w.steps, adjustments)
	}
}

// amendRound retries and adjusts side by side, and compares.
func (bundle *testBundle) amendRound(ctx context.Context, t *testing.T, round []amended, runs map[string][]int64) {
	t.Helper()
	runIDs := make([]int64, len(round))
	for i, one := range round {
		key := periodKey(one.offer, one.span)
		if one.isRetry {
			retry, err := bundle.service.Retry(ctx, settlement.Decision{By: "operator", RunID: runs[key][one.parent]})
			require.NoError(t, err, key)
			runIDs[i] = retry.RunID
			continue
		}
		runID, err := bundle.service.Adjust(ctx, settlement.Adjustment{By: "operator", Code: one.offer.code, Key: one.span.key})
		require.NoError(t, err, key)
		runs[key] = append(runs[key], runID)
		runIDs[i] = runID
	}
	bundle.awaitRuns(ctx, t)
	for i, one := range round {
		name := fmt.Sprintf("run %d of %s %s %+v", runIDs[i], one.offer.code, one.span.key, *one.offer.inForce(one.span))
		itemsOf, delivered := runIDs[i], one.owed
		if one.isRetry {
			itemsOf, delivered = runs[periodKey(one.offer, one.span)][one.parent], one.retried
		}
		require.Equal(t, one.owed, bundle.owed(ctx, t, itemsOf), name)
		result, err := bundle.service.Get(ctx, runIDs[i])
		require.NoError(t, err)
		requireOutcome(t, result, delivered)
	}
}
