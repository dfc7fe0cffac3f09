package activity

import (
	"time"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/wallet"
)

// batch is the state that some lines need, what they make of it in memory, and
// what is to be stored of that.
type batch struct {
	queries *dbsqlc.Queries
	lines   []Line
	needs   needs
	result  Result

	agents     map[string]*agent
	agentsByID map[int64]*agent // the stored ones
	bets       map[string]*bet
	book       *wallet.Book
	payments   map[paymentKey]*payment
	players    map[string]*player // those whose history counts
	rollups    map[rollupKey]*rollup
	watermarks map[string]*watermark

	// What is new or changed, in the order of the lines.
	agentsTouched   []*agent
	betsNew         []*bet
	betsChanged     []*bet
	paymentsNew     []*payment
	playersTouched  []*player
	rollupsTouched  []*rollup
	watermarksMoved []*watermark

	refusals []Refused // the first of them
}

// outcome is what became of one line.
type outcome int

const (
	applied outcome = iota
	known
	refused
)

func newBatch(queries *dbsqlc.Queries, lines []Line) *batch {
	return &batch{
		queries:    queries,
		lines:      lines,
		agents:     make(map[string]*agent),
		agentsByID: make(map[int64]*agent),
		bets:       make(map[string]*bet),
		payments:   make(map[paymentKey]*payment),
		players:    make(map[string]*player),
		rollups:    make(map[rollupKey]*rollup),
		watermarks: make(map[string]*watermark),
	}
}

// validate checks the lines one by one: they need not come from ParseLine.
func (b *batch) validate() error {
	for i := range b.lines {
		if err := b.lines[i].Validate(); err != nil {
			return &LineError{Err: err, Index: i}
		}
	}
	return nil
}

// simulate applies the lines to the state in memory.
func (b *batch) simulate() error {
	b.result.NumLines = int64(len(b.lines))
	for i := range b.lines {
		became, err := b.apply(&b.lines[i])
		if err != nil {
			return &LineError{Err: err, Index: i}
		}
		switch became {
		case applied:
			b.result.NumApplied++
		case known:
			b.result.NumKnown++
		case refused:
			b.result.NumRefused++
			b.noteRefusal(i)
		}
	}
	return nil
}

// noteRefusal keeps the first refused lines, with the balance that they met.
func (b *batch) noteRefusal(index int) {
	if len(b.refusals) == MaxRefused {
		return
	}
	line := &b.lines[index]
	b.refusals = append(b.refusals, Refused{
		Amount: max(line.Amount, line.Stake), Balance: b.book.Account(line.Player).Balance(), ID: line.ID, Index: index, Player: line.Player, Type: line.Type,
	})
}

func (b *batch) apply(line *Line) (outcome, error) {
	switch line.Type {
	case TypeAgent:
		return b.applyAgent(line)
	case TypePlayer:
		return b.applyPlayer(line)
	case TypeDeposit, TypeWithdrawal:
		return b.applyPayment(line)
	case TypeBet:
		return b.applyBet(line)
	case TypeResult:
		return b.applyResult(line)
	case TypeVoid:
		return b.applyVoid(line)
	case TypeWatermark:
		return b.applyWatermark(line), nil
	}
	return 0, unknownType(string(line.Type))
}

// watermark is up to when a source has sent everything.
type watermark struct {
	at     time.Time
	moved  bool
	source string
}

func (b *batch) applyWatermark(line *Line) outcome {
	mark := b.watermarks[line.Source]
	if mark == nil {
		mark = &watermark{source: line.Source}
		b.watermarks[line.Source] = mark
	} else if !line.At.After(mark.at) {
		return known
	}
	mark.at = line.At
	if !mark.moved {
		mark.moved = true
		b.watermarksMoved = append(b.watermarksMoved, mark)
	}
	return applied
}

// differs is the error about a line whose id is known with something else.
func differs(what, id, field string, stored, given any) error {
	return fault.Invalid("%s %s is known with %s %v, this line says %v", what, id, field, stored, given)
}

func formatTime(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
