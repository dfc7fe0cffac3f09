package settlement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
)

// failureTimeout bounds the recording of a failure, whose context may be done.
const failureTimeout = 5 * time.Second

// Recorder stores what a pass achieved, in the pass's own transaction.
type Recorder interface {
	Record(ctx context.Context, tx pgx.Tx, progress freshness.Progress) error
}

// Runner takes runs as far as they can go, on behalf of jobs.
type Runner struct {
	logger   *slog.Logger
	recorder Recorder
	service  *Service
}

// NewRunner returns a runner. It writes the one line that tells how a run ended
// to logger.
func NewRunner(service *Service, recorder Recorder, logger *slog.Logger) *Runner {
	return &Runner{logger: logger, recorder: recorder, service: service}
}

// RetryDelay is how long a run waits after a job's attempt (from 1) that failed.
func (runner *Runner) RetryDelay(attempt int) time.Duration {
	return runner.service.config.retryDelay(attempt)
}

// JobTimeout is how long one job may take.
func (runner *Runner) JobTimeout() time.Duration { return runner.service.config.Slice + slack }

// Job is one attempt of a job.
type Job struct {
	AttemptedAt time.Time // by the database's clock; it tells attempts apart
	ID          int64
}

// hold is a run in the hands of one attempt of a job.
type hold struct {
	bisection *bisection // of the job's chunks
	complete  freshness.Completion
	epoch     int64
	job       Job
	row       *dbsqlc.SettlementRunLockRow
	runID     int64
	runner    *Runner
	started   time.Time
	terms     programme.Terms
}

// Work takes a run as far as it can go: to the point where it waits for its
// inputs or a person, to the end of its time, or to its end. The verdict is nil
// unless something was delivered or the run ended.
//
// It returns nil only after a transaction that completed the job. A run that
// ended returns what its outcome says, however often its job is run again:
// [NoneDeliveredError], [PartialDeliveryError], [AbortedError], or nil. A run
// that another living job has is left to it.
func (runner *Runner) Work(ctx context.Context, job Job, runID int64, complete freshness.Completion) (*Verdict, error) {
	h := &hold{complete: complete, job: job, runID: runID, runner: runner, started: time.Now()}
	ended, verdict, err := h.take(ctx)
	if err == nil && !ended {
		verdict, err = h.work(ctx)
	}
	if errors.Is(err, ErrRunLost) && h.row != nil {
		verdict, err = h.leaveEnded(ctx, err)
	}
	if err == nil {
		return verdict, nil
	}
	var none *NoneDeliveredError
	var partial *PartialDeliveryError
	var aborted *AbortedError
	if errors.As(err, &none) || errors.As(err, &partial) || errors.As(err, &aborted) {
		// They were recorded where they were found.
		return verdict, err
	}
	err = fmt.Errorf("settle run %d: %w", runID, err)
	if h.row == nil || errors.Is(err, ErrRunLost) {
		return verdict, err
	}
	return verdict, errors.Join(err, h.recordFailure(ctx, err))
}

// recordFailure stores why a job got no further, in a transaction of its own:
// for its loop, and in the run's history.
func (h *hold) recordFailure(ctx context.Context, failure error) error {
	return h.runner.inFailure(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := record(ctx, tx, h.runID, event{actor: h.actor(), kind: eventFailed, reason: failure.Error()})
		if err != nil {
			return err
		}
		return h.runner.recorder.Record(ctx, tx, freshness.Progress{
			Err:  failure,
			Kind: freshness.Failure,
			Loop: loopOf(h.row.ProgrammeKind),
		})
	})
}

// recordFailure stores a failure of a loop in a transaction of its own.
func (runner *Runner) recordFailure(ctx context.Context, loop string, failure error) error {
	return runner.inFailure(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return runner.recorder.Record(ctx, tx, freshness.Progress{Err: failure, Kind: freshness.Failure, Loop: loop})
	})
}

