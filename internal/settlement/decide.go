package settlement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

// Decision is what a person decided about a run.
type Decision struct {
	By     string // who; 1 to 200 characters
	Reason string // why; may be empty for an approval and a retry
	RunID  int64
}

// Approve lets a calculated run deliver, and inserts its job in the same
// transaction. Where the programme's budget has no room for all that the run owes, it
// is aborted instead, and has paid nothing.
//
// Fails with [fault.KindNotFound] for an unknown run, and with
// [fault.KindInvalid] unless it awaits approval, and by whom it was made.
func (service *Service) Approve(ctx context.Context, decision Decision) (Result, error) {
	return service.decide(ctx, "approve", decision, func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error {
		run := &row.SettlementRun
		switch {
		case run.State != stateAwaitingApproval:
			return fault.Invalid("it is %s, and only a run that awaits approval can be approved", describe(run))
		case run.CreatedBy == decision.By:
			return fault.Invalid("%s made it, so somebody else must approve it", decision.By)
		}
		budget, err := reserve(ctx, tx, row)
		if err != nil {
			return err
		}
		if budget.short != "" {
			return abortRun(ctx, tx, run.ID, abortion{actor: decision.By, detail: budget.short, reason: abortBudget})
		}
		if err := approve(ctx, tx, run.ID, budget, decision.By, decision.Reason); err != nil {
			return err
		}
		return service.giveJob(ctx, tx, row.ProgrammeKind, run.ID, attemptsLeft(run))
	})
}

// approve notes an approval, of a person or by the programme's terms, for which the
// budget has room.
func approve(ctx context.Context, tx pgx.Tx, runID int64, budget reservation, by, reason string) error {
	err := queries.SettlementRunApprove(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunApproveParams{
		ApprovedBy: by, BudgetVersionID: budget.versionID, ID: runID,
	})
	if err != nil {
		return fmt.Errorf("store the approval: %w", err)
	}
	return record(ctx, tx, runID, event{actor: by, kind: stateApproved, reason: reason})
}

// Reject ends a run that awaits approval. It pays nothing, and its period can be
// settled by another run.
//
// Fails with [fault.KindNotFound] and [fault.KindInvalid], as Approve does.
func (service *Service) Reject(ctx context.Context, decision Decision) (Result, error) {
	return service.decide(ctx, "reject", decision, func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error {
		if run := &row.SettlementRun; run.State != stateAwaitingApproval {
			return fault.Invalid("it is %s, and only a run that awaits approval can be rejected", describe(run))
		}
		return endByDecision(ctx, tx, decision, abortRejected)
	})
}

// Cancel ends a run that has not ended. One that has not begun to pay pays nothing, and
// its period can be settled by another run. One that delivers stops behind the chunk that
// it is in: what it paid stays paid, and Retry goes on with the rest.
//
// Fails with [fault.KindNotFound] for an unknown run, and with
// [fault.KindInvalid] for one that has ended.
func (service *Service) Cancel(ctx context.Context, decision Decision) (Result, error) {
	return service.decide(ctx, "cancel", decision, func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error {
		if run := &row.SettlementRun; isEnded(run.State) {
			return fault.Invalid("it is %s, and only a run that has not ended can be cancelled", describe(run))
		}
		return endByDecision(ctx, tx, decision, abortCancelled)
	})
}

// Acknowledge notes that a person knows what a run did not deliver, and whom it held
// back, which ends its alarms.
//
// Fails with [fault.KindNotFound] for an unknown run, and with
// [fault.KindInvalid] for one that leaves nothing to acknowledge.
func (service *Service) Acknowledge(ctx context.Context, decision Decision) (Result, error) {
	return service.decide(ctx, "acknowledge", decision, func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error {
		return acknowledge(ctx, tx, row, decision)
	})
}

