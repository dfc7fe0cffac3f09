package sample

import (
	"math/rand/v2"
	"strconv"

	"truegreen/internal/activity"
	"truegreen/internal/money"
)

// agent is one of the people who brought players, or who brought agents.
type agent struct {
	code       string
	parent     string // "" for none
	rollingPPM money.RatePPM
}

const (
	playersPerAgent  = 60
	agentsPerSenior  = 5
	seniorsPerMaster = 3
)

// newAgents makes up the agents of three levels, parents first, and returns
// from which index on they are of the lowest. Nobody earns more than the one
// above.
func newAgents(rng *rand.Rand, numPlayers int, tag string) (agents []agent, firstLowest int) {
	numAgents := max(agentsPerSenior, numPlayers/playersPerAgent)
	numSeniors := (numAgents + agentsPerSenior - 1) / agentsPerSenior
	numMasters := (numSeniors + seniorsPerMaster - 1) / seniorsPerMaster

	for n := range numMasters {
		agents = append(agents, agent{
			code:       "m-" + tag + "-" + strconv.Itoa(n+1),
			rollingPPM: money.RatePPM(9000 + stepPPM*rng.Int32N(5)),
		})
	}
	for n := range numSeniors {
		agents = append(agents, below(rng, agents[n%numMasters], "s-"+tag+"-"+strconv.Itoa(n+1)))
	}
	for n := range numAgents {
		agents = append(agents, below(rng, agents[numMasters+n%numSeniors], "a-"+tag+"-"+strconv.Itoa(n+1)))
	}
	return agents, numMasters + numSeniors
}

// below makes up an agent under parent, at a rate that is 0 to 2,000 ppm lower.
func below(rng *rand.Rand, parent agent, code string) agent {
	return agent{
		code:       code,
		parent:     parent.code,
		rollingPPM: parent.rollingPPM - money.RatePPM(stepPPM*rng.Int32N(5)),
	}
}

// pickAgent draws an agent; the first ones have most of the players.
func pickAgent(rng *rand.Rand, agents []agent) int32 {
	n := int32(len(agents))
	return min(rng.Int32N(n), rng.Int32N(n))
}

func (a *agent) line() activity.Line {
	return activity.Line{Type: activity.TypeAgent, Agent: a.code, Parent: a.parent, RollingPPM: a.rollingPPM}
}
