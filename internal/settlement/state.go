package settlement

import (
	"context"
	"fmt"
	"time"

	"truegreen/internal/dbsqlc"
)

// Kinds of runs.
const (
	runAdjustment = "adjustment" // what lines that came later change
	runRegular    = "regular"
	runRetry      = "retry" // of what its parent left undelivered
)

// States of a run: where the process is.
const (
	stateAborted          = "aborted"
	stateApproved         = "approved"
	stateAwaitingApproval = "awaiting_approval"
	stateCalculating      = "calculating"
	stateDelivering       = "delivering"
	stateDone             = "done"
	statePlanned          = "planned"
	stateWaitingInputs    = "waiting_inputs"
)

// Outcomes of a run that is done: what it delivered.
const (
	outcomeAllDelivered  = "all_delivered"
	outcomeAllWithheld   = "all_withheld"
	outcomeNoEligible    = "no_eligible"
	outcomeNoneDelivered = "none_delivered"
	outcomePartial       = "partial"
)

// Reasons of a run that was aborted.
const (
	abortBudget         = "budget"
	abortCalculation    = "calculation"
	abortCancelled      = "cancelled"
	abortInputsDeadline = "inputs_deadline"
	abortInvariant      = "invariant"
	abortRejected       = "rejected"
	abortSystemic       = "systemic"
)

// How a job ended.
const (
	jobCompleted = "completed"
	jobFailed    = "failed"
)

func isEnded(state string) bool { return state == stateDone || state == stateAborted }

// databaseNow is the clock that counts.
func databaseNow(ctx context.Context, db dbsqlc.DBTX) (time.Time, error) {
	now, err := queries.ClockNow(ctx, db)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
	}
	return now, nil
}

func valueOr[T any](pointer *T, absent T) T {
	if pointer == nil {
		return absent
	}
	return *pointer
}
