package settlement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

const (
	// tickLoop is the freshness loop of the tick.
	tickLoop = "settlement_tick"

	// maxPlanned bounds how many runs one tick plans, and maxResumed how many it
	// gives a new job, so that a long backlog is worked off tick by tick rather
	// than in one that never gets done.
	maxPlanned = 200
	maxResumed = 200

	// tickLockTimeout is how long a tick waits for a programme or a run that
	// somebody else has locked, before it leaves it to the next.
	tickLockTimeout = "500ms"

	// scheduler is the actor of what nobody decided.
	scheduler = "settlement_tick"
)

// TickResult counts what a tick did.
type TickResult struct {
	NumPlanned int `json:"num_planned"` // periods that got their run
	NumResumed int `json:"num_resumed"` // runs that got another job
}

// Tick gives every due period of every programme its run, and every run that can
// go on by itself but has no live job another one. It asks the database what is
// due, never when it last ran, so a tick that never came costs nothing but time;
// two at once do the work of one.
//
// What it does is one transaction, which completes the tick's job. A programme
// or run that fails, or that somebody has locked, holds back no other: theirs is
// committed, and Tick returns the error, as a failed pass. Of a long backlog it
// takes a part, which is progress, and leaves the rest to the next.
func (runner *Runner) Tick(ctx context.Context, complete freshness.Completion) (TickResult, error) {
	var result TickResult
	var failed error
	err := pgtx.Do(ctx, runner.service.pool, func(tx pgx.Tx) error {
		if err := queries.SettlementLockTimeout(ctx, tx, &dbsqlc.SettlementLockTimeoutParams{Milliseconds: tickLockTimeout}); err != nil {
			return fmt.Errorf("set how long to wait for locks: %w", err)
		}
		var err error
		if result.NumPlanned, err = runner.service.planAll(ctx, tx); err != nil {
			failed = errors.Join(failed, err)
		}
		if result.NumResumed, err = runner.service.resumeOrphans(ctx, tx); err != nil {
			failed = errors.Join(failed, err)
		}
		if failed != nil {
			return runner.recorder.Record(ctx, tx, freshness.Progress{Err: failed, Kind: freshness.Failure, Loop: tickLoop})
		}
		return complete(ctx, tx, freshness.Progress{
			Kind:     freshness.Success,
			Loop:     tickLoop,
			NumItems: result.NumPlanned + result.NumResumed,
		})
	})
	if err != nil {
		// What failed before may be why the transaction did.
		err = errors.Join(failed, err)
		return TickResult{}, fmt.Errorf("look for due settlements: %w", errors.Join(err, runner.recordFailure(ctx, tickLoop, err)))
	}
	if failed != nil {
		return result, fmt.Errorf("look for due settlements: %w", failed)
	}
	return result, nil
}

// planAll plans what is missing of all programmes, each in a savepoint of its
// own. It returns how many runs it planned, also when some could not be.
func (service *Service) planAll(ctx context.Context, tx pgx.Tx) (int, error) {
	codes, err := queries.ProgrammeCodes(ctx, tx)
	if err != nil {
		return 0, fmt.Errorf("list programmes: %w", err)
	}
	var failed error
	numPlanned := 0
	for _, code := range codes {
		if numPlanned >= maxPlanned {
			break
		}
		n := 0
		err := pgtx.Do(ctx, tx, func(tx pgx.Tx) (err error) {
			n, err = service.planMissing(ctx, tx, code, maxPlanned-numPlanned)
			return err
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("plan runs of programme %s: %w", code, err))
			continue
		}
		numPlanned += n
	}
	return numPlanned, failed
}

// planMissing adds runs for due periods that have none, oldest first.
func (service *Service) planMissing(ctx context.Context, tx pgx.Tx, code string, most int) (int, error) {
	if err := lockProgramme(ctx, tx, code); err != nil {
		return 0, err
	}
	now, err := databaseNow(ctx, tx)
	if err != nil {
		return 0, err
	}
	missing, err := dueWithoutRun(ctx, tx, code, now)
	if err != nil {
		return 0, err
	}

	numPlanned := 0
	for _, p := range missing {
		if numPlanned >= most {
			break
		}
		// Nobody started it, so the author of its terms stands for its maker.
		runID, err := service.planRun(ctx, tx, p, making{kind: runRegular, maker: p.version.CreatedBy})
		if err != nil {
			return 0, err
		}
		if runID != 0 {
			numPlanned++
		}
	}
	return numPlanned, nil
}

// resumeOrphans gives a job to each run that could go on and has no live one:
// what it waited for has come, its job was discarded, or died at its last
// attempt and ran no code of ours.
func (service *Service) resumeOrphans(ctx context.Context, tx pgx.Tx) (int, error) {
	runIDs, err := queries.SettlementRunOrphans(ctx, tx, &dbsqlc.SettlementRunOrphansParams{MaxRuns: maxResumed})
	if err != nil {
		return 0, fmt.Errorf("look for runs without a job: %w", err)
	}
	var failed error
	numResumed := 0
	for _, runID := range runIDs {
		resumed := false
		err := pgtx.Do(ctx, tx, func(tx pgx.Tx) (err error) {
			resumed, err = service.resume(ctx, tx, runID)
			return err
		})
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("resume run %d: %w", runID, err))
		case resumed:
			numResumed++
		}
	}
	return numResumed, failed
}

// resume gives a run another job, unless it has moved on meanwhile.
func (service *Service) resume(ctx context.Context, tx pgx.Tx, runID int64) (bool, error) {
	row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: runID})
	if err != nil {
		return false, fmt.Errorf("lock it: %w", err)
	}
	run := &row.SettlementRun
	if isEnded(run.State) || run.State == stateAwaitingApproval {
		return false, nil
	}
	if live, err := isJobLive(ctx, tx, run.JobID); err != nil || live {
		return false, err
	}
	if run.State == stateWaitingInputs {
		if err := queries.SettlementRunAbleNow(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunAbleNowParams{ID: runID}); err != nil {
			return false, fmt.Errorf("note that it waits no more: %w", err)
		}
	}
	if err := service.giveJob(ctx, tx, row.ProgrammeKind, runID, attemptsLeft(run)); err != nil {
		return false, err
	}
	return true, record(ctx, tx, runID, event{actor: scheduler, detail: map[string]any{"state": run.State}, kind: "resumed"})
}

// attemptsLeft is how many passes a run may still begin; one that is gone on with
// counts as still to come.
func attemptsLeft(run *dbsqlc.SettlementRun) int {
	left := int(run.MaxAttempts - run.Attempt)
	if goesOn(run) {
		left++
	}
	return left
}

func isJobLive(ctx context.Context, tx pgx.Tx, jobID *int64) (bool, error) {
	if jobID == nil {
		return false, nil
	}
	live, err := queries.SettlementRunJobIsLive(ctx, tx, &dbsqlc.SettlementRunJobIsLiveParams{JobID: *jobID})
	if err != nil {
		return false, fmt.Errorf("look for job %d: %w", *jobID, err)
	}
	return live, nil
}
