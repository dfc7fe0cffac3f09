package activity

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// What holds of agents and players at every instant, not just now, since
// commissions of past days follow the agents and rates of their day: nobody is
// above himself, and nobody's rate is above that of the agent above him.

// span is the half-open time [from, to) during which a line holds. The zero
// time as from or to stands for no bound.
type span struct{ from, to time.Time }

// spanOf returns the span of a line at a time that is to be inserted at place.
func spanOf[T any](lines []T, place int, at time.Time, timeOf func(T) time.Time) span {
	held := span{from: at}
	if place < len(lines) {
		held.to = timeOf(lines[place])
	}
	return held
}

// with returns the part that two spans share; ok is false if there is none.
func (s span) with(other span) (shared span, ok bool) {
	shared = s
	if other.from.After(shared.from) {
		shared.from = other.from
	}
	if shared.to.IsZero() || !other.to.IsZero() && other.to.Before(shared.to) {
		shared.to = other.to
	}
	return shared, shared.to.IsZero() || shared.from.Before(shared.to)
}

// extended is the span with the time before it, for what is the first line.
func (s span) extended(isFirst bool) span {
	if isFirst {
		s.from = time.Time{}
	}
	return s
}

// during goes through the lines of an agent that hold in a span, each with the
// part of the span in which it does.
func (someone *agent) during(held span, yield func(agentLine, span) error) error {
	for i, line := range someone.lines {
		own := spanOf(someone.lines, i+1, line.at, agentLine.time).extended(i == 0)
		if shared, ok := own.with(held); ok {
			if err := yield(line, shared); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAgentLine refuses a line that would bring an agent below itself, its
// rate above that of its parent, or below that of somebody under it.
func checkAgentLine(self *agent, added agentLine, held span) error {
	isFirst := len(self.lines) == 0 || added.at.Before(self.lines[0].at)
	if added.parent != nil {
		if err := checkNotBelow(self, added.parent, held.extended(isFirst)); err != nil {
			return err
		}
		if err := checkRateBelow("agent", self.code, added.rate, added.parent, held); err != nil {
			return err
		}
	}
	return checkRatesUnder(self, added.rate, held.extended(isFirst))
}

// checkPlayerLine refuses a line whose rate is above that of the player's agent.
func checkPlayerLine(self *player, added playerLine, held span) error {
	if added.agent == nil {
		return nil
	}
	return checkRateBelow("player", self.code, added.rate, added.agent, held)
}

// checkNotBelow follows the parents of above and refuses to meet self. It ends,
// since the agents had no circle before.
func checkNotBelow(self, above *agent, held span) error {
	if above == self {
		return fault.Invalid("agent %s would be above itself", self.code)
	}
	return above.during(held, func(line agentLine, shared span) error {
		if line.parent == nil {
			return nil
		}
		return checkNotBelow(self, line.parent, shared)
	})
}

func checkRateBelow(what, code string, rate money.RatePPM, above *agent, held span) error {
	return above.during(held, func(line agentLine, _ span) error {
		if rate > line.rate {
			return fault.Invalid("%s %s: rolling_ppm %d is above the %d of its agent %s as of %s",
				what, code, rate, line.rate, above.code, formatTime(line.at))
		}
		return nil
	})
}

// child is a line of somebody under an agent.
type child struct {
	at   time.Time
	code string
	rate money.RatePPM
	what string
}

// checkRatesUnder refuses a rate below that of somebody under self, and names
// the earliest, so that the reason does not depend on the order of reading.
func checkRatesUnder(self *agent, rate money.RatePPM, held span) error {
	var above []child
	for _, under := range self.agentsBelow {
		for i, line := range under.lines {
			_, meets := spanOf(under.lines, i+1, line.at, agentLine.time).with(held)
			if meets && line.parent == self && line.rate > rate {
				above = append(above, child{at: line.at, code: under.code, rate: line.rate, what: "agent"})
			}
		}
	}
	for _, under := range self.playersBelow {
		for i, line := range under.lines {
			_, meets := spanOf(under.lines, i+1, line.at, playerLine.time).with(held)
			if meets && line.agent == self && line.rate > rate {
				above = append(above, child{at: line.at, code: under.code, rate: line.rate, what: "player"})
			}
		}
	}
	if len(above) == 0 {
		return nil
	}
	first := slices.MinFunc(above, func(a, b child) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.what, b.what), strings.Compare(a.code, b.code))
	})
	return fault.Invalid("agent %s: rolling_ppm %d is below the %d of %s %s under it as of %s",
		self.code, rate, first.rate, first.what, first.code, formatTime(first.at))
}
