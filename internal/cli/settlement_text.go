package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// verdict is what became of a run so far, on one line without its end.
func (run SettlementRun) verdict() string {
	return run.title() + ": " + run.standing() + run.detail() + run.counts() + run.waiting()
}

// title names a run: run 12 of weekly-cashback 2026-W45.
func (run SettlementRun) title() string {
	kind := ""
	if run.RunKind != "" && run.RunKind != "regular" {
		kind = " (" + run.RunKind + ")"
	}
	if run.ParentRunID != 0 {
		kind = fmt.Sprintf(" (%s of run %d)", run.RunKind, run.ParentRunID)
	}
	return fmt.Sprintf("run %d%s of %s %s", run.RunID, kind, run.Programme, run.Period)
}

// standing is the state, with the outcome or the reason of an abort: done/partial.
func (run SettlementRun) standing() string {
	why := run.Outcome
	if run.State == stateAborted {
		why = run.AbortReason
	}
	if why == "" {
		return run.State
	}
	return run.State + "/" + oneLine(why)
}

func (run SettlementRun) detail() string {
	if run.AbortDetail == "" {
		return ""
	}
	return " (" + oneLine(run.AbortDetail) + ")"
}

// counts is what was counted, nothing before there is something to count.
func (run SettlementRun) counts() string {
	switch run.State {
	case statePlanned, stateWaitingInputs, stateCalculating:
		return ""
	case stateAborted:
		if run.Evaluated == 0 {
			return ""
		}
	}
	text := fmt.Sprintf("; %d evaluated, %d eligible, %d credited, %d failed, %d withheld, %d excluded",
		run.Evaluated, run.Eligible, run.Credited, run.Failed, run.Withheld, run.Excluded)
	if run.Pending > 0 {
		text += fmt.Sprintf(", %d pending", run.Pending)
	}
	return text + fmt.Sprintf("; eligible %s, credited %s, failed %s (minor units)",
		amount(run.EligibleAmount, run.Currency), amount(run.CreditedAmount, run.Currency), amount(run.FailedAmount, run.Currency))
}

// waiting is what a run waits for, and for how long at most.
func (run SettlementRun) waiting() string {
	text := ""
	if run.WaitsFor != "" {
		text = "; waits for " + oneLine(run.WaitsFor)
		if run.Deadline != nil {
			text += ", until " + instant(*run.Deadline) + " at most"
		}
	}
	if run.State == stateDelivering && run.Attempt > 0 {
		text += fmt.Sprintf("; attempt %d of %d", run.Attempt, run.MaxAttempts)
	}
	return text
}

// nextSteps are the commands that make sense next, a line each.
func (run SettlementRun) nextSteps() string {
	return run.decisions() + nextStep("settlement show %d", run.RunID)
}

// decisions are the commands by which somebody should decide about a run.
func (run SettlementRun) decisions() string {
	undelivered := run.Outcome == outcomePartial || run.Outcome == outcomeNoneDelivered
	switch {
	case run.State == stateAwaitingApproval:
		return nextStepOfAnother("settlement approve %d", run.RunID)
	case run.State == stateDone && undelivered && run.AcknowledgedAt == nil:
		return nextStep("settlement retry %d", run.RunID) + nextStep("settlement acknowledge %d --reason TEXT", run.RunID)
	case run.State == stateAborted && run.StartedAt != nil:
		return nextStep("settlement retry %d", run.RunID)
	default:
		return ""
	}
}

// amount is an amount for people. How many decimals a currency has is not known
// here: whoever prints it says that it is in minor units.
func amount(minor int64, currency string) string {
	return strings.TrimSpace(strconv.FormatInt(minor, 10) + " " + currency)
}

// reasonTable counts items by how they fared; empty without reasons.
func reasonTable(reasons []SettlementReason, currency string) string {
	rows := [][]string{{"DISPOSITION", "DELIVERY", "REASON", "ITEMS", "AMOUNT (MINOR UNITS)"}}
	for _, reason := range reasons {
		rows = append(rows, []string{
			reason.Disposition, orDash(reason.Delivery), orDash(oneLine(reason.Reason)),
			strconv.FormatInt(reason.NumItems, 10), amount(reason.Amount, currency),
		})
	}
	return orNone(rows, "")
}

// instant is a point in time for people, to the second.
func instant(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// instantOr is instant, or absent for none.
func instantOr(at *time.Time, absent string) string {
	if at == nil {
		return absent
	}
	return instant(*at)
}
