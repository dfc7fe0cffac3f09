package settlement

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

// maxAcceptance is how long at most something may be accepted before somebody has to
// think of it again.
const maxAcceptance = 366 * 24 * time.Hour

// acceptedCodes are the failures that may be accepted: what is so until a person
// changes it, and is no fault of ours.
var acceptedCodes = []string{"wallet_closed", "wallet_frozen", "wallet_missing"}

// Acceptance is what somebody knows that settlements cannot deliver.
type Acceptance struct {
	AcceptedAt  time.Time
	By          string
	ExpiresAt   time.Time
	FailureCode string
	ID          int64
	MaxCredits  int    // in one run, where no player is named; 0 otherwise
	Player      string // code; empty for every player of the programme
	Programme   string // code; empty for every programme
	Reason      string
}

// Accept lets partial runs whose failed credits are all accepted end without an alarm:
// they are acknowledged in the name of whoever accepted. It concerns runs that end
// from now on, until it expires or is revoked.
//
// Fails with [fault.KindInvalid] and, for an unknown player or programme,
// [fault.KindNotFound].
func (service *Service) Accept(ctx context.Context, accepted Acceptance) (Acceptance, error) {
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(accepted.By); err != nil {
			return err
		}
		now, err := databaseNow(ctx, tx)
		if err != nil {
			return err
		}
		switch {
		case accepted.Player == "" && accepted.Programme == "":
			return fault.Invalid("a player or a programme is required")
		case accepted.Player == "" && (accepted.MaxCredits < 1 || accepted.MaxCredits > math.MaxInt32):
			return fault.Invalid("for a whole programme the number of credits in one run that may fail is required, at least 1")
		case accepted.Player != "" && accepted.MaxCredits != 0:
			return fault.Invalid("a number of credits is for a whole programme, not for one player")
		case !slices.Contains(acceptedCodes, accepted.FailureCode):
			return fault.Invalid("failure %q cannot be accepted; there are %s", accepted.FailureCode, strings.Join(acceptedCodes, ", "))
		case !accepted.ExpiresAt.After(now) || accepted.ExpiresAt.Sub(now) > maxAcceptance:
			return fault.Invalid("it must expire within a year from now, got %s", accepted.ExpiresAt.UTC().Format(time.RFC3339))
		}
		if accepted.Programme != "" {
			if err := service.checkCode(ctx, accepted.Programme); err != nil {
				return err
			}
		}
		var maxCredits *int32
		if accepted.Player == "" {
			maxCredits = new(int32(accepted.MaxCredits))
		}
		accepted.ID, err = queries.SettlementAcceptanceInsert(ctx, tx, &dbsqlc.SettlementAcceptanceInsertParams{
			AcceptedBy: accepted.By, ExpiresAt: accepted.ExpiresAt, FailureCode: accepted.FailureCode, MaxCredits: maxCredits,
			Player: accepted.Player, Programme: accepted.Programme, Reason: accepted.Reason,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.NotFound("there is no player %s", accepted.Player)
		}
		return err
	})
	if err != nil {
		return Acceptance{}, fmt.Errorf("accept: %w", err)
	}
	return accepted, nil
}

// Accepted lists the acceptances that are in force, the oldest first.
func (service *Service) Accepted(ctx context.Context) ([]Acceptance, error) {
	rows, err := queries.SettlementAcceptanceList(ctx, service.pool)
	if err != nil {
		return nil, fmt.Errorf("list what is accepted: %w", err)
	}
	list := make([]Acceptance, 0, len(rows))
	for _, row := range rows {
		list = append(list, Acceptance{
			AcceptedAt: row.AcceptedAt, By: row.AcceptedBy, ExpiresAt: row.ExpiresAt, FailureCode: row.FailureCode,
			ID: row.ID, MaxCredits: int(row.MaxCredits), Player: row.Player, Programme: row.Programme, Reason: row.Reason,
		})
	}
	return list, nil
}

// RevokeAcceptance ends an acceptance. Runs that were acknowledged by it stay so.
// Fails with [fault.KindNotFound] for one that does not exist, or was revoked.
func (service *Service) RevokeAcceptance(ctx context.Context, id int64, by, reason string) error {
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(by); err != nil {
			return err
		}
		num, err := queries.SettlementAcceptanceRevoke(ctx, tx, &dbsqlc.SettlementAcceptanceRevokeParams{ID: id, RevokeReason: reason, RevokedBy: by})
		if err == nil && num == 0 {
			return fault.NotFound("there is no acceptance %d that is not revoked: see truegreen settlement accepted", id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke acceptance %d: %w", id, err)
	}
	return nil
}

// acknowledgeAccepted acknowledges a partial run that has just ended, if all that it
// did not deliver is accepted.
func acknowledgeAccepted(ctx context.Context, tx pgx.Tx, verdict *Verdict, actor string) error {
	if verdict.Result.Outcome != outcomePartial {
		return nil // one that paid nobody is always somebody's business
	}
	runID := verdict.Result.RunID
	cover, err := queries.SettlementAcceptanceCover(ctx, tx, &dbsqlc.SettlementAcceptanceCoverParams{RunID: runID})
	if err != nil {
		return fmt.Errorf("look for what is accepted: %w", err)
	}
	if !cover.IsCovered {
		return nil
	}
	holdsBack, err := queries.SettlementItemHoldsBack(ctx, tx, &dbsqlc.SettlementItemHoldsBackParams{RunID: runID})
	if err != nil || holdsBack {
		return err
	}
	const reason = "all that it did not deliver is accepted: see truegreen settlement accepted"
	err = queries.SettlementRunAcknowledge(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunAcknowledgeParams{AcknowledgeReason: reason, AcknowledgedBy: cover.AcceptedBy, ID: runID})
	if err != nil {
		return fmt.Errorf("acknowledge what is accepted: %w", err)
	}
	verdict.isAccepted = true
	return record(ctx, tx, runID, event{
		actor: actor, detail: map[string]any{"acceptances": cover.Ids, "on_behalf_of": cover.AcceptedBy}, kind: "acknowledged", reason: reason,
	})
}
