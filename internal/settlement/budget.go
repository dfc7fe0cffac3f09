package settlement

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

// reservation is what an approval asks of a programme's budget.
type reservation struct {
	eligible    money.Minor
	programmeID int64
	runID       int64
	startsAt    time.Time // of the period; its window of the budget is the one that holds it
	terms       *programme.Terms
}

// reserve looks whether the budget has room for all that a run owes, and keeps other
// approvals of the programme waiting until the transaction ends. What an approved run
// owes is reserved until it ends, and what it paid for good: no row says so but the
// runs. It returns in words what is missing; empty for nothing.
func (wanted reservation) reserve(ctx context.Context, tx pgx.Tx) (short string, err error) {
	budget := wanted.terms.Budget
	if budget == nil {
		return "", nil
	}
	calendar, err := timewindow.NewCalendar(budget.Window, wanted.terms.TimeZone)
	if err != nil {
		return "", fmt.Errorf("read the budget's calendar: %w", err)
	}
	if err := queries.SettlementBudgetLock(ctx, tx, &dbsqlc.SettlementBudgetLockParams{ProgrammeID: wanted.programmeID}); err != nil {
		return "", fmt.Errorf("wait for other approvals: %w", err)
	}
	window := calendar.Containing(wanted.startsAt)
	used, err := queries.SettlementBudgetUsed(ctx, tx, &dbsqlc.SettlementBudgetUsedParams{
		EndsAt: window.End, ProgrammeID: wanted.programmeID, RunID: wanted.runID, StartsAt: window.Start,
	})
	if err != nil {
		return "", fmt.Errorf("sum up what is used of the budget: %w", err)
	}
	total, err := money.Minor(used).Add(wanted.eligible)
	if err != nil {
		return "", fmt.Errorf("sum up what is used of the budget: %w", err)
	}
	if total <= budget.Limit {
		return "", nil
	}
	return fmt.Sprintf("it owes %d, and of the budget of %d for %s %d are used or reserved", wanted.eligible, budget.Limit, window.Key, used), nil
}
