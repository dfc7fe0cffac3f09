package settlement

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"truegreen/internal/dbsqlc"
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
	Budget  *BudgetUse // without the run; nil for none, and for one that asks it no more
	Events  []Event
	Reasons []Reason // the largest groups first
	Result  Result

	NumUndelivered int64         // players who are owed something and got nothing
	Undelivered    []Undelivered // the first of them, the largest amounts first
}

// maxUndelivered bounds how many players are told one by one.
const maxUndelivered = 20

// Undelivered is what a run owed a player and did not pay.
type Undelivered struct {
	Amount   int64  // minor units of the run's currency
	Delivery string // failed, or withheld
	Player   string // code
	Why      string // such as wallet_frozen
}

// List returns the newest runs of a programme, or of all (an empty code).
func (service *Service) List(ctx context.Context, code string, limit int) ([]Result, error) {
	rows, err := queries.SettlementResultList(ctx, service.pool, &dbsqlc.SettlementResultListParams{MaxRuns: int32(limit), Programme: code})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	if code != "" && len(rows) == 0 {
		if err := service.checkCode(ctx, code); err != nil {
			return nil, err
		}
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
	if !isEnded(result.State) || result.AbortReason == abortBudget {
		if detail.Budget, err = readBudget(ctx, service.pool, &result); err != nil {
			return nil, fmt.Errorf("read budget of run %d: %w", runID, err)
		}
	}
	undelivered, err := queries.SettlementItemUndelivered(ctx, service.pool, &dbsqlc.SettlementItemUndeliveredParams{MaxRows: maxUndelivered, RunID: runID})
	if err != nil {
		return nil, fmt.Errorf("read whom run %d did not pay: %w", runID, err)
	}
	for _, row := range undelivered {
		detail.NumUndelivered = row.NumUndelivered
		detail.Undelivered = append(detail.Undelivered, Undelivered{Amount: row.AmountMinor, Delivery: row.Delivery, Player: row.Player, Why: row.Why})
	}
	for _, row := range rows {
		detail.Events = append(detail.Events, Event{Actor: row.Actor, At: row.At, Detail: row.Detail, Kind: row.Kind, Reason: row.Reason})
	}
	return detail, nil
}

// Words is the detail of an event for people; empty for none.
func (event *Event) Words() string {
	if string(event.Detail) == "{}" {
		return ""
	}
	return string(event.Detail)
}
