package cli

import (
	"context"
	"io"
	"time"
)

// SettlementActions are the actions of the command settlement. Each that changes
// a run returns it as it stands afterwards.
type SettlementActions interface {
	// SettlementAccept lets partial runs that fail for what is accepted end without an
	// alarm, and returns the acceptance with its number.
	SettlementAccept(ctx context.Context, accepted SettlementAcceptance) (SettlementAcceptance, error)

	// SettlementAccepted lists the acceptances that are in force.
	SettlementAccepted(ctx context.Context) ([]SettlementAcceptance, error)

	// SettlementUnaccept revokes an acceptance.
	SettlementUnaccept(ctx context.Context, id int64, as, reason string) error

	// SettlementAcknowledge records that somebody knows what a run that is over did
	// not deliver.
	SettlementAcknowledge(ctx context.Context, decision SettlementDecision) (SettlementRun, error)

	// SettlementAcknowledgeable lists the runs that SettlementAcknowledgeAll is about.
	SettlementAcknowledgeable(ctx context.Context, all SettlementAcknowledgement) ([]SettlementRun, error)

	// SettlementAcknowledgeAll acknowledges all runs that match, if they are exactly
	// as many as the acknowledgement says, and returns them.
	SettlementAcknowledgeAll(ctx context.Context, all SettlementAcknowledgement) ([]SettlementRun, error)

	// SettlementAdjust starts a run of a settled period for what came after it was
	// settled, and returns it; waiting is as of SettlementRun.
	SettlementAdjust(ctx context.Context, request SettlementRequest) (SettlementRun, error)

	// SettlementApprove lets a run that was calculated deliver. Its maker may not.
	SettlementApprove(ctx context.Context, decision SettlementDecision) (SettlementRun, error)

	// SettlementCancel aborts a run that is not over.
	SettlementCancel(ctx context.Context, decision SettlementDecision) (SettlementRun, error)

	// SettlementExplain tells what the runs of a period found a player to be owed,
	// oldest run first, and how.
	SettlementExplain(ctx context.Context, code, period, player string) ([]SettlementItem, error)

	// SettlementExport writes the items of a run as CSV.
	SettlementExport(ctx context.Context, runID int64, to io.Writer) error

	// SettlementList lists runs, the newest first.
	SettlementList(ctx context.Context, filter SettlementFilter) ([]SettlementRun, error)

	// SettlementPreview calculates a period and books nothing.
	SettlementPreview(ctx context.Context, code, period string) (SettlementPreview, error)

	// SettlementReject aborts a run that awaits approval.
	SettlementReject(ctx context.Context, decision SettlementDecision) (SettlementRun, error)

	// SettlementRetry starts a run that attempts again what a run that is over left
	// undelivered, and returns the new run.
	SettlementRetry(ctx context.Context, decision SettlementDecision) (SettlementRun, error)

	// SettlementRun starts the run of a period, unless it has one that is not
	// aborted, and returns it. If the request says to wait, it returns when the run
	// is over, when it waits for inputs or approval, or, with the run as it stands
	// and no error, after the request's timeout. An error of a done ctx may come
	// with the run as it was seen last.
	SettlementRun(ctx context.Context, request SettlementRequest) (SettlementRun, error)

	// SettlementShow returns one run with all that is to be told about it.
	SettlementShow(ctx context.Context, runID int64) (SettlementDetail, error)
}

// SettlementDecision is what somebody decides about a run.
type SettlementDecision struct {
	As     string // who decides; never empty
	Reason string // may be empty for approvals and retries
	RunID  int64  // above 0
}

// SettlementAcceptance is what somebody knows that settlements cannot deliver.
type SettlementAcceptance struct {
	AcceptedAt time.Time `json:"accepted_at"`
	As         string    `json:"accepted_by"`
	ExpiresAt  time.Time `json:"expires_at"`
	Failure    string    `json:"failure"` // such as wallet_frozen
	ID         int64     `json:"id"`
	MaxCredits int       `json:"max_credits"` // that may fail in one run; 0 where a player is named
	Player     string    `json:"player"`      // code; empty for every player of the programme
	Programme  string    `json:"programme"`   // code; empty for every programme
	Reason     string    `json:"reason"`
}

// SettlementAcknowledgement is what somebody knows of several runs.
type SettlementAcknowledgement struct {
	As        string   // never empty
	Count     int      // how many runs it is to be
	Outcomes  []string // partial, none_delivered, aborted; empty means partial
	Programme string   // a programme's code; empty for all
	Reason    string   // never empty but for a list
}

// SettlementFilter says which runs to list.
type SettlementFilter struct {
	Limit     int    // from 1 to 1000
	Programme string // a programme's code; empty for all
}

// SettlementRequest asks for a run of one period.
type SettlementRequest struct {
	As     string // who wants it; never empty
	Code   string // the programme's; never empty
	Period string // such as 2026-W45; never empty

	// Progress is to be called with the run whenever its state has changed, one
	// call at a time, and not after the action has returned. Nil without Wait.
	Progress func(SettlementRun)

	Reason  string        // of an adjustment; may be empty
	Timeout time.Duration // how long to wait; 0 means as long as it takes
	Wait    bool
}

