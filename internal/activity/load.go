package activity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

// found is what the database knows of what the lines name.
type found struct {
	agentLines  []*dbsqlc.AgentLineFindRow
	agents      []*dbsqlc.AgentFindRow
	bets        []*dbsqlc.BetFindRow
	payments    []*dbsqlc.PaymentFindRow
	playerLines []*dbsqlc.PlayerLineFindRow
	watermarks  []*dbsqlc.InputWatermarkFindRow
}

// load locks what the lines change and then reads what they need, in one round
// trip. Each read is a statement of its own behind the locks, so it sees what
// the transaction did that held them before.
func (b *batch) load(ctx context.Context, tx pgx.Tx, wallets *wallet.Service) error {
	b.needs = needsOf(b.lines)
	var pipeline pgtx.Pipeline
	var rows found
	if err := b.lock(ctx, &pipeline, wallets); err != nil {
		return err
	}
	for _, read := range []func(context.Context, *pgtx.Pipeline, *found) error{
		b.askForPeople, b.askForPayments, b.askForBets, b.askForWatermarks,
	} {
		if err := read(ctx, &pipeline, &rows); err != nil {
			return err
		}
	}
	if err := pipeline.Send(ctx, tx); err != nil {
		return fmt.Errorf("load activity: %w", err)
	}

	b.takeAgents(&rows)
	b.takePlayers(&rows)
	b.takeMoney(&rows)
	for _, row := range rows.watermarks {
		b.watermarks[row.Source] = &watermark{at: row.At, source: row.Source}
	}
	return b.loadPlayersAbove(ctx, tx)
}

// lock locks agents before wallets, always.
func (b *batch) lock(ctx context.Context, pipeline *pgtx.Pipeline, wallets *wallet.Service) error {
	var err error
	switch {
	case b.needs.allAgents:
		err = b.queries.AgentLockTree(ctx, pipeline.Step("lock agents", pgtx.AnyRows))
	case b.needs.someAgents():
		err = b.queries.AgentLockTreeShared(ctx, pipeline.Step("lock agents", pgtx.AnyRows))
	}
	if err != nil {
		return fmt.Errorf("lock agents: %w", err)
	}
	if !b.needs.wallets() {
		b.book = wallets.NewBook()
		return nil
	}
	b.book, err = wallets.Lock(ctx, pipeline, wallet.Owners{Bets: b.needs.betsElsewhere, Players: b.needs.players})
	return err
}

func (b *batch) askForPayments(ctx context.Context, pipeline *pgtx.Pipeline, rows *found) error {
	if len(b.needs.payments) == 0 {
		return nil
	}
	params := dbsqlc.PaymentFindParams{Kinds: b.needs.paymentKinds, Refs: b.needs.payments}
	return pipeline.Ask("read payments", func(db pgtx.DB) (err error) {
		rows.payments, err = b.queries.PaymentFind(ctx, db, &params)
		return err
	})
}

func (b *batch) askForBets(ctx context.Context, pipeline *pgtx.Pipeline, rows *found) error {
	if len(b.needs.bets) == 0 {
		return nil
	}
	params := dbsqlc.BetFindParams{Refs: b.needs.bets}
	return pipeline.Ask("read bets", func(db pgtx.DB) (err error) {
		rows.bets, err = b.queries.BetFind(ctx, db, &params)
		return err
	})
}

func (b *batch) askForWatermarks(ctx context.Context, pipeline *pgtx.Pipeline, rows *found) error {
	if len(b.needs.sources) == 0 {
		return nil
	}
	params := dbsqlc.InputWatermarkFindParams{Sources: b.needs.sources}
	return pipeline.Ask("read watermarks", func(db pgtx.DB) (err error) {
		rows.watermarks, err = b.queries.InputWatermarkFind(ctx, db, &params)
		return err
	})
}

func (b *batch) takeMoney(rows *found) {
	if len(rows.payments) == 0 && len(rows.bets) == 0 {
		return
	}
	accounts := make(map[int64]*wallet.Account)
	for account := range b.book.Accounts() {
		accounts[account.PlayerID()] = account
	}
	for _, row := range rows.payments {
		key := paymentKey{id: row.Ref, lineType: Type(row.Kind)}
		b.payments[key] = &payment{
			account:    accounts[row.PlayerID],
			amount:     money.Minor(row.AmountMinor),
			at:         row.At,
			paymentKey: key,
			refused:    row.Refusal != nil,
		}
	}
	for _, row := range rows.bets {
		stored := &bet{
			account:  accounts[row.PlayerID],
			category: row.Category,
			fate:     fateOpen,
			id:       row.Ref,
			placedAt: row.PlacedAt,
			stake:    money.Minor(row.StakeMinor),
		}
		switch {
		case row.SettledAt != nil:
			stored.fate, stored.fatedAt, stored.payout = fateSettled, *row.SettledAt, money.Minor(*row.PayoutMinor)
		case row.VoidedAt != nil:
			stored.fate, stored.fatedAt = fateVoided, *row.VoidedAt
		case row.Refusal != nil:
			stored.fate = fateRefused
		}
		b.bets[row.Ref] = stored
	}
}
