package settlement

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
)

// Adjustment asks for an adjustment of a period.
type Adjustment struct {
	By     string // who; 1 to 200 characters
	Code   string
	Key    string
	Reason string // may be empty
}

// Adjust makes a run of a settled period for lines that came after its run, and
// returns its id. It works everybody out again by the terms of the regular run, and pays
// what is owed beyond what runs of the period have granted. Nothing is taken back: who
// got too much is excluded, and the item says by how much.
//
// Fails with [fault.KindNotFound] for an unknown programme, and with
// [fault.KindInvalid] for a key that is no period of it, unless the period's regular run
// has paid or found nobody, and while another adjustment of it has not ended.
func (service *Service) Adjust(ctx context.Context, wanted Adjustment) (int64, error) {
	var runID int64
	err := service.inPeriod(ctx, wanted.Code, wanted.Key, wanted.By, func(tx pgx.Tx, versions []Version, p planned) error {
		regular, err := findRegular(ctx, tx, p, wanted.Key)
		if err != nil {
			return err
		}
		switch {
		case regular == nil || regular.isVoid():
			return fault.Invalid("it has not been settled: truegreen settlement run %s %s settles it", wanted.Code, wanted.Key)
		case !isEnded(regular.State):
			return fault.Invalid("run %d of it is %s; an adjustment can follow once it has ended", regular.ID, regular.State)
		}
		p.version = &versions[regular.Version-1]
		runID, err = service.planRun(ctx, tx, p, making{kind: runAdjustment, maker: wanted.By, reason: wanted.Reason})
		if err != nil || runID != 0 {
			return err
		}
		return unfinished(ctx, tx, &dbsqlc.SettlementRunUnfinishedParams{PeriodID: &regular.PeriodID})
	})
	if err != nil {
		return 0, fmt.Errorf("adjust period %s of programme %s: %w", wanted.Key, wanted.Code, err)
	}
	return runID, nil
}

// regularRun is the newest regular run of a period.
type regularRun struct {
	*dbsqlc.SettlementRunOfPeriodRow
}

// findRegular returns the newest regular run of a period; nil if there is none.
func findRegular(ctx context.Context, tx pgx.Tx, p planned, key string) (*regularRun, error) {
	row, err := queries.SettlementRunOfPeriod(ctx, tx, &dbsqlc.SettlementRunOfPeriodParams{Key: key, ProgrammeID: p.version.programmeID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for its run: %w", err)
	}
	return &regularRun{row}, nil
}

// isVoid reports whether the run was aborted before it paid, so that another can take
// its place.
func (run *regularRun) isVoid() bool { return run.State == stateAborted && run.StartedAt == nil }

// unfinished says which run is in the way of another one.
func unfinished(ctx context.Context, tx pgx.Tx, of *dbsqlc.SettlementRunUnfinishedParams) error {
	other, err := queries.SettlementRunUnfinished(ctx, tx, of)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.Invalid("another run did it, and has just ended: see what it left, and try again")
	}
	if err != nil {
		return fmt.Errorf("look for the run that does it: %w", err)
	}
	if other.State == stateAwaitingApproval {
		return fault.Invalid("run %d does it already, and awaits approval: truegreen settlement approve %d or reject it", other.ID, other.ID)
	}
	return fault.Invalid("run %d does it already, and is %s", other.ID, other.State)
}
