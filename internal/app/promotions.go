package app

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/devstack/sample"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
)

const (
	// devSettlementInterval is how often a development stack looks for what is to
	// be settled.
	devSettlementInterval = 5 * time.Second

	// numSampleRuns is how many runs two programmes have over two closed weeks.
	numSampleRuns = 4

	// Who makes and who approves the sample's programmes: they must differ.
	sampleAuthor   = "dev:author"
	sampleApprover = "dev:approver"
)

// promote applies and approves the sample's programmes, unless there are any
// already; then it returns nil.
func (playground *playground) promote(ctx context.Context, pool *pgxpool.Pool, end time.Time) (*settlement.Service, error) {
	actions := playground.stack.actions
	service, err := newSettlement(pool, actions.logger, actions.config)
	if err != nil {
		return nil, err
	}
	versions, err := service.Versions(ctx)
	if err != nil || len(versions) > 0 {
		return nil, err
	}
	text, err := sample.Programmes(sample.Config{End: end})
	if err != nil {
		return nil, err
	}
	terms, err := programme.Parse("the sample's programmes", bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	applied, err := service.Apply(ctx, terms, sampleAuthor)
	if err != nil {
		return nil, err
	}
	for i := range applied {
		if _, err := service.ApproveVersion(ctx, applied[i].Terms.Code, applied[i].Number, sampleApprover); err != nil {
			return nil, err
		}
		playground.stack.say("programme %s version %d: made by %s, approved by %s; its closed weeks are due",
			applied[i].Terms.Code, applied[i].Number, sampleAuthor, sampleApprover)
	}
	return service, nil
}

// tellSettlements says how the runs of the sample's programmes stand once each
// has ended or waits for a person.
func (playground *playground) tellSettlements(ctx context.Context, service *settlement.Service) {
	told := make(map[int64]bool)
	for deadline := time.Now().Add(2 * time.Minute); ctx.Err() == nil && time.Now().Before(deadline) && len(told) < numSampleRuns; {
		// What can't be read now is tried again; it is only for telling.
		results, _ := service.List(ctx, "", numSampleRuns)
		for i := len(results) - 1; i >= 0; i-- {
			result := &results[i]
			if told[result.RunID] || (!result.Ended() && result.WaitsFor() == "") {
				continue
			}
			told[result.RunID] = true
			playground.stack.say("%s", settledInWords(result))
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitInterval):
		}
	}
}

func settledInWords(result *settlement.Result) string {
	text := fmt.Sprintf("settlement %d of %s %s: ", result.RunID, result.Programme, result.Period)
	if waits := result.WaitsFor(); waits != "" {
		return text + fmt.Sprintf("%d players are owed %d %s (minor units); it waits for %s",
			orZero(result.Eligible), orZero(result.EligibleAmount), result.Currency, waits)
	}
	return text + fmt.Sprintf("%s; %d players were credited %d %s (minor units)",
		result.Outcome+result.AbortReason, orZero(result.Credited), orZero(result.CreditedAmount), result.Currency)
}
