package settlement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

// Event is an entry in a run's history.
type Event struct {
	Actor  string
	At     time.Time
	Detail json.RawMessage
	Kind   string
	Reason string
}

// Detail is a run with its history and what became of its items.
type Detail struct {
	Events  []Event
	Reasons []Reason // the largest groups first
	Result  Result
}

// List returns the newest runs of a programme, or of all (an empty code).
func (service *Service) List(ctx context.Context, code string, limit int) ([]Result, error) {
	rows, err := queries.SettlementResultList(ctx, service.pool, &dbsqlc.SettlementResultListParams{MaxRuns: int32(limit), Programme: code})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	results := make([]Result, 0, len(rows))
	for _, row := range rows {
		results = append(results, resultOf(row))
	}
	return results, nil
}

// Get returns one run. Fails with [fault.KindNotFound].
func (service *Service) Get(ctx context.Context, runID int64) (Result, error) {
	return readResult(ctx, service.pool, runID)
}

// Show returns one run with all that is known of it. Fails with
// [fault.KindNotFound].
func (service *Service) Show(ctx context.Context, runID int64) (*Detail, error) {
	result, err := readResult(ctx, service.pool, runID)
	if err != nil {
		return nil, err
	}
	reasons, err := readReasons(ctx, service.pool, runID)
	if err != nil {
		return nil, err
	}
	rows, err := queries.SettlementEventList(ctx, service.pool, &dbsqlc.SettlementEventListParams{RunID: runID})
	if err != nil {
		return nil, fmt.Errorf("read history of run %d: %w", runID, err)
	}
	detail := &Detail{Reasons: reasons, Result: result}
	for _, row := range rows {
		detail.Events = append(detail.Events, Event{Actor: row.Actor, At: row.At, Detail: row.Detail, Kind: row.Kind, Reason: row.Reason})
	}
	return detail, nil
}

// Watermarks says how far the inputs of settlements are.
func (service *Service) Watermarks(ctx context.Context) ([]Watermark, error) {
	return readInputs(ctx, service.pool)
}

// Preview is what a run of a period would find now.
type Preview struct {
	Eligible       int64
	EligibleAmount int64
	Evaluated      int64
	InputsReached  bool
	PeriodEndsAt   time.Time
	Reasons        []Reason
	Terms          *Version
	Watermarks     []Watermark
}

// errPreviewed rolls a preview back.
var errPreviewed = errors.New("this was a preview")

// Preview calculates a period as a run would, and rolls everything back. It does
// not ask whether the period is due or its inputs are complete; it says so.
//
// Fails as Plan does, and with [fault.KindInvalid] for a period that has been
// calculated.
func (service *Service) Preview(ctx context.Context, code, key string) (*Preview, error) {
	var preview *Preview
	err := service.inProgramme(ctx, code, key, func(tx pgx.Tx, p planned, _ time.Time) error {
		row, err := lockPreviewed(ctx, tx, p)
		if err != nil {
			return err
		}
		marks, err := readInputs(ctx, tx)
		if err != nil {
			return err
		}
		preview = &Preview{InputsReached: marks.reach(p.span.End), PeriodEndsAt: p.span.End, Terms: p.version, Watermarks: marks}
		counts, err := calculateItems(ctx, tx, row, &p.version.Terms, p.span.End) // taken for complete; it is rolled back
		if err != nil {
			return err
		}
		preview.Eligible, preview.EligibleAmount, preview.Evaluated = counts.NumEligible, counts.EligibleMinor, counts.NumEvaluated
		if preview.Reasons, err = readReasons(ctx, tx, row.SettlementRun.ID); err != nil {
			return err
		}
		return errPreviewed
	})
	if !errors.Is(err, errPreviewed) {
		return nil, fmt.Errorf("preview period %s of programme %s: %w", key, code, err)
	}
	return preview, nil
}

// lockPreviewed returns the run that a preview calculates: that of the period,
// or one that is gone with the preview.
func lockPreviewed(ctx context.Context, tx pgx.Tx, p planned) (*dbsqlc.SettlementRunLockRow, error) {
	runID, err := insertRun(ctx, tx, p, p.version.CreatedBy)
	if err != nil {
		return nil, err
	}
	if runID == 0 {
		newest, err := queries.SettlementRunOfPeriod(ctx, tx, &dbsqlc.SettlementRunOfPeriodParams{Key: p.span.Key, ProgrammeID: p.version.programmeID})
		if err != nil {
			return nil, fmt.Errorf("look for its run: %w", err)
		}
		runID = newest.ID
	}
	row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: runID})
	if err != nil {
		return nil, fmt.Errorf("lock run %d: %w", runID, err)
	}
	if run := &row.SettlementRun; run.State != statePlanned && run.State != stateWaitingInputs {
		return nil, fault.Invalid("run %d has calculated it: see truegreen settlement show %d", runID, runID)
	}
	return row, nil
}

// Words is the detail of an event for people; empty for none.
func (event *Event) Words() string {
	if string(event.Detail) == "{}" {
		return ""
	}
	return string(event.Detail)
}
