package app

import (
	"context"

	"truegreen/internal/cli"
	"truegreen/internal/settlement"
)

// SettlementAccept lets partial runs that fail for what is accepted end without an alarm.
func (actions *actions) SettlementAccept(ctx context.Context, accepted cli.SettlementAcceptance) (cli.SettlementAcceptance, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.SettlementAcceptance, error) {
		stored, err := service.Accept(ctx, settlement.Acceptance{
			By: accepted.As, ExpiresAt: accepted.ExpiresAt, FailureCode: accepted.Failure, MaxCredits: accepted.MaxCredits,
			Player: accepted.Player, Programme: accepted.Programme, Reason: accepted.Reason,
		})
		return settlementAcceptance(stored), err
	})
}

// SettlementAccepted lists the acceptances that are in force.
func (actions *actions) SettlementAccepted(ctx context.Context) ([]cli.SettlementAcceptance, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.SettlementAcceptance, error) {
		list, err := service.Accepted(ctx)
		shown := make([]cli.SettlementAcceptance, 0, len(list))
		for _, one := range list {
			shown = append(shown, settlementAcceptance(one))
		}
		return shown, err
	})
}

// SettlementUnaccept revokes an acceptance.
func (actions *actions) SettlementUnaccept(ctx context.Context, id int64, as, reason string) error {
	_, err := withSettlement(ctx, actions, func(service *settlement.Service) (struct{}, error) {
		return struct{}{}, service.RevokeAcceptance(ctx, id, as, reason)
	})
	return err
}

func settlementAcceptance(one settlement.Acceptance) cli.SettlementAcceptance {
	return cli.SettlementAcceptance{
		AcceptedAt: one.AcceptedAt, As: one.By, ExpiresAt: one.ExpiresAt, Failure: one.FailureCode,
		ID: one.ID, MaxCredits: one.MaxCredits, Player: one.Player, Programme: one.Programme, Reason: one.Reason,
	}
}
