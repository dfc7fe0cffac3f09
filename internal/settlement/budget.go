package settlement

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/timewindow"
)

// reservation is what a programme's budget said to a run.
type reservation struct {
	short     string // what is missing, in words; empty: the run fits
	versionID int64  // of the terms whose budget was asked
}

// termsInForce are the terms in force now for the start of a period: by them it is judged
// whether a run may pay, and how much. They may be others than those it was calculated
// by, since two persons have agreed on them meanwhile.
func termsInForce(ctx context.Context, db dbsqlc.DBTX, code, key string) (planned, error) {
	versions, err := listVersions(ctx, db, code)
	if err != nil {
		return planned{}, err
	}
	return planOf(ctx, db, versions, code, key)
}

// reserve looks whether the budget of a run's programme has room for all that the run
// owes, and keeps other approvals of the programme waiting until the transaction ends.
// What an approved run owes is reserved until it ends, and what it paid for good: no row
// says so but the runs.
//
// The budget is that of the terms in force now, and its window the one that holds the
// start of the run's period: a limit that was raised or lowered since the run was planned
// counts.
func reserve(ctx context.Context, tx pgx.Tx, row *dbsqlc.SettlementRunLockRow) (reservation, error) {
	// Approvals under a budget and under none are counted by each other.
	if err := queries.SettlementBudgetLock(ctx, tx, &dbsqlc.SettlementBudgetLockParams{ProgrammeID: row.ProgrammeID}); err != nil {
		return reservation{}, fmt.Errorf("wait for other approvals: %w", err)
	}
	p, err := termsInForce(ctx, tx, row.Code, row.Key)
	if err != nil {
		return reservation{}, err
	}
	use, err := useOf(ctx, tx, p.version, row.StartsAt, row.SettlementRun.ID)
	if err != nil || use == nil {
		return reservation{versionID: p.version.id}, err
	}
	owed := money.Minor(valueOr(row.SettlementRun.EligibleMinor, 0))
	total, err := use.Used.Add(owed)
	if err != nil {
		return reservation{}, fmt.Errorf("sum up what is used of the budget: %w", err)
	}
	found := reservation{versionID: p.version.id}
	if total > use.Limit {
		found.short = fmt.Sprintf("it owes %d, and of the budget of %d (version %d) for %s %d are used or reserved",
			owed, use.Limit, use.Version, use.Window, use.Used)
	}
	return found, nil
}

// BudgetUse is how much is used of a budget in one of its windows, in minor units.
type BudgetUse struct {
	Limit   money.Minor
	Used    money.Minor // paid for good, and what approved runs may still pay
	Version int         // whose limit it is
	Window  string      // such as 2026-11
}

// useOf is the use of a version's budget in the window that holds the start of a period,
// without what one run uses of it; nil for no budget.
func useOf(ctx context.Context, db dbsqlc.DBTX, version *Version, startsAt time.Time, exceptRunID int64) (*BudgetUse, error) {
	budget := version.Terms.Budget
	if budget == nil {
		return nil, nil
	}
	windows, err := timewindow.NewCalendar(budget.Window, version.Terms.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("read the budget's calendar: %w", err)
	}
	window := windows.Containing(startsAt)
	used, err := queries.SettlementBudgetUsed(ctx, db, &dbsqlc.SettlementBudgetUsedParams{
		EndsAt: window.End, ProgrammeID: version.programmeID, RunID: exceptRunID, StartsAt: window.Start,
	})
	if err != nil {
		return nil, fmt.Errorf("sum up what is used of the budget: %w", err)
	}
	return &BudgetUse{Limit: budget.Limit, Used: money.Minor(used), Version: version.Number, Window: window.Key}, nil
}

// readBudget is the budget that a run would be asked for now, without what it uses of it
// itself.
func readBudget(ctx context.Context, db dbsqlc.DBTX, result *Result) (*BudgetUse, error) {
	p, err := termsInForce(ctx, db, result.Programme, result.Period)
	if err != nil {
		return nil, err
	}
	return useOf(ctx, db, p.version, p.span.Start, result.RunID)
}