// SettlementRun is one run, by the columns of the view settlement_results and
// some more. Amounts are in minor units of Currency; all numbers are 0 until the
// run was calculated.
type SettlementRun struct {
	AbortDetail    string     `json:"abort_detail"` // for people; empty for none
	AbortReason    string     `json:"abort_reason"` // such as budget; empty unless aborted
	AcknowledgedAt *time.Time `json:"acknowledged_at"`
	ApprovedBy     string     `json:"approved_by"` // empty until somebody did
	Attempt        int        `json:"attempt"`     // of delivery; counts from 1, 0 for none yet
	CreatedBy      string     `json:"created_by"`
	Credited       int64      `json:"credited"`
	CreditedAmount int64      `json:"credited_amount,string"`
	Currency       string     `json:"currency"`
	Deadline       *time.Time `json:"deadline"` // when waiting for inputs ends in an abort
	Eligible       int64      `json:"eligible"`
	EligibleAmount int64      `json:"eligible_amount,string"`
	Evaluated      int64      `json:"evaluated"`
	Excluded       int64      `json:"excluded"`
	Failed         int64      `json:"failed"`
	FailedAmount   int64      `json:"failed_amount,string"`
	FinishedAt     *time.Time `json:"finished_at"` // nil until it is over
	Kind           string     `json:"kind"`        // the programme's, such as cashback
	MaxAttempts    int        `json:"max_attempts"`
	Outcome        string     `json:"outcome"`       // empty until it is done
	ParentRunID    int64      `json:"parent_run_id"` // whose undelivered items a retry attempts; 0 for none
	Pending        int64      `json:"pending"`
	Period         string     `json:"period"` // such as 2026-W45
	Programme      string     `json:"programme"`
	RunID          int64      `json:"run_id"`
	RunKind        string     `json:"run_kind"` // regular, retry, adjustment
	StartedAt      *time.Time `json:"started_at"`
	State          string     `json:"state"`
	Version        int        `json:"version"`   // the programme's
	WaitsFor       string     `json:"waits_for"` // for people, without "waits for"; empty for nothing
	Withheld       int64      `json:"withheld"`
}

// SettlementDetail is one run with what happened to it, and why.
type SettlementDetail struct {
	SettlementRun

	Budget     *SettlementBudget  `json:"budget"`      // without the run; nil for none, and for a run that asks it no more
	Events     []SettlementEvent  `json:"events"`      // the oldest first
	TopReasons []SettlementReason `json:"top_reasons"` // the most items first

	NumUndelivered int64                   `json:"num_undelivered"` // players who are owed something and got nothing
	Undelivered    []SettlementUndelivered `json:"undelivered"`     // the first of them, the largest amounts first
}

// SettlementUndelivered is what a run owed a player and did not pay.
type SettlementUndelivered struct {
	Amount   int64  `json:"amount,string"` // in minor units of the run's currency
	Delivery string `json:"delivery"`      // failed, withheld
	Player   string `json:"player"`
	Why      string `json:"why"` // such as wallet_frozen
}

// SettlementEvent is one thing that happened to a run.
type SettlementEvent struct {
	Actor  string    `json:"actor"` // who did it
	At     time.Time `json:"at"`
	Detail string    `json:"detail"` // for people; empty for none
	Kind   string    `json:"kind"`   // such as approved
	Reason string    `json:"reason"` // what a person gave; empty for none
}

// SettlementReason counts the items of a run that fared alike.
type SettlementReason struct {
	Amount      int64  `json:"amount,string"` // in minor units of the run's currency
	Delivery    string `json:"delivery"`      // such as failed; empty for none
	Disposition string `json:"disposition"`   // eligible, excluded
	NumItems    int64  `json:"num_items"`
	Reason      string `json:"reason"` // such as no_tier; empty for none
}

// SettlementBudget is how much is used of a programme's budget in one of its windows.
type SettlementBudget struct {
	Limit   int64  `json:"limit,string"` // in minor units
	Used    int64  `json:"used,string"`  // paid, or reserved for approved runs
	Version int    `json:"version"`      // of the programme, whose limit it is
	Window  string `json:"window"`       // such as 2026-11
}

// SettlementPreview is what a run of one period would come to.
type SettlementPreview struct {
	Budget         *SettlementBudget     `json:"budget"` // that the run would be asked for now; nil for none
	Currency       string                `json:"currency"`
	Eligible       int64                 `json:"eligible"`
	EligibleAmount int64                 `json:"eligible_amount,string"` // in minor units
	Evaluated      int64                 `json:"evaluated"`
	Excluded       int64                 `json:"excluded"`
	Kind           string                `json:"kind"` // the programme's, such as cashback
	Period         string                `json:"period"`
	Programme      string                `json:"programme"`
	RunKind        string                `json:"run_kind"`    // regular, or adjustment of a settled period
	TopReasons     []SettlementReason    `json:"top_reasons"` // the most items first
	Version        int                   `json:"version"`     // the programme's
	Watermarks     []SettlementWatermark `json:"watermarks"`  // one per input that the basis needs
}

// SettlementWatermark is up to when an input has sent everything.
type SettlementWatermark struct {
	At      *time.Time `json:"at"`     // nil for never
	Needed  time.Time  `json:"needed"` // the period's end
	Reached bool       `json:"reached"`
	Source  string     `json:"source"` // such as bets
}
