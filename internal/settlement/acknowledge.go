package settlement

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

// MaxAcknowledged bounds how many runs one decision acknowledges.
const MaxAcknowledged = 1000

// Acknowledgement says what somebody knows of several runs.
type Acknowledgement struct {
	By        string
	Count     int      // how many runs it is to be; anything else changes nothing
	Outcomes  []string // of partial, none_delivered, aborted; empty means partial
	Programme string   // code; empty for all
	Reason    string
}

// acknowledgedOutcomes are what Outcomes may hold.
var acknowledgedOutcomes = []string{outcomePartial, outcomeNoneDelivered, stateAborted}

// Acknowledgeable lists the runs that [Service.AcknowledgeAll] would be about, in
// order of their numbers.
func (service *Service) Acknowledgeable(ctx context.Context, ask Acknowledgement) ([]Result, error) {
	results, err := service.acknowledgeable(ctx, service.pool, ask)
	if err != nil {
		return nil, fmt.Errorf("list what can be acknowledged: %w", err)
	}
	return results, nil
}

func (service *Service) acknowledgeable(ctx context.Context, db dbsqlc.DBTX, ask Acknowledgement) ([]Result, error) {
	if len(ask.Outcomes) == 0 {
		ask.Outcomes = []string{outcomePartial}
	}
	for _, outcome := range ask.Outcomes {
		if !slices.Contains(acknowledgedOutcomes, outcome) {
			return nil, fault.Invalid("outcome %q cannot be acknowledged; there are %s", outcome, strings.Join(acknowledgedOutcomes, ", "))
		}
	}
	if ask.Programme != "" {
		if err := service.checkCode(ctx, ask.Programme); err != nil {
			return nil, err
		}
	}
	ids, err := queries.SettlementRunAcknowledgeable(ctx, db, &dbsqlc.SettlementRunAcknowledgeableParams{
		MaxRuns: MaxAcknowledged + 1, Outcomes: ask.Outcomes, Programme: ask.Programme,
	})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	if len(ids) > MaxAcknowledged {
		return nil, fault.Invalid("more than %d runs match: take one programme or outcome at a time", MaxAcknowledged)
	}
	results := make([]Result, 0, len(ids))
	for _, id := range ids {
		result, err := readResult(ctx, db, id)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// AcknowledgeAll acknowledges every run that ended with one of the outcomes and was
// not acknowledged, all or none, and returns them.
//
// Fails with [fault.KindInvalid] unless there are exactly as many as ask.Count says:
// whoever decides has seen them, and no other.
func (service *Service) AcknowledgeAll(ctx context.Context, ask Acknowledgement) ([]Result, error) {
	var results []Result
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(ask.By); err != nil {
			return err
		}
		found, err := service.acknowledgeable(ctx, tx, ask)
		if err != nil {
			return err
		}
		if len(found) != ask.Count {
			return fault.Invalid("%d runs match, and not %d: nothing was changed", len(found), ask.Count)
		}
		results = results[:0]
		for i := range found {
			decision := Decision{By: ask.By, Reason: ask.Reason, RunID: found[i].RunID}
			row, err := queries.SettlementRunLock(ctx, tx, &dbsqlc.SettlementRunLockParams{ID: decision.RunID})
			if err != nil {
				return fmt.Errorf("lock run %d: %w", decision.RunID, err)
			}
			if err := acknowledge(ctx, tx, row, decision); err != nil {
				return fmt.Errorf("run %d: %w", decision.RunID, err)
			}
			result, err := readResult(ctx, tx, decision.RunID)
			if err != nil {
				return err
			}
			results = append(results, result)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("acknowledge runs: %w", err)
	}
	return results, nil
}
