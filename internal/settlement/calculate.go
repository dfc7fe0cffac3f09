package settlement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
)

// autoApprover approves what its programme's terms say needs no person.
const autoApprover = "auto_approve_below"

// calculate works out what everybody is owed, if the inputs are complete; they
// are proven by their watermarks. It reports whether the run can deliver now;
// otherwise the job is completed, and the run waits or has ended.
//
// The items, their counts and where the run goes from there are one
// transaction: a calculation that was cut off left nothing behind.
func (h *hold) calculate(ctx context.Context) (approved bool, verdict *Verdict, err error) {
	complete, verdict, err := h.begin(ctx)
	if err != nil || !complete {
		return false, verdict, err
	}
	if err := h.awaitCredits(ctx); err != nil {
		return false, nil, errors.Join(err, h.callOffIfStopped(ctx))
	}
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if _, err := h.fence(ctx, tx, stateCalculating); err != nil {
			return err
		}
		marks, err := readInputs(ctx, tx, h.row.SettlementRun.Sources)
		if err != nil {
			return err
		}
		of, err := h.subject(ctx, tx)
		if err != nil {
			return err
		}
		counted, err := storeItems(ctx, tx, of, *marks.lowest()) // begin saw them complete; they never go back
		if err != nil {
			return err
		}
		if err := record(ctx, tx, h.runID, event{actor: h.actor(), detail: counted, kind: "calculated"}); err != nil {
			return err
		}
		if counted.NumEligible == 0 {
			verdict, err = h.finish(ctx, tx, jobCompleted)
			return err
		}
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: h.runID})
		if err != nil {
			return fmt.Errorf("read what it owes: %w", err)
		}
		var short string
		approved, short, err = approveByTerms(ctx, tx, row)
		switch {
		case err != nil:
			return err
		case short != "":
			verdict, err = h.abortIn(ctx, tx, abortBudget, short)
			return err
		case approved:
			return nil
		default:
			return h.completeNeutral(ctx, tx, nil)
		}
	})
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return false, nil, errors.Join(err, h.callOffIfStopped(ctx))
	}
	if errors.Is(err, errArithmetic) {
		verdict, err = h.abort(ctx, abortInvariant, err.Error())
		return false, verdict, err
	}
	if err == nil {
		verdict.logIfAny(ctx, h.runner.logger)
		if verdict != nil {
			err = verdict.endError()
		}
	}
	return approved, verdict, err
}

// callOffIfStopped takes back that a calculation was begun: a process that is told to
// stop spends none of those that a run may have.
func (h *hold) callOffIfStopped(ctx context.Context) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failureTimeout)
	defer cancel()
	return pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if _, err := h.fence(ctx, tx, stateCalculating); err != nil {
			return err
		}
		if err := queries.SettlementRunUncalculated(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunUncalculatedParams{ID: h.runID}); err != nil {
			return fmt.Errorf("call its calculation off: %w", err)
		}
		return nil
	})
}

// subject is what the run calculates.
func (h *hold) subject(ctx context.Context, tx pgx.Tx) (subject, error) {
	if h.terms.Kind == programme.Lossback {
		// A late deposit may give a player two windows that end in two periods; one of
		// the two calculations must see the other's claim.
		if err := queries.SettlementOnceLock(ctx, tx, &dbsqlc.SettlementOnceLockParams{ProgrammeID: h.row.ProgrammeID}); err != nil {
			return subject{}, fmt.Errorf("wait for other calculations of its programme: %w", err)
		}
	}
	since, err := readEffectiveSince(ctx, tx, h.row.Code)
	if err != nil {
		return subject{}, err
	}
	return subject{
		effectiveSince: since,
		endsAt:         h.row.SettlementRun.PeriodEndsAt,
		periodID:       h.row.SettlementRun.PeriodID,
		programmeID:    h.row.ProgrammeID,
		runID:          h.runID,
		startsAt:       h.row.StartsAt,
		terms:          &h.terms,
	}, nil
}

// begin reports whether the inputs are complete, and notes it. Where they are
// not, the run waits and its job is completed, or the run is aborted at its
// deadline: what a dead feed says is not to be told from nobody having played.
func (h *hold) begin(ctx context.Context) (complete bool, verdict *Verdict, err error) {
	var reason, detail string
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		run := &h.row.SettlementRun
		if _, err := h.fence(ctx, tx, run.State); err != nil {
			return err
		}
		marks, err := readInputs(ctx, tx, h.row.SettlementRun.Sources)
		if err != nil {
			return err
		}
		if marks.reach(run.PeriodEndsAt) {
			if run.NumCalculations >= run.MaxAttempts {
				reason = abortCalculation
				detail, err = lastFailure(ctx, tx, run)
				return err
			}
			complete = true
			if err := queries.SettlementRunCalculating(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunCalculatingParams{ID: h.runID}); err != nil {
				return fmt.Errorf("note that it is calculated: %w", err)
			}
			return nil
		}
		missing := fmt.Sprintf("watermarks (%s) have not reached the period's end, %s", marks, run.PeriodEndsAt.UTC().Format(time.RFC3339))
		if h.row.Now.After(run.InputsDeadlineAt) {
			reason = abortInputsDeadline
			detail = fmt.Sprintf("%s, by %s", missing, run.InputsDeadlineAt.UTC().Format(time.RFC3339))
			return nil
		}
		if run.State != stateWaitingInputs {
			if err := queries.SettlementRunWait(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunWaitParams{ID: h.runID}); err != nil {
				return fmt.Errorf("let it wait for its inputs: %w", err)
			}
			if err := record(ctx, tx, h.runID, event{actor: h.actor(), kind: "waiting_inputs", reason: missing}); err != nil {
				return err
			}
		}
		return h.completeNeutral(ctx, tx, nil)
	})
	if err == nil && reason != "" {
		verdict, err = h.abort(ctx, reason, detail)
	}
	return complete, verdict, err
}

// lastFailure says how often a run was calculated in vain, and why at last.
func lastFailure(ctx context.Context, tx pgx.Tx, run *dbsqlc.SettlementRun) (string, error) {
	why, err := queries.SettlementEventLastReason(ctx, tx, &dbsqlc.SettlementEventLastReasonParams{Kind: eventFailed, RunID: run.ID})
	if err != nil {
		return "", fmt.Errorf("read its last failure: %w", err)
	}
	if why == "" {
		why = "its workers died, or were stopped"
	}
	return fmt.Sprintf("%d calculations were begun, and none came to its end; at last: %s", run.NumCalculations, why), nil
}

// awaitCredits makes sure that credits which are being booked at this moment are
// seen by the calculation that follows: their time may lie in its period.
func (h *hold) awaitCredits(ctx context.Context) error {
	if !h.terms.LessPromotions {
		return nil
	}
	return pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if err := queries.SettlementCreditsAwait(ctx, tx); err != nil {
			return fmt.Errorf("wait for credits in flight: %w", err)
		}
		return nil
	})
}
