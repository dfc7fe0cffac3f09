package settlement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
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
	var result Result
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(decision.By); err != nil {
			return err
		}
		parent, err := lockParent(ctx, tx, decision.RunID)
		if err != nil {
			return err
		}
		if err := mayHaveLeft(parent); err != nil {
			return err
		}
		retryID, err := insertRetry(ctx, tx, decision, parent.SettlementRun.ID)
		if err != nil {
			return err
		}
		if err := service.sendOff(ctx, tx, retryID); err != nil {
			return err
		}
		result, err = readResult(ctx, tx, retryID)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("retry run %d: %w", decision.RunID, err)
	}
	return result, nil
}

// lockParent locks the run whose items a retry of this run attempts: the run itself, or
// its parent. Retries are never locked before their parent.
func lockParent(ctx context.Context, tx pgx.Tx, runID int64) (*dbsqlc.SettlementRunLockRow, error) {
	parentID, err := queries.SettlementRunFamily(ctx, tx, &dbsqlc.SettlementRunFamilyParams{ID: runID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noRun(ctx, tx, runID)
	}
	if err != nil {
		return nil, fmt.Errorf("look for its parent: %w", err)
	}
	parent, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: parentID})
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	return parent, nil
}

// mayHaveLeft refuses a run that cannot have left anything.
func mayHaveLeft(row *dbsqlc.SettlementRunLockRow) error {
	run := &row.SettlementRun
	switch {
	case !isEnded(run.State):
		return fault.Invalid("run %d is %s: only what a run has left undelivered when it ends can be retried", run.ID, run.State)
	case run.State == stateAborted && run.StartedAt == nil:
		return fault.Invalid("run %d was aborted before it began to pay, and left nothing to retry: truegreen settlement %s %s %s starts another",
			run.ID, map[bool]string{false: "run", true: "adjust"}[run.Kind == runAdjustment], row.Code, row.Key)
	default:
		return nil
	}
}

// insertRetry adds the run, and then counts what is left: from then on nobody else
// delivers any of it.
func insertRetry(ctx context.Context, tx pgx.Tx, decision Decision, parentID int64) (int64, error) {
	retryID, err := queries.SettlementRunInsertRetry(ctx, tx, &dbsqlc.SettlementRunInsertRetryParams{CreatedBy: decision.By, ParentID: parentID})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, unfinished(ctx, tx, &dbsqlc.SettlementRunUnfinishedParams{ParentID: &parentID})
	}
	if err != nil {
		return 0, fmt.Errorf("add the run: %w", err)
	}
	left, err := queries.SettlementRunCountRetry(ctx, tx, &dbsqlc.SettlementRunCountRetryParams{ID: retryID, ParentID: parentID})
	if err != nil {
		return 0, fmt.Errorf("count what run %d has left: %w", parentID, err)
	}
	if left.NumEligible == 0 {
		return 0, fault.Invalid("nothing of run %d is undelivered", parentID)
	}
	return retryID, recordRetry(ctx, tx, decision, parentID, retryID, left)
}

// recordRetry tells both histories.
func recordRetry(ctx context.Context, tx pgx.Tx, decision Decision, parentID, retryID int64, left *dbsqlc.SettlementRunCountRetryRow) error {
	err := record(ctx, tx, parentID, event{
		actor: decision.By, detail: map[string]any{"retry_run_id": retryID}, kind: "retried", reason: decision.Reason,
	})
	if err != nil {
		return err
	}
	return record(ctx, tx, retryID, event{
		actor:  decision.By,
		detail: map[string]any{"eligible_minor": fmt.Sprint(left.EligibleMinor), "num_eligible": left.NumEligible, "parent_run_id": parentID},
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

// approveByTerms approves a run that owes less than the terms in force let pass without
// a person, or lets it wait for approval. Where the budget is too small, it does neither
// and says what is missing.
func approveByTerms(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) (approved bool, short string, err error) {
	p, err := termsInForce(ctx, tx, row.Code, row.Key)
	if err != nil {
		return false, "", err
	}
	run := &row.SettlementRun
	owed := money.Minor(valueOr(run.EligibleMinor, 0))
	limit := p.version.Terms.AutoApproveBelow
	if limit == nil || owed >= *limit {
		if err := queries.SettlementRunAwaitApproval(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunAwaitApprovalParams{ID: run.ID}); err != nil {
			return false, "", fmt.Errorf("let it wait for approval: %w", err)
		}
		return false, "", nil
	}
	budget, err := reserve(ctx, tx, row)
	if err != nil || budget.short != "" {
		return false, budget.short, err
	}
	return true, "", approve(ctx, tx, run.ID, budget, autoApprover, fmt.Sprintf("%d is below %d", owed, *limit))
}
