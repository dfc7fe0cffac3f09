package activity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
)

// askForPeople reads the agents that player lines name, or all of them when
// agents change, and the history of the players whose lines are here.
func (b *batch) askForPeople(ctx context.Context, pipeline *pgtx.Pipeline, rows *found) error {
	if b.needs.someAgents() {
		agents := dbsqlc.AgentFindParams{Codes: b.needs.agents, Everyone: b.needs.allAgents}
		err := pipeline.Ask("read agents", func(db pgtx.DB) (err error) {
			rows.agents, err = b.queries.AgentFind(ctx, db, &agents)
			return err
		})
		if err != nil {
			return err
		}
		lines := dbsqlc.AgentLineFindParams{Codes: b.needs.agents, Everyone: b.needs.allAgents}
		err = pipeline.Ask("read lines of agents", func(db pgtx.DB) (err error) {
			rows.agentLines, err = b.queries.AgentLineFind(ctx, db, &lines)
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(b.needs.playerLines) == 0 {
		return nil
	}
	players := dbsqlc.PlayerLineFindParams{PlayerCodes: b.needs.playerLines}
	return pipeline.Ask("read lines of players", func(db pgtx.DB) (err error) {
		rows.playerLines, err = b.queries.PlayerLineFind(ctx, db, &players)
		return err
	})
}

func (b *batch) takeAgents(rows *found) {
	for _, row := range rows.agents {
		b.agentOf(row.ID, row.Code)
	}
	for _, row := range rows.agentLines {
		someone, parent := b.agentsByID[row.AgentID], b.agentsByID[row.ParentID]
		someone.lines = append(someone.lines, agentLine{at: row.At, parent: parent, rate: money.RatePPM(row.RollingPpm)})
		if parent != nil {
			parent.agentsBelow = append(parent.agentsBelow, someone)
		}
	}
}

// agentOf returns the stored agent of an id, nil for 0. One that no line here
// names gets its code only.
func (b *batch) agentOf(id int64, code string) *agent {
	if id == 0 {
		return nil
	}
	someone := b.agentsByID[id]
	if someone == nil {
		someone = &agent{code: code, id: id}
		b.agentsByID[id] = someone
		b.agents[code] = someone
	}
	return someone
}

// takePlayers takes the history of players whose lines are here. A player who
// has no wallet in the book came after the locks, and does not count.
func (b *batch) takePlayers(rows *found) {
	for _, code := range b.needs.playerLines {
		if account := b.book.Account(code); account != nil && b.players[code] == nil {
			b.players[code] = &player{code: code, currency: account.Currency(), id: account.PlayerID()}
		}
	}
	b.takePlayerLines(rows.playerLines)
}

func (b *batch) takePlayerLines(rows []*dbsqlc.PlayerLineFindRow) {
	for _, row := range rows {
		someone := b.players[row.Code]
		if someone == nil {
			continue
		}
		above := b.agentOf(row.AgentID, row.AgentCode)
		someone.lines = append(someone.lines, playerLine{
			agent:  above,
			at:     row.At,
			rate:   money.RatePPM(row.RollingPpm),
			status: Status(row.Status),
			vip:    row.Vip,
		})
		if above != nil {
			above.playersBelow = append(above.playersBelow, someone)
		}
	}
}

// loadPlayersAbove reads the history of the players with a rate above the lowest
// that a line here gives their agent. Only where that is lower than the agent
// ever had: all others were checked when they came below it.
func (b *batch) loadPlayersAbove(ctx context.Context, tx pgx.Tx) error {
	params := b.loweredAgents()
	if len(params.AgentID) == 0 {
		return nil
	}
	rows, err := b.queries.PlayerFindAbove(ctx, tx, &params)
	if err != nil {
		return fmt.Errorf("read players with rates above their agents': %w", err)
	}
	var codes []string
	for _, row := range rows {
		if b.players[row.Code] == nil {
			b.players[row.Code] = &player{code: row.Code, id: row.ID}
			codes = append(codes, row.Code)
		}
	}
	if len(codes) == 0 {
		return nil
	}
	lines, err := b.queries.PlayerLineFind(ctx, tx, &dbsqlc.PlayerLineFindParams{PlayerCodes: codes})
	if err != nil {
		return fmt.Errorf("read lines of players: %w", err)
	}
	b.takePlayerLines(lines)
	return nil
}

// loweredAgents are the agents whom lines here give a rate that is lower than
// one they had, with the lowest such rate.
func (b *batch) loweredAgents() dbsqlc.PlayerFindAboveParams {
	lowest := make(map[int64]money.RatePPM)
	for i := range b.lines {
		line := &b.lines[i]
		if line.Type != TypeAgent || b.agents[line.Agent] == nil {
			continue
		}
		someone := b.agents[line.Agent]
		for _, stored := range someone.lines {
			if line.RollingPPM >= stored.rate {
				continue
			}
			if rate, there := lowest[someone.id]; !there || line.RollingPPM < rate {
				lowest[someone.id] = line.RollingPPM
			}
		}
	}
	var params dbsqlc.PlayerFindAboveParams
	for id, rate := range lowest {
		params.AgentID = append(params.AgentID, id)
		params.RollingPpm = append(params.RollingPpm, int32(rate))
	}
	return params
}
