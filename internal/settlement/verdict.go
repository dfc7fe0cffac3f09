package settlement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
)

// maxReasons bounds how many groups of items are told apart where a run is told
// of in short.
const maxReasons = 20

// Result is a run with what came of it. Counts are nil until they are known:
// those of the calculation once it is calculated, those of the delivery once it
// is done. Amounts are minor units of Currency.
type Result struct {
	AbortDetail    string
	AbortReason    string
	AcknowledgedAt *time.Time
	ApprovedAt     *time.Time
	ApprovedBy     string
	Attempt        int
	CreatedAt      time.Time
	CreatedBy      string
	Credited       *int64
	CreditedAmount *int64
	Currency       string
	DueAt          time.Time
	Eligible       *int64
	EligibleAmount *int64
	Evaluated      *int64
	Excluded       *int64
	Failed         *int64
	FailedAmount   *int64
	FinishedAt     *time.Time
	InputsAt       *time.Time // the watermark that the calculation rests on
	InputsDeadline time.Time
	Kind           string
	MaxAttempts    int
	Outcome        string
	ParentRunID    int64 // of a retry; 0 for none
	Pending        *int64
	Period         string
	PeriodEndsAt   time.Time
	Programme      string
	RunID          int64
	RunKind        string
	Sources        []string   // whose watermarks it waits for
	StartedAt      *time.Time // of the delivery
	State          string
	Version        int
	Withheld       *int64

	jobEnd string
}

// Reason is a group of a run's items that fared the same.
type Reason struct {
	Amount      int64  `json:"amount,string"`
	Class       string `json:"class,omitempty"`    // of a failure
	Delivery    string `json:"delivery,omitempty"` // of eligible ones
	Disposition string `json:"disposition"`
	NumItems    int64  `json:"num_items"`
	Reason      string `json:"reason,omitempty"`
}

func resultOf(row *dbsqlc.SettlementResult) Result {
	return Result{
		AbortDetail:    valueOr(row.AbortDetail, ""),
		AbortReason:    valueOr(row.AbortReason, ""),
		AcknowledgedAt: row.AcknowledgedAt,
		ApprovedAt:     row.ApprovedAt,
		ApprovedBy:     valueOr(row.ApprovedBy, ""),
		Attempt:        int(row.Attempt),
		CreatedAt:      row.CreatedAt,
		CreatedBy:      row.CreatedBy,
		Credited:       row.Credited,
		CreditedAmount: row.CreditedAmount,
		Currency:       row.Currency,
		DueAt:          row.DueAt,
		Eligible:       row.Eligible,
		EligibleAmount: row.EligibleAmount,
		Evaluated:      row.Evaluated,
		Excluded:       row.Excluded,
		Failed:         row.Failed,
		FailedAmount:   row.FailedAmount,
		FinishedAt:     row.FinishedAt,
		InputsAt:       row.InputsAt,
		InputsDeadline: row.InputsDeadlineAt,
		Kind:           row.Kind,
		MaxAttempts:    int(row.MaxAttempts),
		Outcome:        valueOr(row.Outcome, ""),
		ParentRunID:    valueOr(row.ParentRunID, 0),
		Pending:        row.Pending,
		Period:         row.Period,
		PeriodEndsAt:   row.PeriodEndsAt,
		Programme:      row.Programme,
		RunID:          row.RunID,
		RunKind:        row.RunKind,
		Sources:        row.Sources,
		StartedAt:      row.StartedAt,
		State:          row.State,
		Version:        int(row.Version),
		Withheld:       row.Withheld,
		jobEnd:         valueOr(row.JobEnd, ""),
	}
}

func readResult(ctx context.Context, db dbsqlc.DBTX, runID int64) (Result, error) {
	row, err := queries.SettlementResultGet(ctx, db, &dbsqlc.SettlementResultGetParams{RunID: runID})
	if errors.Is(err, pgx.ErrNoRows) {
		return Result{}, noRun(ctx, db, runID)
	}
	if err != nil {
		return Result{}, fmt.Errorf("read run %d: %w", runID, err)
	}
	return resultOf(row), nil
}

func readReasons(ctx context.Context, db dbsqlc.DBTX, runID int64) ([]Reason, error) {
	rows, err := queries.SettlementItemReasons(ctx, db, &dbsqlc.SettlementItemReasonsParams{MaxGroups: maxReasons, RunID: runID})
	if err != nil {
		return nil, fmt.Errorf("count items of run %d: %w", runID, err)
	}
	reasons := make([]Reason, 0, len(rows))
	for _, row := range rows {
		reasons = append(reasons, Reason{
			Amount:      row.AmountMinor,
			Class:       row.FailureClass,
			Delivery:    row.Delivery,
			Disposition: row.Disposition,
			NumItems:    row.NumItems,
			Reason:      row.Reason,
		})
	}
	return reasons, nil
}

// Verdict is what is said of a run at its end: in the log, and as the recorded
// output of its job.
type Verdict struct {
	Result Result
	Top    []Reason // why items failed, were withheld, or excluded, the most frequent first

	isAccepted bool // somebody has accepted all that failed
}

func readVerdict(ctx context.Context, db dbsqlc.DBTX, runID int64) (*Verdict, error) {
	result, err := readResult(ctx, db, runID)
	if err != nil {
		return nil, err
	}
	reasons, err := readReasons(ctx, db, runID)
	if err != nil {
		return nil, err
	}
	verdict := &Verdict{Result: result}
	for _, reason := range reasons {
		if reason.Reason != "" {
			verdict.Top = append(verdict.Top, reason)
		}
	}
	return verdict, nil
}

