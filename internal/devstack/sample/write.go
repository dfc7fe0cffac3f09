package sample

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

// Stats says what was written. Numbers are of lines unless they say otherwise.
type Stats struct {
	Agents      int64
	Bets        int64 // those that will be refused included
	Deposits    int64
	Lines       int64 // all of them
	Open        int64 // bets that have neither a result nor a void at the end
	PlayerLines int64 // registrations, changes of status, and rises of VIP level
	Players     int64 // how many there are
	Refused     int64 // bets beyond the balance, which the import refuses
	Results     int64
	Voids       int64
	Watermarks  int64
	Withdrawals int64

	End   time.Time // nothing happened at or after it
	Start time.Time // local midnight from which on there are bets
	Tag   string    // part of all ids and codes

	members []player
}

// AllPlayers returns every player with the balance that an import of the lines
// leaves behind, in the order of their numbers.
func (stats *Stats) AllPlayers() iter.Seq[Player] {
	return func(yield func(Player) bool) {
		for i := range stats.members {
			member := &stats.members[i]
			if !yield(Player{Balance: money.Minor(member.balance), Code: member.code, Currency: member.currency()}) {
				return
			}
		}
	}
}

const (
	bufferSize = 256 << 10
	// linesPerCheck is how many lines are written between two looks at the context.
	linesPerCheck = 4096
)

// Write writes a sample as JSON Lines, in order of time, which is the order to
// apply them in. They end with watermarks at End for the sources bets and cash;
// there are such ones at each local midnight before it, too.
//
// Fails with [fault.KindInvalid] for a config out of its bounds, with the
// context's error when that ends, and with what w returns; then the stats are
// those of the lines so far, some of which may not have reached w.
func Write(ctx context.Context, w io.Writer, config Config) (Stats, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return Stats{}, fmt.Errorf("write sample: %w", err)
	}
	covered, err := config.span()
	if err != nil {
		return Stats{}, fmt.Errorf("write sample: %w", err)
	}

	out := bufio.NewWriterSize(w, bufferSize)
	stats := Stats{
		End:     time.UnixMilli(covered.end).In(covered.zone),
		Players: int64(config.Players),
		Start:   time.UnixMilli(covered.start).In(covered.zone),
		Tag:     config.tag(covered),
	}
	var failure error
	s := newSimulation(config, covered, &stats, func(line *activity.Line) {
		if failure == nil {
			_, failure = out.Write(append(line.AppendJSON(out.AvailableBuffer()), '\n'))
		}
	})
	stats.members = s.players

	for failure == nil && s.step() {
		if stats.Lines%linesPerCheck == 0 && ctx.Err() != nil {
			failure = ctx.Err()
		}
	}
	if failure == nil {
		s.sendWatermarks(covered.end)
	}
	stats.Open = stats.Bets - stats.Refused - stats.Results - stats.Voids
	if failure == nil {
		failure = out.Flush()
	}
	if failure != nil {
		return stats, fmt.Errorf("write sample, about line %d: %w", stats.Lines, failure)
	}
	return stats, nil
}