// inFailure runs fn in a transaction of its own, that of the pass being lost and
// its time perhaps over. It does nothing for a pass that was only told to stop.
func (runner *Runner) inFailure(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failureTimeout)
	defer cancel()
	return pgtx.Do(ctx, runner.service.pool, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

// take makes the run this job's, unless there is nothing for it to do; then it
// completes the job, or returns the error of the run's end.
func (h *hold) take(ctx context.Context) (ended bool, verdict *Verdict, err error) {
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: h.runID})
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.NotFound("there is no such run")
		}
		if err != nil {
			return fmt.Errorf("lock it: %w", err)
		}
		h.row = row
		run := &row.SettlementRun
		if isEnded(run.State) {
			ended = true
			verdict, err = h.leave(ctx, tx)
			return err
		}
		if run.State == stateAwaitingApproval {
			ended = true
			return h.completeNeutral(ctx, tx, nil)
		}
		if run.JobID != nil && *run.JobID != h.job.ID {
			live, err := isJobLive(ctx, tx, run.JobID)
			if err != nil {
				return err
			}
			if live {
				ended = true
				return h.completeNeutral(ctx, tx, nil)
			}
		}
		if h.terms, err = programme.Decode(row.Rules); err != nil {
			return fmt.Errorf("read its terms: %w", err)
		}
		h.epoch, err = queries.SettlementRunTake(ctx, tx, &dbsqlc.SettlementRunTakeParams{
			ID:             h.runID,
			JobAttemptedAt: h.job.AttemptedAt,
			JobID:          h.job.ID,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrRunLost
		}
		if err != nil {
			return fmt.Errorf("take it: %w", err)
		}
		return nil
	})
	if err == nil && verdict != nil && verdict.decided() {
		// Nobody has logged it: it was ended by a person, elsewhere.
		verdict.log(ctx, h.runner.logger)
	}
	return ended, verdict, err
}

// leave completes the job of a run that has ended, or returns what its end is to the
// job.
func (h *hold) leave(ctx context.Context, tx pgx.Tx) (*Verdict, error) {
	verdict, err := readVerdict(ctx, tx, h.runID)
	if err != nil {
		return nil, err
	}
	if err := verdict.endError(); err != nil {
		return verdict, err
	}
	return verdict, h.completeNeutral(ctx, tx, verdict)
}

// leaveEnded is for a run that was lost on the way: where a person has ended it, that is
// no failure of the job.
func (h *hold) leaveEnded(ctx context.Context, lost error) (verdict *Verdict, err error) {
	ended := false
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: h.runID})
		if err != nil {
			return fmt.Errorf("lock it: %w", err)
		}
		if ended = isEnded(row.SettlementRun.State); !ended {
			return nil
		}
		verdict, err = h.leave(ctx, tx)
		return err
	})
	if !ended || errors.Is(err, freshness.ErrFenceLost) {
		return nil, errors.Join(lost, err)
	}
	if err == nil && verdict.decided() {
		verdict.log(ctx, h.runner.logger)
	}
	return verdict, err
}

// work goes from state to state.
func (h *hold) work(ctx context.Context) (*Verdict, error) {
	switch h.row.SettlementRun.State {
	case stateApproved, stateDelivering:
		return h.deliver(ctx)
	case statePlanned, stateWaitingInputs, stateCalculating:
		approved, verdict, err := h.calculate(ctx)
		if err != nil || !approved {
			return verdict, err
		}
		return h.deliver(ctx)
	default:
		return nil, fmt.Errorf("it is %s, which no job knows", h.row.SettlementRun.State)
	}
}

// completeNeutral completes a job that had nothing to do.
func (h *hold) completeNeutral(ctx context.Context, tx pgx.Tx, verdict *Verdict) error {
	progress := freshness.Progress{Kind: freshness.Neutral, Loop: loopOf(h.row.ProgrammeKind)}
	if verdict != nil {
		progress.Result = verdict.Summary()
	}
	return h.complete(ctx, tx, progress)
}

// fence locks the run to the end of tx, if it still is in this attempt's hands
// and in this state, and returns how far the pass has come.
func (h *hold) fence(ctx context.Context, tx pgx.Tx, state string) (int64, error) {
	cursor, err := queries.SettlementRunFence(ctx, tx, &dbsqlc.SettlementRunFenceParams{
		Epoch:          h.epoch,
		ID:             h.runID,
		JobAttemptedAt: h.job.AttemptedAt,
		JobID:          h.job.ID,
		State:          state,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, ErrRunLost
	}
	if err != nil {
		return 0, fmt.Errorf("lock it in state %s: %w", state, err)
	}
	return cursor, nil
}

// actor names this job in the run's history.
func (h *hold) actor() string { return fmt.Sprintf("job:%d", h.job.ID) }
