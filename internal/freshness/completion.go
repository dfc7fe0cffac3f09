package freshness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
)

// ErrFenceLost says that this attempt of a job is over: River took it for dead
// and gave the job to another worker, or to be retried. Whoever gets it rolls the
// transaction back and returns it from the worker; nil would lose the effect, and
// a commit would have it twice.
var ErrFenceLost = errors.New("this attempt of the job was given up, its effect must not be committed")

// Completion stores the progress of a pass and completes its job, both in tx. A
// worker hands it to its service, so that the effect, its proof and its end share
// one transaction.
//
// It takes no [Failure]: a failed pass records that with [Recorder.Record],
// commits, and returns its error, so that the job errors. It fails with
// [ErrFenceLost] when the attempt is over. After any error tx must be rolled
// back and the error returned from the worker.
type Completion func(ctx context.Context, tx pgx.Tx, progress Progress) error

// Completes returns the completion of one attempt of a job. It works only with
// the context that River gave the worker, or one made from it.
func Completes[T river.JobArgs](recorder *Recorder, job *river.Job[T]) Completion {
	return func(ctx context.Context, tx pgx.Tx, progress Progress) error {
		if progress.Kind == Failure {
			return fmt.Errorf("complete job %d: a failed pass must not complete its job: %w", job.ID, progress.Err)
		}
		if err := recorder.Record(ctx, tx, progress); err != nil {
			return fmt.Errorf("complete job %d: %w", job.ID, err)
		}
		if err := noteOutput(ctx, job.JobRow, progress); err != nil {
			return fmt.Errorf("complete job %d: note output: %w", job.ID, err)
		}
		return Complete(ctx, tx, job)
	}
}

// output is what a completed job says of itself. worker_freshness leaves neutral
// completions out: they must not look like work.
type output struct {
	Neutral  bool `json:"neutral,omitempty"`
	NumItems int  `json:"num_items"`
	Result   any  `json:"result,omitempty"`
}

// noteOutput has the completing update store the output. Since River then writes
// it a second time, a success notes none unless it must replace an earlier one.
func noteOutput(ctx context.Context, job *rivertype.JobRow, progress Progress) error {
	neutral := progress.Kind == Neutral
	if !neutral && progress.Result == nil {
		var earlier map[string]json.RawMessage
		if err := json.Unmarshal(job.Metadata, &earlier); err != nil {
			return fmt.Errorf("read metadata: %w", err)
		}
		if _, ok := earlier[rivertype.MetadataKeyOutput]; !ok {
			return nil
		}
	}
	if err := river.RecordOutput(ctx, output{Neutral: neutral, NumItems: progress.NumItems, Result: progress.Result}); err != nil {
		return fmt.Errorf("record it: %w", err)
	}
	return nil
}

// Report has River store result as the output of a job whose attempt fails, in
// the place where [Progress] of a completed one has it. It works only with the
// context that River gave the worker, or one made from it.
func Report(ctx context.Context, result any) error {
	if err := river.RecordOutput(ctx, output{Result: result}); err != nil {
		return fmt.Errorf("record the output of a failed attempt: %w", err)
	}
	return nil
}

// Complete completes a job in tx, unless the attempt is over: then it fails with
// [ErrFenceLost]. River by itself would complete whichever attempt is running.
//
// An attempt is known by its start. Its number would not do: a soft stop gives
// the number back.
func Complete[T river.JobArgs](ctx context.Context, tx pgx.Tx, job *river.Job[T]) error {
	if job.AttemptedAt == nil {
		return fmt.Errorf("complete job %d: it was never attempted", job.ID)
	}
	after, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
	if errors.Is(err, rivertype.ErrNotFound) {
		return fmt.Errorf("complete job %d: it was deleted: %w", job.ID, ErrFenceLost)
	}
	if err != nil {
		return fmt.Errorf("complete job %d: %w", job.ID, err)
	}
	if after.State != rivertype.JobStateCompleted || after.AttemptedAt == nil || !after.AttemptedAt.Equal(*job.AttemptedAt) {
		return fmt.Errorf("complete job %d: found it %s: %w", job.ID, after.State, ErrFenceLost)
	}
	return nil
}
