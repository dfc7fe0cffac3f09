package freshness

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

const (
	// maxErrorBytes bounds what is kept of a failure's text.
	maxErrorBytes = 2000

	// maxWorkerIDLength is the bound of the table.
	maxWorkerIDLength = 200

	// retiredWorkerID bears the progress of workers that are gone.
	retiredWorkerID = "retired"
)

// Kind is what a pass can say of itself.
type Kind int

// The kinds. There are no others.
const (
	// Success: something moved, or nothing was due.
	Success Kind = iota + 1
	// Failure: something was due and did not move.
	Failure
	// Neutral: the pass could tell neither, such as one that found its shard
	// leased by another worker.
	Neutral
)

// String names the kind.
func (kind Kind) String() string {
	switch kind {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Neutral:
		return "neutral"
	default:
		return fmt.Sprintf("kind %d", int(kind))
	}
}

// Progress is what one pass, or one batch of it, achieved.
type Progress struct {
	Err      error // why, of a Failure; operators see its text
	Kind     Kind
	Loop     string
	NumItems int // what a Success moved; 0 if nothing was due
	// OfItems says of a Failure that single items failed, as they would in any other
	// process: it counts against the loop, and not against this process.
	OfItems bool
	// OfBroker says of a Failure that the broker caused it, so that a good answer of the
	// broker since says more of this process.
	OfBroker bool
	Result   any // JSON that the completed job shows as its output; nil for none
}

// Recorder stores the progress of one worker.
type Recorder struct {
	workerID string
}

// NewRecorder returns a recorder for the worker of that id, 1 to 200 bytes, which
// no other living process has. Fails with [fault.KindInvalid] for another one.
func NewRecorder(workerID string) (*Recorder, error) {
	if err := checkWorkerID(workerID); err != nil {
		return nil, err
	}
	return &Recorder{workerID: workerID}, nil
}

func checkWorkerID(workerID string) error {
	if workerID == "" || len(workerID) > maxWorkerIDLength || workerID == retiredWorkerID {
		return fault.Invalid("worker id must have 1 to %d bytes and not be %q, got %q", maxWorkerIDLength, retiredWorkerID, workerID)
	}
	return nil
}

// Record stores progress in tx, which is to be the transaction of the effect:
// rolled back together, they are true together. It takes its time from the
// database's clock at the call.
//
// It fails when the loop is not registered, and tx is then aborted, as after any
// SQL error.
func (recorder *Recorder) Record(ctx context.Context, tx pgx.Tx, progress Progress) error {
	var err error
	switch progress.Kind {
	case Success:
		err = queries.LoopProgressRecordSuccess(ctx, pgtx.Exactly(tx, 1), &dbsqlc.LoopProgressRecordSuccessParams{
			HasItems: progress.NumItems > 0,
			Loop:     progress.Loop,
			WorkerID: recorder.workerID,
		})
	case Failure:
		err = queries.LoopProgressRecordFailure(ctx, pgtx.Exactly(tx, 1), &dbsqlc.LoopProgressRecordFailureParams{
			IsOwn:     !progress.OfItems,
			LastError: errorText(progress.Err),
			Loop:      progress.Loop,
			OfBroker:  progress.OfBroker,
			WorkerID:  recorder.workerID,
		})
	case Neutral:
		err = queries.LoopProgressRecordNeutral(ctx, pgtx.Exactly(tx, 1), &dbsqlc.LoopProgressRecordNeutralParams{
			Loop:     progress.Loop,
			WorkerID: recorder.workerID,
		})
	default:
		err = fault.Invalid("Kind must be Success, Failure or Neutral, got %s", progress.Kind)
	}
	if err != nil {
		return fmt.Errorf("record progress of %s: %w", progress.Loop, err)
	}
	return nil
}

// errorText is err's text as Postgres takes it: valid, without NUL, bounded.
func errorText(err error) string {
	if err == nil {
		return "unknown"
	}
	text := strings.ReplaceAll(err.Error(), "\x00", "")
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes]
	}
	return strings.ToValidUTF8(text, "")
}
