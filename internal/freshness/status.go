package freshness

import (
	"context"
	"fmt"
	"time"

	"truegreen/internal/dbsqlc"
)

// Verdict is what worker_freshness says of a loop.
type Verdict string

// The verdicts. Red are failing, silent_noop, stalled and unknown.
const (
	VerdictBehind     Verdict = "behind"      // old items, but they move
	VerdictBusy       Verdict = "busy"        // a pass runs, within its budget
	VerdictDegraded   Verdict = "degraded"    // items failed or need a person
	VerdictFailing    Verdict = "failing"     // late, and its passes fail
	VerdictIdle       Verdict = "idle"        // nothing to do
	VerdictLate       Verdict = "late"        // no success for longer than planned
	VerdictOK         Verdict = "ok"          // moves
	VerdictPaused     Verdict = "paused"      // by a person
	VerdictSilentNoop Verdict = "silent_noop" // jobs complete and prove nothing
	VerdictStalled    Verdict = "stalled"     // no success, or a part does not move
	VerdictStarting   Verdict = "starting"    // has not succeeded yet, and is young
	VerdictUnknown    Verdict = "unknown"     // the view could not be read
)

// Red says that the loop does not do what it must.
func (verdict Verdict) Red() bool {
	switch verdict {
	case VerdictFailing, VerdictSilentNoop, VerdictStalled, VerdictUnknown:
		return true
	default:
		return false
	}
}

// LoopStatus is one row of worker_freshness: what is known of a loop by the
// database's clock. Nil pointers are what never happened, or is not there.
type LoopStatus struct {
	Age                 time.Duration  // since the last success, the loop's creation or its last resume
	BaselineAt          time.Time      // the loop's creation or last resume
	Budget              time.Duration  // of one pass
	ConsecutiveFailures int            // failed passes since the last success of any worker
	ItemRedAfter        *time.Duration // nil: the loop has no items
	Kind                string         // of its jobs
	LastCompletedJobAt  *time.Time     // start of the newest completed job, neutral ones left out
	LastError           *string        // of the newest failure, even if successes followed
	LastFailureAt       *time.Time
	LastItemsAt         *time.Time // the last success that moved something
	LastSuccessAt       *time.Time
	LateAfter           time.Duration
	Loop                string
	NumFailed           int            // items that ended without their work done, unacknowledged
	NumFailing          int            // items that wait after a failure of their own
	NumParked           int            // items that wait for a person
	OldestDueAge        *time.Duration // nil: nothing is due
	PauseReason         *string
	Paused              bool
	PausedAt            *time.Time
	PausedBy            *string // "unknown": paused in River alone
	Queue               string
	RedAfter            time.Duration
	Required            bool           // gates the readiness of its workers
	RunningSince        *time.Time     // the start of a pass that is within its budget
	Scheduled           bool           // ages from when its oldest due item fell due
	StuckPart           *string        // a part with an item older than ItemRedAfter that did not move meanwhile
	SuccessAge          *time.Duration // since LastSuccessAt
	Verdict             Verdict
}

// ReadLoops returns every registered loop with its verdict, in the order in which
// they are shown.
func ReadLoops(ctx context.Context, db dbsqlc.DBTX) ([]LoopStatus, error) {
	rows, err := queries.WorkerFreshnessList(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("read freshness of loops: %w", err)
	}
	loops := make([]LoopStatus, len(rows))
	for i, row := range rows {
		loops[i] = LoopStatus{
			Age:                 value(row.Age),
			BaselineAt:          value(row.BaselineAt),
			Budget:              value(row.Budget),
			ConsecutiveFailures: int(value(row.ConsecutiveFailures)),
			ItemRedAfter:        row.ItemRedAfter,
			Kind:                value(row.Kind),
			LastCompletedJobAt:  row.LastCompletedJobAt,
			LastError:           row.LastError,
			LastFailureAt:       row.LastFailureAt,
			LastItemsAt:         row.LastItemsAt,
			LastSuccessAt:       row.LastSuccessAt,
			LateAfter:           value(row.LateAfter),
			Loop:                value(row.Loop),
			NumFailed:           int(value(row.NumFailed)),
			NumFailing:          int(value(row.NumFailing)),
			NumParked:           int(value(row.NumParked)),
			OldestDueAge:        row.OldestDueAge,
			PauseReason:         row.PauseReason,
			Paused:              value(row.Paused),
			PausedAt:            row.PausedAt,
			PausedBy:            row.PausedBy,
			Queue:               value(row.Queue),
			RedAfter:            value(row.RedAfter),
			Required:            value(row.Readiness) == "required",
			RunningSince:        row.RunningSince,
			Scheduled:           value(row.Scheduled),
			StuckPart:           row.StuckPart,
			SuccessAge:          row.SuccessAge,
			Verdict:             Verdict(value(row.Verdict)),
		}
	}
	return loops, nil
}

// value is what pointer leads to, or zero.
func value[T any](pointer *T) T {
	if pointer == nil {
		var zero T
		return zero
	}
	return *pointer
}

// WorkerStatus is the heartbeat of one process.
type WorkerStatus struct {
	Queues    []string
	ReadyAt   *time.Time // the last time that it was ready; nil: never
	Reasons   []string   // codes of why it was not ready when last seen
	SeenAge   time.Duration
	SeenAt    time.Time
	StartedAt time.Time
	StoppedAt *time.Time // nil: it lives, or died
	Version   string
	WorkerID  string
}

// ReadWorkers returns the processes that were seen lately, or died without a
// successor forgetting them yet, the latest seen first.
func ReadWorkers(ctx context.Context, db dbsqlc.DBTX) ([]WorkerStatus, error) {
	rows, err := queries.WorkerHeartbeatList(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("read heartbeats of workers: %w", err)
	}
	workers := make([]WorkerStatus, len(rows))
	for i, row := range rows {
		workers[i] = WorkerStatus{
			Queues:    row.Queues,
			ReadyAt:   row.ReadyAt,
			Reasons:   row.Reasons,
			SeenAge:   row.SeenAge,
			SeenAt:    row.SeenAt,
			StartedAt: row.StartedAt,
			StoppedAt: row.StoppedAt,
			Version:   row.Version,
			WorkerID:  row.WorkerID,
		}
	}
	return workers, nil
}
