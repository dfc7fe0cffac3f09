package freshness

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
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
	LastCompletedJobAt  *time.Time     // start of the newest completed job, of a silent_noop; nil for others
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
//
// It reads service by service, and gives each at most half of the time that ctx leaves,
// and never more than 3 s. The loops of a service that cannot be read are [VerdictUnknown],
// with the cause as LastError; those of others are not affected. It returns an error
// only if not even the list of loops could be read.
func ReadLoops(ctx context.Context, db pgtx.Beginner) ([]LoopStatus, error) {
	var listed []*dbsqlc.LoopServiceListRow
	err := within(ctx, db, func(tx pgx.Tx) error {
		var err error
		listed, err = queries.LoopServiceList(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of loops: %w", err)
	}

	found := make(map[string]LoopStatus, len(listed))
	for _, service := range services {
		var names []string
		for _, row := range listed {
			if row.Service == service {
				names = append(names, row.Loop)
			}
		}
		err := readService(ctx, db, names, found)
		for _, row := range listed {
			if _, ok := found[row.Loop]; !ok && row.Service == service {
				found[row.Loop] = unknownLoop(row, service, err)
			}
		}
	}
	loops := make([]LoopStatus, len(listed))
	for i, row := range listed {
		loops[i] = found[row.Loop]
	}
	return loops, nil
}

// services are those whose tables say what loops have left to do, as the SQL function
// loop_service names them. What is locked most easily comes last.
var services = []string{"outbox", "none", "settlement"}

// maxEvidenceLimit bounds one reading of one service.
const maxEvidenceLimit = 3 * time.Second

// evidenceLimit is the time for the next reading.
func evidenceLimit(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return maxEvidenceLimit
	}
	return min(max(time.Until(deadline)/2, 10*time.Millisecond), maxEvidenceLimit)
}

// within runs work in a transaction whose statements the server cancels after
// evidenceLimit. In a transaction that was open before, that bound ends with work.
func within(ctx context.Context, db pgtx.Beginner, work func(tx pgx.Tx) error) error {
	return pgtx.Do(ctx, db, func(tx pgx.Tx) error {
		bound := &dbsqlc.EvidenceTimeoutParams{StatementTimeout: fmt.Sprint(evidenceLimit(ctx).Milliseconds())}
		row, err := queries.EvidenceTimeout(ctx, tx, bound)
		if err != nil {
			return fmt.Errorf("set statement_timeout: %w", err)
		}
		if err := work(tx); err != nil {
			return err
		}
		bound.StatementTimeout = row.Before
		if _, err := queries.EvidenceTimeout(ctx, tx, bound); err != nil {
			return fmt.Errorf("reset statement_timeout: %w", err)
		}
		return nil
	})
}

func readService(ctx context.Context, db pgtx.Beginner, names []string, found map[string]LoopStatus) error {
	if len(names) == 0 {
		return nil
	}
	return within(ctx, db, func(tx pgx.Tx) error {
		rows, err := queries.WorkerFreshnessList(ctx, tx, &dbsqlc.WorkerFreshnessListParams{Loops: names})
		if err != nil {
			return err
		}
		for _, row := range rows {
			found[value(row.Loop)] = loopStatus(row)
		}
		return nil
	})
}

// unknownLoop is what is known of a loop whose service could not be read.
func unknownLoop(row *dbsqlc.LoopServiceListRow, service string, err error) LoopStatus {
	cause := "worker_freshness has no row for it"
	if err != nil {
		cause = fmt.Sprintf("read %s: %v", serviceName(service), err)
	}
	return LoopStatus{
		Kind:      row.JobKind,
		LastError: &cause,
		LateAfter: row.LateAfter,
		Loop:      row.Loop,
		Paused:    row.Paused,
		Queue:     row.Queue,
		RedAfter:  row.RedAfter,
		Required:  row.GatesReadiness,
		Verdict:   VerdictUnknown,
	}
}

func serviceName(service string) string {
	if service == "none" {
		return "loops without items"
	}
	return "the " + service + "'s loops"
}

func loopStatus(row *dbsqlc.WorkerFreshnessListRow) LoopStatus {
	status := LoopStatus{
		Age:                 value(row.Age),
		BaselineAt:          value(row.BaselineAt),
		Budget:              value(row.Budget),
		ConsecutiveFailures: int(value(row.ConsecutiveFailures)),
		ItemRedAfter:        row.ItemRedAfter,
		Kind:                value(row.Kind),
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
	if !row.LastCompletedJobAt.IsZero() {
		status.LastCompletedJobAt = &row.LastCompletedJobAt
	}
	return status
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
