package activity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// insertAgents adds the new agents and learns their ids. In order of their
// codes, so that two transactions that add the same ones do not deadlock.
func (b *batch) insertAgents(ctx context.Context, tx pgx.Tx) error {
	var added []*agent
	for _, someone := range b.agentsTouched {
		if someone.id == 0 {
			added = append(added, someone)
		}
	}
	if len(added) == 0 {
		return nil
	}
	slices.SortFunc(added, func(a, b *agent) int { return strings.Compare(a.code, b.code) })

	var params dbsqlc.AgentInsertParams
	for _, someone := range added {
		newest := someone.newest()
		params.AsOf = append(params.AsOf, newest.at)
		params.Code = append(params.Code, someone.code)
		params.RegisteredAt = append(params.RegisteredAt, someone.lines[0].at)
		params.RollingPpm = append(params.RollingPpm, int32(newest.rate))
	}
	rows, err := b.queries.AgentInsert(ctx, tx, &params)
	if err != nil {
		return fmt.Errorf("add %d agents: %w", len(added), err)
	}
	for _, row := range rows {
		b.agents[row.Code].id = row.ID
	}
	return nil
}

// storeAgents brings the agents that have new lines up to date. Those just added
// get their parents by it.
func (b *batch) storeAgents(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.agentsTouched) == 0 {
		return nil
	}
	var current dbsqlc.AgentUpdateParams
	var history dbsqlc.AgentLineInsertParams
	for _, someone := range b.agentsTouched {
		newest := someone.newest()
		current.AsOf = append(current.AsOf, newest.at)
		current.ID = append(current.ID, someone.id)
		current.ParentID = append(current.ParentID, idOf(newest.parent))
		current.RegisteredAt = append(current.RegisteredAt, someone.lines[0].at)
		current.RollingPpm = append(current.RollingPpm, int32(newest.rate))
		for _, line := range someone.lines {
			if !line.isNew {
				continue
			}
			history.AgentID = append(history.AgentID, someone.id)
			history.At = append(history.At, line.at)
			history.ParentID = append(history.ParentID, idOf(line.parent))
			history.RollingPpm = append(history.RollingPpm, int32(line.rate))
		}
	}

	n := len(current.ID)
	if err := b.queries.AgentUpdate(ctx, pipeline.Step(fmt.Sprintf("update %d agents", n), n), &current); err != nil {
		return err
	}
	n = len(history.AgentID)
	return b.queries.AgentLineInsert(ctx, pipeline.Step(fmt.Sprintf("add %d lines of agents", n), n), &history)
}

// insertPlayers adds the new players, in order of their codes, and returns
// their ids by code.
func (b *batch) insertPlayers(ctx context.Context, tx pgx.Tx) (map[string]int64, error) {
	var added []*player
	for _, someone := range b.playersTouched {
		if someone.id == 0 {
			added = append(added, someone)
		}
	}
	if len(added) == 0 {
		return nil, nil
	}
	slices.SortFunc(added, func(a, b *player) int { return strings.Compare(a.code, b.code) })

	var params dbsqlc.PlayerInsertParams
	for _, someone := range added {
		newest := someone.newest()
		params.AgentID = append(params.AgentID, idOf(newest.agent))
		params.AsOf = append(params.AsOf, newest.at)
		params.Code = append(params.Code, someone.code)
		params.Currency = append(params.Currency, someone.currency)
		params.RegisteredAt = append(params.RegisteredAt, someone.lines[0].at)
		params.RollingPpm = append(params.RollingPpm, int32(newest.rate))
		params.Status = append(params.Status, string(newest.status))
		params.Vip = append(params.Vip, newest.vip)
	}
	rows, err := b.queries.PlayerInsert(ctx, tx, &params)
	if err != nil {
		return nil, fmt.Errorf("add %d players: %w", len(added), err)
	}
	ids := make(map[string]int64, len(rows))
	for _, row := range rows {
		b.players[row.Code].id = row.ID
		ids[row.Code] = row.ID
	}
	return ids, nil
}

// storePlayers adds the new lines of players, and brings those up to date that
// were there before.
func (b *batch) storePlayers(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.playersTouched) == 0 {
		return nil
	}
	var current dbsqlc.PlayerUpdateParams
	var history dbsqlc.PlayerLineInsertParams
	for _, someone := range b.playersTouched {
		wasThere := false
		for _, line := range someone.lines {
			if !line.isNew {
				wasThere = true
				continue
			}
			history.AgentID = append(history.AgentID, idOf(line.agent))
			history.At = append(history.At, line.at)
			history.PlayerID = append(history.PlayerID, someone.id)
			history.RollingPpm = append(history.RollingPpm, int32(line.rate))
			history.Status = append(history.Status, string(line.status))
			history.Vip = append(history.Vip, line.vip)
		}
		if !wasThere {
			continue
		}
		newest := someone.newest()
		current.AgentID = append(current.AgentID, idOf(newest.agent))
		current.AsOf = append(current.AsOf, newest.at)
		current.ID = append(current.ID, someone.id)
		current.RegisteredAt = append(current.RegisteredAt, someone.lines[0].at)
		current.RollingPpm = append(current.RollingPpm, int32(newest.rate))
		current.Status = append(current.Status, string(newest.status))
		current.Vip = append(current.Vip, newest.vip)
	}

	if n := len(current.ID); n > 0 {
		if err := b.queries.PlayerUpdate(ctx, pipeline.Step(fmt.Sprintf("update %d players", n), n), &current); err != nil {
			return err
		}
	}
	n := len(history.PlayerID)
	return b.queries.PlayerLineInsert(ctx, pipeline.Step(fmt.Sprintf("add %d lines of players", n), n), &history)
}

func idOf(someone *agent) int64 {
	if someone == nil {
		return 0
	}
	return someone.id
}
