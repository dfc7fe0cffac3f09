package settlement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
)

// errUnbooked rolls back the end of a run whose credits are not what the ledger says.
var errUnbooked = errors.New("credited items are not in the ledger")

// endPass ends the run, or says what the next pass is to deliver.
func (h *hold) endPass(ctx context.Context, spent bool) (*Verdict, error) {
	var verdict *Verdict
	var failure error
	var numUnbooked int64
	err := pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		state := stateDelivering
		if spent {
			state = h.row.SettlementRun.State
		}
		if err := h.lockParent(ctx, tx); err != nil {
			return err
		}
		if _, err := h.fence(ctx, tx, state); err != nil {
			return err
		}
		counts, err := queries.SettlementItemCount(ctx, tx, &dbsqlc.SettlementItemCountParams{RunID: h.runID})
		if err != nil {
			return fmt.Errorf("count items: %w", err)
		}
		last := spent || h.row.SettlementRun.Attempt >= h.row.SettlementRun.MaxAttempts
		if end, jobEnd := endOf(counts, last, h.terms.OnPartial); end {
			if counts.NumPending > 0 {
				params := dbsqlc.SettlementItemFailPendingParams{FailureCode: "not_attempted", RunID: h.runID}
				numGivenUp, err := queries.SettlementItemFailPending(ctx, tx, &params)
				if err != nil {
					return fmt.Errorf("give up what no attempt got to: %w", err)
				}
				if numGivenUp != counts.NumPending {
					return fmt.Errorf("give up what no attempt got to: %d of %d items were changed: %w", numGivenUp, counts.NumPending, pgtx.ErrRowCount)
				}
			}
			numUnbooked, err = queries.SettlementItemUnbooked(ctx, tx, &dbsqlc.SettlementItemUnbookedParams{RunID: h.runID})
			if err != nil {
				return fmt.Errorf("compare with the ledger: %w", err)
			}
			if numUnbooked > 0 {
				return errUnbooked
			}
			if verdict, err = h.finish(ctx, tx, jobEnd); err != nil {
				return err
			}
			failure = verdict.endError()
			return nil
		}
		if verdict, err = h.failedPass(ctx, tx, counts); err != nil {
			return err
		}
		failure = verdict.partialError()
		if counts.NumCredited == 0 {
			failure = verdict.noneError()
		}
		return h.recordFailedPass(ctx, tx, verdict, failure)
	})
	if errors.Is(err, errUnbooked) {
		return h.abort(ctx, abortInvariant, fmt.Sprintf("%d of the items that it credited are not in the ledger with their reference, player and amount", numUnbooked))
	}
	if err != nil {
		return nil, err
	}
	if verdict.Result.State == stateDone {
		verdict.log(ctx, h.runner.logger)
	} else {
		verdict.logPass(ctx, h.runner.logger)
	}
	return verdict, failure
}

// lockParent comes before a retry's own lock where the retry may end, which ends the
// alarms of its parent. Whoever makes the next retry holds the parent, and waits for
// this one.
func (h *hold) lockParent(ctx context.Context, tx pgx.Tx) error {
	if h.row.SettlementRun.ParentID == nil {
		return nil
	}
	if _, err := lockParent(ctx, tx, h.runID); err != nil {
		return fmt.Errorf("lock its parent: %w", err)
	}
	return nil
}

// endOf says whether a run ends after a pass, and how its job does then.
func endOf(counts *dbsqlc.SettlementItemCountRow, last bool, onPartial programme.OnPartial) (end bool, jobEnd string) {
	undelivered := counts.NumFailed + counts.NumPending
	forNow := counts.NumFailedForNow + counts.NumPending
	switch {
	case undelivered == 0:
		return true, jobCompleted
	case counts.NumCredited == 0:
		// However final the refusals look: when all are refused, the cause may well
		// lie elsewhere, and a frozen wallet may thaw.
		return last, jobFailed
	case forNow > 0:
		return last, jobFailed
	case onPartial == programme.OnPartialError:
		return true, jobFailed
	default:
		return true, jobCompleted
	}
}

// failedPass is the verdict of a pass that left something undelivered. The run's
// own counts come with its end.
func (h *hold) failedPass(ctx context.Context, tx pgx.Tx, counts *dbsqlc.SettlementItemCountRow) (*Verdict, error) {
	verdict, err := readVerdict(ctx, tx, h.runID)
	if err != nil {
		return nil, err
	}
	result := &verdict.Result
	result.Credited, result.Failed, result.Pending, result.Withheld = &counts.NumCredited, &counts.NumFailed, &counts.NumPending, &counts.NumWithheld
	return verdict, nil
}

