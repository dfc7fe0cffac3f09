package settlement

import (
	"errors"
	"fmt"
)

// ErrRunLost says that another job has taken the run over, or that somebody
// ended it. Nothing of the transaction that found out was committed.
var ErrRunLost = errors.New("the run was taken over by another job, or ended")

// NoneDeliveredError is a run of which nothing was delivered although something
// was owed.
type NoneDeliveredError struct {
	NumUndelivered int64
	Run            string // in words: id, programme and period
	Why            string // the most frequent reasons
}

// Error says what was not delivered, and why.
func (err *NoneDeliveredError) Error() string {
	return fmt.Sprintf("%s: none of %d credits was delivered: %s", err.Run, err.NumUndelivered, err.Why)
}

// PartialDeliveryError is a run of which a part was delivered.
type PartialDeliveryError struct {
	NumCredited    int64
	NumUndelivered int64
	Run            string
	Why            string
}

// Error says what was not delivered, and why.
func (err *PartialDeliveryError) Error() string {
	return fmt.Sprintf("%s: %d of %d credits were not delivered: %s",
		err.Run, err.NumUndelivered, err.NumUndelivered+err.NumCredited, err.Why)
}

// AbortedError is a run that ended without an outcome.
type AbortedError struct {
	Detail string
	Reason string
	Run    string
}

// Error says why it ended.
func (err *AbortedError) Error() string {
	return fmt.Sprintf("%s was aborted (%s): %s", err.Run, err.Reason, err.Detail)
}

// endError is what the job of an ended run returns, however often it is run
// again: nil only where the database says that the work got done, or that it was
// not to be done. It is the only place that decides this.
func (verdict *Verdict) endError() error {
	result := &verdict.Result
	if result.State == stateAborted && verdict.decided() {
		return nil
	}
	switch result.Outcome {
	case outcomeNoEligible, outcomeAllDelivered, outcomeAllWithheld:
		return nil
	case outcomePartial:
		// Which of the two it was to be was decided, and stored, when the run ended.
		if result.jobEnd == jobCompleted {
			return nil
		}
		return verdict.partialError()
	case outcomeNoneDelivered:
		return verdict.noneError()
	default:
		return &AbortedError{Detail: result.AbortDetail, Reason: result.AbortReason, Run: verdict.name()}
	}
}

func (verdict *Verdict) noneError() *NoneDeliveredError {
	return &NoneDeliveredError{NumUndelivered: verdict.numUndelivered(), Run: verdict.name(), Why: verdict.why()}
}

func (verdict *Verdict) partialError() *PartialDeliveryError {
	return &PartialDeliveryError{
		NumCredited:    valueOr(verdict.Result.Credited, 0),
		NumUndelivered: verdict.numUndelivered(),
		Run:            verdict.name(),
		Why:            verdict.why(),
	}
}

func (verdict *Verdict) numUndelivered() int64 {
	return valueOr(verdict.Result.Failed, 0) + valueOr(verdict.Result.Pending, 0)
}

func (verdict *Verdict) name() string {
	return fmt.Sprintf("run %d of %s %s", verdict.Result.RunID, verdict.Result.Programme, verdict.Result.Period)
}
