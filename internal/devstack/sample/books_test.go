package sample_test

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

// books is a ledger in a few lines: what any importer must make of activity.
type books struct {
	agents  map[string]activity.Line
	balance map[string]money.Minor
	ended   map[string]bool // bets that have a result, a void, or a refusal
	open    map[string]activity.Line
	paid    map[string]bool // payments by kind and id
	players map[string]activity.Line
	refused []string                  // bets
	settled map[string][2]money.Minor // stakes and payouts by category
	voids   int

	refusedPayments int
}

func newBooks() *books {
	return &books{
		agents:  map[string]activity.Line{},
		balance: map[string]money.Minor{},
		ended:   map[string]bool{},
		open:    map[string]activity.Line{},
		paid:    map[string]bool{},
		players: map[string]activity.Line{},
		settled: map[string][2]money.Minor{},
	}
}

// apply books one line, and refuses all that an import would refuse.
func (b *books) apply(line activity.Line) error {
	if err := line.Validate(); err != nil {
		return err
	}
	switch line.Type {
	case activity.TypeAgent:
		return b.applyAgent(line)
	case activity.TypePlayer:
		return b.applyPlayer(line)
	case activity.TypeDeposit, activity.TypeWithdrawal:
		return b.applyPayment(line)
	case activity.TypeBet:
		return b.applyBet(line)
	case activity.TypeResult, activity.TypeVoid:
		return b.applyEnd(line)
	}
	return nil
}

func (b *books) applyAgent(line activity.Line) error {
	parent, known := b.agents[line.Parent]
	switch {
	case line.Parent != "" && !known:
		return fmt.Errorf("agent %s: parent %s is not known", line.Agent, line.Parent)
	case known && line.RollingPPM > parent.RollingPPM:
		return fmt.Errorf("agent %s: earns more than its parent", line.Agent)
	case b.agents[line.Agent].Agent != "":
		return fmt.Errorf("agent %s: is there twice", line.Agent)
	}
	b.agents[line.Agent] = line
	return nil
}

func (b *books) applyPlayer(line activity.Line) error {
	agent, known := b.agents[line.Agent]
	before, again := b.players[line.Player]
	switch {
	case line.Agent != "" && !known:
		return fmt.Errorf("player %s: agent %s is not known", line.Player, line.Agent)
	case known && line.RollingPPM > agent.RollingPPM:
		return fmt.Errorf("player %s: earns more than its agent", line.Player)
	case again && (!line.At.After(before.At) || line.Currency != before.Currency):
		return fmt.Errorf("player %s: contradicts its line of %s", line.Player, before.At)
	}
	b.players[line.Player] = line
	return nil
}

func (b *books) applyPayment(line activity.Line) error {
	key := string(line.Type) + " " + line.ID
	switch {
	case b.players[line.Player].Player == "":
		return fmt.Errorf("%s: player %s is not known", key, line.Player)
	case b.paid[key]:
		return fmt.Errorf("%s: is there twice", key)
	}
	b.paid[key] = true
	if line.Type == activity.TypeWithdrawal && b.balance[line.Player] < line.Amount {
		b.refusedPayments++
		return nil
	}
	if line.Type == activity.TypeWithdrawal {
		line.Amount = -line.Amount
	}
	b.balance[line.Player] += line.Amount
	return nil
}

func (b *books) applyBet(line activity.Line) error {
	_, known := b.open[line.ID]
	switch {
	case b.players[line.Player].Player == "":
		return fmt.Errorf("bet %s: player %s is not known", line.ID, line.Player)
	case known || b.ended[line.ID]:
		return fmt.Errorf("bet %s: is there twice", line.ID)
	}
	if b.balance[line.Player] < line.Stake {
		b.ended[line.ID] = true
		b.refused = append(b.refused, line.ID)
		return nil
	}
	b.balance[line.Player] -= line.Stake
	b.open[line.ID] = line
	return nil
}

func (b *books) applyEnd(line activity.Line) error {
	bet, known := b.open[line.Bet]
	if !known || line.At.Before(bet.At) {
		return fmt.Errorf("%s of bet %s: it is not open", line.Type, line.Bet)
	}
	delete(b.open, line.Bet)
	b.ended[line.Bet] = true
	if line.Type == activity.TypeVoid {
		b.voids++
		b.balance[bet.Player] += bet.Stake
		return nil
	}
	b.balance[bet.Player] += line.Payout
	sums := b.settled[bet.Category]
	b.settled[bet.Category] = [2]money.Minor{sums[0] + bet.Stake, sums[1] + line.Payout}
	return nil
}

// parse reads the lines of a sample as an import would.
func parse(t *testing.T, data []byte) []activity.Line {
	t.Helper()

	var lines []activity.Line
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		line, err := activity.ParseLine(scanner.Bytes())
		if err != nil {
			require.NoError(t, err, "line %d: %s", len(lines)+1, scanner.Text())
		}
		lines = append(lines, line)
	}
	require.NoError(t, scanner.Err())
	return lines
}

// book applies the lines to new books.
func book(t *testing.T, lines []activity.Line) *books {
	t.Helper()

	b := newBooks()
	for i, line := range lines {
		if err := b.apply(line); err != nil {
			require.NoError(t, err, "line %d", i+1)
		}
	}
	return b
}