// recordFailedPass stores what the job of a pass fails with. The next attempt of
// the job is the next pass.
func (h *hold) recordFailedPass(ctx context.Context, tx pgx.Tx, verdict *Verdict, failure error) error {
	if err := queries.SettlementRunEndPass(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunEndPassParams{ID: h.runID}); err != nil {
		return fmt.Errorf("end its pass: %w", err)
	}
	err := record(ctx, tx, h.runID, event{actor: h.actor(), detail: verdict.Summary(), kind: "pass_failed", reason: failure.Error()})
	if err != nil {
		return err
	}
	return h.runner.recorder.Record(ctx, tx, freshness.Progress{Err: failure, Kind: freshness.Failure, Loop: loopOf(h.row.ProgrammeKind)})
}

// finish ends a run in tx with the counts of its rows, and completes its job or
// records its failure, as the outcome says. The caller returns the verdict's
// error after the commit.
func (h *hold) finish(ctx context.Context, tx pgx.Tx, jobEnd string) (*Verdict, error) {
	_, err := queries.SettlementRunFinish(ctx, tx, &dbsqlc.SettlementRunFinishParams{ID: h.runID, JobEnd: &jobEnd})
	if err != nil {
		return nil, fmt.Errorf("store its outcome: %w", err)
	}
	verdict, err := readVerdict(ctx, tx, h.runID)
	if err != nil {
		return nil, err
	}
	if err := record(ctx, tx, h.runID, event{actor: h.actor(), detail: verdict.Summary(), kind: stateDone}); err != nil {
		return nil, err
	}
	if err := acknowledgeDelivered(ctx, tx, verdict, h.actor()); err != nil {
		return nil, err
	}
	if err := acknowledgeAccepted(ctx, tx, verdict, h.actor()); err != nil {
		return nil, err
	}
	progress := freshness.Progress{Kind: freshness.Success, Loop: loopOf(h.row.ProgrammeKind), Result: verdict.Summary()}
	if failure := verdict.endError(); failure != nil {
		progress.Err, progress.Kind = failure, freshness.Failure
		return verdict, h.runner.recorder.Record(ctx, tx, progress)
	}
	return verdict, h.complete(ctx, tx, progress)
}

// acknowledgeDelivered ends the alarms of a retry's parent, and of its earlier retries,
// once nothing of them is undelivered: whoever asked for the retry knew of them.
func acknowledgeDelivered(ctx context.Context, tx pgx.Tx, retry *Verdict, actor string) error {
	parentID := retry.Result.ParentRunID
	if parentID == 0 {
		return nil
	}
	reason := fmt.Sprintf("run %d has left nothing undelivered", retry.Result.RunID)
	ids, err := queries.SettlementRunAcknowledgeDelivered(ctx, tx, &dbsqlc.SettlementRunAcknowledgeDeliveredParams{
		AcknowledgeReason: reason, AcknowledgedBy: retry.Result.CreatedBy, ParentID: parentID,
	})
	if err != nil {
		return fmt.Errorf("acknowledge what its retries have mended: %w", err)
	}
	for _, id := range ids {
		err := record(ctx, tx, id, event{
			actor: actor, detail: map[string]any{"on_behalf_of": retry.Result.CreatedBy}, kind: "acknowledged", reason: reason,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// abort ends a run without an outcome, in a transaction of its own, and returns
// the error that its job ends with.
func (h *hold) abort(ctx context.Context, reason, detail string) (*Verdict, error) {
	var verdict *Verdict
	err := pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) (err error) {
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: h.runID})
		if err != nil {
			return fmt.Errorf("lock it: %w", err)
		}
		if row.SettlementRun.Epoch != h.epoch || isEnded(row.SettlementRun.State) {
			return ErrRunLost
		}
		verdict, err = h.abortIn(ctx, tx, reason, detail)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("abort it (%s: %s): %w", reason, detail, err)
	}
	verdict.log(ctx, h.runner.logger)
	ended := verdict.endError()
	return verdict, ended
}

// abortIn ends a run that the transaction has locked.
func (h *hold) abortIn(ctx context.Context, tx pgx.Tx, reason, detail string) (*Verdict, error) {
	failed := jobFailed
	if err := abortRun(ctx, tx, h.runID, abortion{actor: h.actor(), detail: detail, jobEnd: &failed, reason: reason}); err != nil {
		return nil, err
	}
	verdict, err := readVerdict(ctx, tx, h.runID)
	if err != nil {
		return nil, err
	}
	return verdict, h.runner.recorder.Record(ctx, tx, freshness.Progress{
		Err:  verdict.endError(),
		Kind: freshness.Failure,
		Loop: loopOf(h.row.ProgrammeKind),
	})
}