func acknowledge(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow, decision Decision) error {
	run := &row.SettlementRun
	outcome := valueOr(run.Outcome, "")
	holdsBack, err := queries.SettlementItemHoldsBack(ctx, tx, &dbsqlc.SettlementItemHoldsBackParams{RunID: run.ID})
	if err != nil {
		return fmt.Errorf("look for whom it held back: %w", err)
	}
	holdsBack = holdsBack && run.HeldBackAcknowledgedAt == nil
	switch {
	case !isEnded(run.State):
		return fault.Invalid("it is %s, and only what has ended can be acknowledged", describe(run))
	case run.State != stateAborted && outcome != outcomePartial && outcome != outcomeNoneDelivered && !holdsBack:
		return fault.Invalid("it is %s, which leaves nothing to acknowledge", describe(run))
	case run.AcknowledgedAt != nil && !holdsBack:
		return fault.Invalid("%s has acknowledged it at %s", valueOr(run.AcknowledgedBy, ""), run.AcknowledgedAt.UTC().Format(time.RFC3339))
	}
	err = queries.SettlementRunAcknowledge(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunAcknowledgeParams{
		AcknowledgeReason: decision.Reason,
		AcknowledgedBy:    decision.By,
		HoldsBack:         holdsBack,
		ID:                run.ID,
	})
	if err != nil {
		return fmt.Errorf("store the acknowledgement: %w", err)
	}
	return record(ctx, tx, run.ID, event{actor: decision.By, kind: "acknowledged", reason: decision.Reason})
}

// checkPerson refuses the name under which terms approve: who used it would seem to be
// them, and could not be told from the checker of his own runs.
func checkPerson(by string) error {
	if by == autoApprover {
		return fault.Invalid("%s is the name under which programmes approve by their terms: give another with --as", autoApprover)
	}
	return nil
}

// noRun refuses a number that no run has.
func noRun(ctx context.Context, db dbsqlc.DBTX, runID int64) error {
	newest, err := queries.SettlementRunNewest(ctx, db)
	switch {
	case err != nil:
		return fmt.Errorf("look for the newest run: %w", err)
	case newest == 0:
		return fault.NotFound("there is no run %d, and no other yet", runID)
	}
	return fault.NotFound("there is no run %d; the newest is %d: see truegreen settlement list", runID, newest)
}

// decide runs fn in a transaction that has locked the run.
func (service *Service) decide(
	ctx context.Context, act string, decision Decision,
	fn func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error,
) (Result, error) {
	var result Result
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(decision.By); err != nil {
			return err
		}
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: decision.RunID})
		if errors.Is(err, pgx.ErrNoRows) {
			return noRun(ctx, tx, decision.RunID)
		}
		if err != nil {
			return fmt.Errorf("lock it: %w", err)
		}
		if err := fn(tx, row); err != nil {
			return err
		}
		result, err = readResult(ctx, tx, decision.RunID)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("%s run %d: %w", act, decision.RunID, err)
	}
	return result, nil
}

func endByDecision(ctx context.Context, tx pgx.Tx, decision Decision, reason string) error {
	return abortRun(ctx, tx, decision.RunID, abortion{
		actor:     decision.By,
		decidedBy: &decision.By,
		detail:    decision.Reason,
		reason:    reason,
	})
}

// abortion is how a run ends without an outcome.
type abortion struct {
	actor     string
	decidedBy *string // who acknowledges it at once, having decided it
	detail    string
	jobEnd    *string
	reason    string
}

// abortRun ends a run without an outcome. If it has not begun to pay, its claims
// are given up; what it has paid, and what it still owes, stays as it is.
func abortRun(ctx context.Context, tx pgx.Tx, runID int64, how abortion) error {
	numKept, err := queries.SettlementItemVoid(ctx, tx, &dbsqlc.SettlementItemVoidParams{RunID: runID})
	if err != nil {
		return fmt.Errorf("give up its claims: %w", err)
	}
	if numKept > 0 {
		return fmt.Errorf("give up its claims: %d of them were not changed: %w", numKept, pgtx.ErrRowCount)
	}
	err = queries.SettlementRunAbort(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunAbortParams{
		AbortDetail: how.detail,
		AbortReason: how.reason,
		DecidedBy:   how.decidedBy,
		ID:          runID,
		JobEnd:      how.jobEnd,
	})
	if err != nil {
		return fmt.Errorf("end it: %w", err)
	}
	return record(ctx, tx, runID, event{
		actor:  how.actor,
		detail: map[string]any{"reason": how.reason},
		kind:   stateAborted,
		reason: how.detail,
	})
}

// describe is a run's state and outcome in a word or two.
func describe(run *dbsqlc.SettlementRun) string {
	if run.Outcome != nil {
		return run.State + " (" + *run.Outcome + ")"
	}
	return run.State
}
