package activity

// needs are the things that the lines name, so that only what is needed is
// asked of the database. Names may repeat, except those of players.
type needs struct {
	agents        []string // above players
	allAgents     bool     // agents change, and whom that concerns shows only in the whole tree
	bets          []string
	betsElsewhere []string // settled or voided here, placed before
	paymentKinds  []string
	payments      []string
	playerLines   []string // players whose lines are here
	players       []string // whose wallets are moved or whose lines are here
	sources       []string // of watermarks
}

func needsOf(lines []Line) needs {
	var n needs
	placedHere := make(map[string]struct{})
	named := make(map[string]struct{})
	for i := range lines {
		line := &lines[i]
		switch line.Type {
		case TypeAgent:
			n.allAgents = true
		case TypePlayer:
			n.playerLines = append(n.playerLines, line.Player)
			if line.Agent != "" {
				n.agents = append(n.agents, line.Agent)
			}
		case TypeDeposit, TypeWithdrawal:
			n.paymentKinds = append(n.paymentKinds, string(line.Type))
			n.payments = append(n.payments, line.ID)
		case TypeBet:
			placedHere[line.ID] = struct{}{}
			n.bets = append(n.bets, line.ID)
		case TypeResult, TypeVoid:
			if _, here := placedHere[line.Bet]; !here {
				n.bets = append(n.bets, line.Bet)
				n.betsElsewhere = append(n.betsElsewhere, line.Bet)
			}
		case TypeWatermark:
			n.sources = append(n.sources, line.Source)
		}
		if line.Player == "" {
			continue
		}
		if _, again := named[line.Player]; !again {
			named[line.Player] = struct{}{}
			n.players = append(n.players, line.Player)
		}
	}
	return n
}

// wallets reports whether any wallet is to be locked.
func (n *needs) wallets() bool { return len(n.players) > 0 || len(n.betsElsewhere) > 0 }

// someAgents reports whether any agent is to be read.
func (n *needs) someAgents() bool { return n.allAgents || len(n.agents) > 0 }
