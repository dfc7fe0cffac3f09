package settlement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// Retry makes a run that attempts again what an ended run left undelivered, and nothing
// else; of a retry, what its parent has left. The items stay the parent's, whose outcome
// stays what it was. Like every run that pays, it waits for approval unless its
// programme's terms say otherwise, and its budget is reserved anew; with too little, the
// result is an aborted run that has paid nothing.
//
// Fails with [fault.KindNotFound] for an unknown run, and with [fault.KindInvalid] for
// one that has not ended, never began to pay, or left nothing undelivered, and while
// another retry of it has not ended.
func (service *Service) Retry(ctx context.Context, decision Decision) (Result, error) {
	var retryID int64
	_, err := service.decide(ctx, "retry", decision, func(tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) error {
		parent, err := parentOf(ctx, tx, row)
		if err != nil {
			return err
		}
		left, err := undelivered(ctx, tx, parent)
		if err != nil {
			return err
		}
		retryID, err = queries.SettlementRunInsertRetry(ctx, tx, &dbsqlc.SettlementRunInsertRetryParams{
			CreatedBy: decision.By, EligibleMinor: left.AmountMinor, NumEligible: left.NumItems, ParentID: parent.SettlementRun.ID,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return unfinished(ctx, tx, &dbsqlc.SettlementRunUnfinishedParams{ParentID: &parent.SettlementRun.ID})
		}
		if err != nil {
			return fmt.Errorf("add the run: %w", err)
		}
		if err := recordRetry(ctx, tx, decision, parent.SettlementRun.ID, retryID, left); err != nil {
			return err
		}
		return service.sendOff(ctx, tx, retryID)
	})
	if err != nil {
		return Result{}, err
	}
	return service.Get(ctx, retryID)
}

// parentOf is the run whose items a retry attempts, locked: the run itself, or its
// parent.
func parentOf(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) (*dbsqlc.SettlementRunLockRow, error) {
	if row.SettlementRun.ParentID == nil {
		return row, nil
	}
	parent, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: *row.SettlementRun.ParentID})
	if err != nil {
		return nil, fmt.Errorf("lock its parent: %w", err)
	}
	return parent, nil
}

// undelivered counts what a run has left, which must be something.
func undelivered(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) (*dbsqlc.SettlementItemUndeliveredRow, error) {
	run := &row.SettlementRun
	switch {
	case !isEnded(run.State):
		return nil, fault.Invalid("run %d is %s: only what a run has left undelivered when it ends can be retried", run.ID, run.State)
	case run.State == stateAborted && run.StartedAt == nil:
		return nil, fault.Invalid("run %d was aborted before it began to pay, and left nothing to retry: truegreen settlement %s %s %s starts another",
			run.ID, map[bool]string{false: "run", true: "adjust"}[run.Kind == runAdjustment], row.Code, row.Key)
	}
	left, err := queries.SettlementItemUndelivered(ctx, tx, &dbsqlc.SettlementItemUndeliveredParams{RunID: run.ID})
	if err != nil {
		return nil, fmt.Errorf("count what run %d has left: %w", run.ID, err)
	}
	if left.NumItems == 0 {
		return nil, fault.Invalid("nothing of run %d is undelivered", run.ID)
	}
	return left, nil
}

// recordRetry tells both histories.
func recordRetry(ctx context.Context, tx pgx.Tx, decision Decision, parentID, retryID int64, left *dbsqlc.SettlementItemUndeliveredRow) error {
	err := record(ctx, tx, parentID, event{
		actor: decision.By, detail: map[string]any{"retry_run_id": retryID}, kind: "retried", reason: decision.Reason,
	})
	if err != nil {
		return err
	}
	return record(ctx, tx, retryID, event{
		actor:  decision.By,
		detail: map[string]any{"eligible_minor": fmt.Sprint(left.AmountMinor), "num_eligible": left.NumItems, "parent_run_id": parentID},
		kind:   "planned",
		reason: decision.Reason,
	})
}

// sendOff lets a calculated run deliver if its terms approve it, with its job, or wait
// for a person.
func (service *Service) sendOff(ctx context.Context, tx pgx.Tx, runID int64) error {
	row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: runID})
	if err != nil {
		return fmt.Errorf("lock it: %w", err)
	}
	approved, short, err := approveByTerms(ctx, tx, row)
	switch {
	case err != nil:
		return err
	case short != "":
		return abortRun(ctx, tx, runID, abortion{actor: autoApprover, detail: short, reason: abortBudget})
	case approved:
		return service.giveJob(ctx, tx, row.ProgrammeKind, runID, attemptsLeft(&row.SettlementRun))
	default:
		return nil
	}
}

// approveByTerms approves a run that owes less than its terms leave to nobody, or lets it
// wait for approval. Where the budget is too small, it does neither and says what is
// missing.
func approveByTerms(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) (approved bool, short string, err error) {
	terms, err := programme.Decode(row.Rules)
	if err != nil {
		return false, "", fmt.Errorf("read its terms: %w", err)
	}
	run := &row.SettlementRun
	owed := money.Minor(valueOr(run.EligibleMinor, 0))
	if limit := terms.AutoApproveBelow; limit == nil || owed >= *limit {
		if err := queries.SettlementRunAwaitApproval(ctx, tx, &dbsqlc.SettlementRunAwaitApprovalParams{ID: run.ID}); err != nil {
			return false, "", fmt.Errorf("let it wait for approval: %w", err)
		}
		return false, "", nil
	}
	if short, err = reserveFor(ctx, tx, row); err != nil || short != "" {
		return false, short, err
	}
	return true, "", approve(ctx, tx, run.ID, autoApprover, fmt.Sprintf("%d is below %d", owed, *terms.AutoApproveBelow))
}
