package settlement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// deliver makes one pass over what is undelivered, or goes on with the one that
// its predecessor had no time to end: chunk after chunk, each a transaction of
// its own, until nothing is left or its time is over.
func (h *hold) deliver(ctx context.Context) (*Verdict, error) {
	spent, err := h.beginPass(ctx)
	if err != nil {
		return nil, err
	}
	h.bisection = newBisection(h.runner.service.config.ChunkSize)
	numCredited, hasDelivered := 0, false
	for !spent {
		if ctx.Err() != nil {
			return nil, h.interrupted(ctx)
		}
		done, err := h.deliverChunk(ctx)
		switch {
		case isCountsDiffer(err) || isBookedBefore(err):
			return h.abort(ctx, abortInvariant, err.Error())
		case errors.Is(err, errSystemic):
			return h.abort(ctx, abortSystemic, err.Error())
		case err != nil && ctx.Err() != nil && !errors.Is(err, ErrRunLost):
			return nil, errors.Join(err, h.interrupted(ctx))
		case err != nil:
			return nil, err
		}
		numCredited += done.numCredited
		used := time.Since(h.started)
		if done.numClaimed == 0 {
			// The end of a large run compares all of it with the ledger, which takes its
			// time: a job of its own has enough.
			if hasDelivered && used >= h.runner.service.config.Slice/2 {
				return nil, h.slice(ctx, numCredited)
			}
			break
		}
		// After a chunk, so that each job brings the pass forward.
		hasDelivered = true
		if used >= h.runner.service.config.Slice {
			return nil, h.slice(ctx, numCredited)
		}
	}
	return h.endPass(ctx, spent)
}

// beginPass counts the pass before it does anything, in a transaction of its
// own, so that one that never ends is counted too. It reports whether all
// passes are spent: the last was cut off before it could end the run.
//
// A pass that was cut off after it had come forward is gone on with, and not
// counted again: a run that moves does not end because its workers are restarted.
// One that was cut off where it began is begun anew, so that a chunk that kills
// its worker can do so a few times only.
func (h *hold) beginPass(ctx context.Context) (spent bool, err error) {
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: h.runID})
		if err != nil {
			return fmt.Errorf("lock it: %w", err)
		}
		h.row = row
		run := &row.SettlementRun
		if _, err := h.fence(ctx, tx, run.State); err != nil {
			return err
		}
		switch {
		case run.State != stateApproved && run.State != stateDelivering:
			return ErrRunLost
		case goesOn(run):
			if err := queries.SettlementRunContinuePass(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunContinuePassParams{ID: h.runID}); err != nil {
				return fmt.Errorf("go on with its pass: %w", err)
			}
			return nil
		case run.Attempt >= run.MaxAttempts:
			spent = true
			return nil
		}
		run.Attempt, err = queries.SettlementRunBeginPass(ctx, tx, &dbsqlc.SettlementRunBeginPassParams{ID: h.runID})
		if err != nil {
			return fmt.Errorf("begin a pass: %w", err)
		}
		return record(ctx, tx, h.runID, event{actor: h.actor(), detail: map[string]any{"attempt": run.Attempt}, kind: "pass_begun"})
	})
	return spent, err
}

// goesOn reports whether the next job goes on with the run's pass.
func goesOn(run *dbsqlc.SettlementRun) bool {
	return run.IsSliced || (run.IsUnderWay && run.CursorPlayerID > run.TakenPlayerID)
}

// interrupted leaves the rest of the pass to whoever gets the job next: a process
// that is told to stop between two chunks spends none of the run's attempts.
func (h *hold) interrupted(ctx context.Context) error {
	cause := context.Cause(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("the job's time is over: %w", cause)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failureTimeout)
	defer cancel()
	err := pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if _, err := h.fence(ctx, tx, stateDelivering); err != nil {
			return err
		}
		return queries.SettlementRunSlice(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunSliceParams{ID: h.runID, JobID: &h.job.ID})
	})
	return errors.Join(fmt.Errorf("told to stop: %w", cause), err)
}

// slice ends this job for lack of time and inserts its successor, in one
// transaction.
func (h *hold) slice(ctx context.Context, numCredited int) error {
	return pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if _, err := h.fence(ctx, tx, stateDelivering); err != nil {
			return err
		}
		run := &h.row.SettlementRun
		// The pass goes on, so it counts among those that are left.
		left := int(run.MaxAttempts-run.Attempt) + 1
		jobID, err := h.runner.service.insertJob(ctx, tx, h.row.ProgrammeKind, h.runID, left)
		if err != nil {
			return err
		}
		if err := queries.SettlementRunSlice(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunSliceParams{ID: h.runID, JobID: &jobID}); err != nil {
			return fmt.Errorf("leave the rest to job %d: %w", jobID, err)
		}
		kind := freshness.Success
		if numCredited == 0 {
			kind = freshness.Neutral
		}
		return h.complete(ctx, tx, freshness.Progress{
			Kind:     kind,
			Loop:     loopOf(h.row.ProgrammeKind),
			NumItems: numCredited,
		})
	})
}
