package activity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// store writes what the lines changed. What is new gets its ids first; the rest
// goes in one round trip.
func (b *batch) store(ctx context.Context, tx pgx.Tx) error {
	if err := b.insertAgents(ctx, tx); err != nil {
		return err
	}
	playerIDs, err := b.insertPlayers(ctx, tx)
	if err != nil {
		return err
	}
	if err := b.book.CreateWallets(ctx, tx, playerIDs); err != nil {
		return err
	}

	var pipeline pgtx.Pipeline
	for _, write := range []func(context.Context, *pgtx.Pipeline) error{
		b.storeAgents, b.storePlayers, b.storePayments, b.storeNewBets, b.storeChangedBets,
		b.storeRollups, b.book.Flush,
		// Last: whoever else moves them waits for this transaction's end.
		b.storeWatermarks,
	} {
		if err := write(ctx, &pipeline); err != nil {
			return err
		}
	}
	if err := pipeline.Send(ctx, tx); err != nil {
		return fmt.Errorf("store activity: %w", err)
	}
	return nil
}

func (b *batch) storePayments(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.paymentsNew) == 0 {
		return nil
	}
	var params dbsqlc.PaymentInsertParams
	for _, added := range b.paymentsNew {
		params.AmountMinor = append(params.AmountMinor, int64(added.amount))
		params.At = append(params.At, added.at)
		params.Kind = append(params.Kind, string(added.lineType))
		params.PlayerID = append(params.PlayerID, added.account.PlayerID())
		params.Ref = append(params.Ref, added.id)
		params.Refused = append(params.Refused, added.refused)
	}
	n := len(b.paymentsNew)
	return b.queries.PaymentInsert(ctx, pipeline.Step(fmt.Sprintf("add %d payments", n), n), &params)
}

func (b *batch) storeNewBets(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.betsNew) == 0 {
		return nil
	}
	var params dbsqlc.BetInsertParams
	for _, added := range b.betsNew {
		fatedAt := added.fatedAt
		if fatedAt.IsZero() {
			fatedAt = added.placedAt // arrays hold no NULL; not stored
		}
		params.Category = append(params.Category, added.category)
		params.Fate = append(params.Fate, string(added.fate))
		params.FatedAt = append(params.FatedAt, fatedAt)
		params.PayoutMinor = append(params.PayoutMinor, int64(added.payout))
		params.PlacedAt = append(params.PlacedAt, added.placedAt)
		params.PlayerID = append(params.PlayerID, added.account.PlayerID())
		params.Ref = append(params.Ref, added.id)
		params.StakeMinor = append(params.StakeMinor, int64(added.stake))
	}
	n := len(b.betsNew)
	return b.queries.BetInsert(ctx, pipeline.Step(fmt.Sprintf("add %d bets", n), n), &params)
}

func (b *batch) storeChangedBets(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.betsChanged) == 0 {
		return nil
	}
	var params dbsqlc.BetUpdateParams
	for _, changed := range b.betsChanged {
		params.Fate = append(params.Fate, string(changed.fate))
		params.FatedAt = append(params.FatedAt, changed.fatedAt)
		params.PayoutMinor = append(params.PayoutMinor, int64(changed.payout))
		params.Ref = append(params.Ref, changed.id)
	}
	n := len(b.betsChanged)
	return b.queries.BetUpdate(ctx, pipeline.Step(fmt.Sprintf("settle or void %d bets", n), n), &params)
}

func (b *batch) storeRollups(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.rollupsTouched) == 0 {
		return nil
	}
	var params dbsqlc.ActivityRollupAddParams
	for _, sums := range b.rollupsTouched {
		params.Category = append(params.Category, sums.category)
		params.NumBets = append(params.NumBets, sums.numBets)
		params.PayoutMinor = append(params.PayoutMinor, int64(sums.payout))
		params.PlayerID = append(params.PlayerID, sums.account.PlayerID())
		params.QuarterAt = append(params.QuarterAt, sums.quarter)
		params.RiskMinor = append(params.RiskMinor, int64(sums.risk))
		params.StakeMinor = append(params.StakeMinor, int64(sums.stake))
	}
	n := len(b.rollupsTouched)
	return b.queries.ActivityRollupAdd(ctx, pipeline.Step(fmt.Sprintf("add to %d rollups", n), n), &params)
}

func (b *batch) storeWatermarks(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(b.watermarksMoved) == 0 {
		return nil
	}
	var params dbsqlc.InputWatermarkAdvanceParams
	for _, mark := range b.watermarksMoved {
		params.At = append(params.At, mark.at)
		params.Source = append(params.Source, mark.source)
	}
	n := len(params.Source)
	return b.queries.InputWatermarkAdvance(ctx, pipeline.Step(fmt.Sprintf("move %d watermarks", n), n), &params)
}