// Summary is the verdict as JSON.
func (verdict *Verdict) Summary() map[string]any {
	summary := make(map[string]any)
	for _, attribute := range verdict.attributes() {
		summary[attribute.Key] = attribute.Value.Any()
	}
	summary["reasons"] = verdict.Top
	return summary
}

// attributes are the verdict's facts, in the order in which one reads them.
// Unknown counts are left out, rather than shown as 0.
func (verdict *Verdict) attributes() []slog.Attr {
	result := &verdict.Result
	attributes := []slog.Attr{
		slog.Int64("run_id", result.RunID),
		slog.String("programme", result.Programme),
		slog.Int("version", result.Version),
		slog.String("period", result.Period),
		slog.String("state", result.State),
		slog.String("outcome", result.Outcome),
	}
	if result.RunKind != runRegular {
		attributes = append(attributes, slog.String("run_kind", result.RunKind))
	}
	if result.ParentRunID != 0 {
		attributes = append(attributes, slog.Int64("parent_run_id", result.ParentRunID))
	}
	if result.AbortReason != "" {
		attributes = append(attributes,
			slog.String("abort_reason", result.AbortReason), slog.String("abort_detail", result.AbortDetail))
	}
	for _, count := range []struct {
		name  string
		value *int64
	}{
		{"num_evaluated", result.Evaluated},
		{"num_eligible", result.Eligible},
		{"num_credited", result.Credited},
		{"num_failed", result.Failed},
		{"num_withheld", result.Withheld},
		{"num_excluded", result.Excluded},
	} {
		if count.value != nil {
			attributes = append(attributes, slog.Int64(count.name, *count.value))
		}
	}
	attributes = append(attributes, slog.String("currency", result.Currency))
	for _, amount := range []struct {
		name  string
		value *int64
	}{
		{"eligible_minor", result.EligibleAmount},
		{"credited_minor", result.CreditedAmount},
		{"failed_minor", result.FailedAmount},
	} {
		if amount.value != nil {
			attributes = append(attributes, slog.String(amount.name, strconv.FormatInt(*amount.value, 10)))
		}
	}
	attributes = append(attributes, slog.Int("attempt", result.Attempt))
	if result.StartedAt != nil && result.FinishedAt != nil {
		attributes = append(attributes, slog.String("duration", result.FinishedAt.Sub(*result.StartedAt).Round(time.Millisecond).String()))
	}
	return attributes
}

// why is the most frequent reasons of one delivery in words, such as "3 ×
// wallet_frozen (permanent)".
func (verdict *Verdict) why() string {
	const most = 3
	var words []string
	for _, reason := range verdict.Top {
		if reason.Disposition == "eligible" && len(words) < most {
			text := fmt.Sprintf("%d × %s", reason.NumItems, reason.Reason)
			if reason.Class != "" {
				text += " (" + reason.Class + ")"
			}
			words = append(words, text)
		}
	}
	return strings.Join(words, ", ")
}

// log writes the one line that tells how a run ended.
func (verdict *Verdict) log(ctx context.Context, logger *slog.Logger) {
	level := slog.LevelError
	switch verdict.Result.Outcome {
	case outcomeAllDelivered, outcomeNoEligible:
		level = slog.LevelInfo
	case outcomeAllWithheld:
		level = slog.LevelWarn
	}
	if verdict.decided() || verdict.isAccepted {
		level = slog.LevelWarn
	}
	attributes := verdict.attributes()
	if why := verdict.why(); why != "" {
		attributes = append(attributes, slog.String("reasons", why))
	}
	logger.LogAttrs(ctx, level, "settlement ended", attributes...)
}

// decided reports whether a person ended the run.
func (verdict *Verdict) decided() bool {
	return verdict.Result.AbortReason == abortCancelled || verdict.Result.AbortReason == abortRejected
}

// logPass writes the line of a pass that left something undelivered and is not
// the last.
func (verdict *Verdict) logPass(ctx context.Context, logger *slog.Logger) {
	level := slog.LevelWarn
	if valueOr(verdict.Result.Credited, 0) == 0 {
		level = slog.LevelError
	}
	logger.LogAttrs(ctx, level, "settlement pass left credits undelivered",
		append(verdict.attributes(), slog.String("reasons", verdict.why()))...)
}

// logIfAny writes the line of a verdict that there is.
func (verdict *Verdict) logIfAny(ctx context.Context, logger *slog.Logger) {
	if verdict != nil {
		verdict.log(ctx, logger)
	}
}

// Ended reports whether a run is over.
func (result *Result) Ended() bool { return isEnded(result.State) }

// WaitsForInputs reports whether a run waits for its watermarks.
func (result *Result) WaitsForInputs() bool { return result.State == stateWaitingInputs }

// WaitsFor says, for people, what a run waits for that no job can bring; empty
// when it waits for nothing.
func (result *Result) WaitsFor() string {
	switch result.State {
	case stateWaitingInputs:
		return fmt.Sprintf("the watermarks of %s to reach %s", strings.Join(result.Sources, " and "), result.PeriodEndsAt.UTC().Format(time.RFC3339))
	case stateAwaitingApproval:
		return fmt.Sprintf("the approval of somebody other than %s", result.CreatedBy)
	default:
		return ""
	}
}
