package activity

import (
	"slices"
	"time"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// agent is an agent with every line that was ever applied to it. From a line's
// time on, the agent is what the line says, until the next one; before its
// first line it counts as what that one says.
type agent struct {
	code    string
	id      int64 // 0 for one that is not stored yet
	lines   []agentLine
	touched bool

	// Who ever had a line below this agent; some may be there twice.
	agentsBelow  []*agent
	playersBelow []*player
}

// agentLine is what one line says about an agent.
type agentLine struct {
	at     time.Time
	isNew  bool
	parent *agent // nil for none
	rate   money.RatePPM
}

// player is a player with every line that was ever applied.
type player struct {
	code     string
	currency string
	id       int64 // 0 for one that is not stored yet
	lines    []playerLine
	touched  bool
}

// playerLine is what one line says about a player.
type playerLine struct {
	agent  *agent // nil for none
	at     time.Time
	isNew  bool
	rate   money.RatePPM
	status Status
	vip    int32
}

func (b *batch) applyAgent(line *Line) (outcome, error) {
	var parent *agent
	if line.Parent != "" {
		if parent = b.agents[line.Parent]; parent == nil {
			return 0, fault.Invalid("agent %s: its parent %s is not known", line.Agent, line.Parent)
		}
	}
	self := b.agents[line.Agent]
	if self == nil {
		self = &agent{code: line.Agent}
		b.agents[line.Agent] = self
	}

	place, there := slices.BinarySearchFunc(self.lines, line.At, func(l agentLine, at time.Time) int { return l.at.Compare(at) })
	if there {
		stored := self.lines[place]
		switch {
		case stored.parent != parent:
			return 0, sameTime("agent", line.Agent, line.At, "parent", codeOf(stored.parent), codeOf(parent))
		case stored.rate != line.RollingPPM:
			return 0, sameTime("agent", line.Agent, line.At, "rolling_ppm", stored.rate, line.RollingPPM)
		}
		return known, nil
	}

	added := agentLine{at: line.At, isNew: true, parent: parent, rate: line.RollingPPM}
	if err := checkAgentLine(self, added, spanOf(self.lines, place, line.At, agentLine.time)); err != nil {
		return 0, err
	}
	self.lines = slices.Insert(self.lines, place, added)
	if parent != nil {
		parent.agentsBelow = append(parent.agentsBelow, self)
	}
	if !self.touched {
		self.touched = true
		b.agentsTouched = append(b.agentsTouched, self)
	}
	return applied, nil
}

func (b *batch) applyPlayer(line *Line) (outcome, error) {
	var above *agent
	if line.Agent != "" {
		if above = b.agents[line.Agent]; above == nil {
			return 0, fault.Invalid("player %s: agent %s is not known", line.Player, line.Agent)
		}
	}
	self := b.players[line.Player]
	if self == nil {
		self = &player{code: line.Player, currency: line.Currency}
		b.players[line.Player] = self
		b.book.Open(line.Player, line.Currency)
	}
	if self.currency != line.Currency {
		return 0, differs("player", line.Player, "currency", self.currency, line.Currency)
	}

	place, there := slices.BinarySearchFunc(self.lines, line.At, func(l playerLine, at time.Time) int { return l.at.Compare(at) })
	if there {
		stored := self.lines[place]
		switch {
		case stored.agent != above:
			return 0, sameTime("player", line.Player, line.At, "agent", codeOf(stored.agent), codeOf(above))
		case stored.rate != line.RollingPPM:
			return 0, sameTime("player", line.Player, line.At, "rolling_ppm", stored.rate, line.RollingPPM)
		case stored.status != line.Status:
			return 0, sameTime("player", line.Player, line.At, "status", stored.status, line.Status)
		case stored.vip != line.VIP:
			return 0, sameTime("player", line.Player, line.At, "vip", stored.vip, line.VIP)
		}
		return known, nil
	}

	added := playerLine{agent: above, at: line.At, isNew: true, rate: line.RollingPPM, status: line.Status, vip: line.VIP}
	if err := checkPlayerLine(self, added, spanOf(self.lines, place, line.At, playerLine.time)); err != nil {
		return 0, err
	}
	self.lines = slices.Insert(self.lines, place, added)
	if above != nil {
		above.playersBelow = append(above.playersBelow, self)
	}
	if !self.touched {
		self.touched = true
		b.playersTouched = append(b.playersTouched, self)
	}
	return applied, nil
}

// sameTime is the error about a line that says something else than another of
// the same time: which is right cannot be told.
func sameTime(what, code string, at time.Time, field string, stored, given any) error {
	return fault.Invalid("%s %s is known at %s with %s %v, this line says %v", what, code, formatTime(at), field, stored, given)
}

func codeOf(someone *agent) string {
	if someone == nil {
		return "null"
	}
	return someone.code
}

func (line agentLine) time() time.Time { return line.at }

func (line playerLine) time() time.Time { return line.at }

// newest is the line that holds now; every stored agent has one.
func (someone *agent) newest() agentLine { return someone.lines[len(someone.lines)-1] }

// newest is the line that holds now; every stored player has one.
func (someone *player) newest() playerLine { return someone.lines[len(someone.lines)-1] }
