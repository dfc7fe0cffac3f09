package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"truegreen/internal/appconfig"
	"truegreen/internal/audit"
	"truegreen/internal/cli"
	"truegreen/internal/fault"
	"truegreen/internal/programme"
	"truegreen/internal/settlement"
)

const (
	// maxFindings bounds how many findings one audit tells of.
	maxFindings = 1000

	// waitInterval is the time between two looks at a run that is waited for.
	waitInterval = 200 * time.Millisecond
)

// newSettlement makes the settlement service over a pool.
func newSettlement(pool *pgxpool.Pool, logger *slog.Logger, config *appconfig.Config) (*settlement.Service, error) {
	// A client without queues or workers inserts only.
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: slog.New(quietHandler{logger.Handler()})})
	if err != nil {
		return nil, fmt.Errorf("make client that inserts jobs: %w", err)
	}
	return settlement.New(pool, inserter, settlement.Config{
		Backoff:     config.Settlement.Backoff,
		ChunkSize:   config.Settlement.Chunk,
		LockTimeout: config.Settlement.LockTimeout,
		Slice:       config.Settlement.Slice,
	})
}

// withSettlement runs fn with the settlement service of the database.
func withSettlement[T any](ctx context.Context, actions *actions, fn func(service *settlement.Service) (T, error)) (T, error) {
	var none T
	pool, err := actions.open(ctx)
	if err != nil {
		return none, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return none, err
	}
	service, err := newSettlement(pool, actions.logger, actions.config)
	if err != nil {
		return none, err
	}
	return fn(service)
}

// Audit looks at all laws of the books.
func (actions *actions) Audit(ctx context.Context) (cli.AuditReport, error) {
	pool, err := actions.open(ctx)
	if err != nil {
		return cli.AuditReport{}, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return cli.AuditReport{}, err
	}
	found, err := audit.Run(ctx, pool, maxFindings)
	if err != nil {
		return cli.AuditReport{}, err
	}
	report := cli.AuditReport{NumAudits: found.NumAudits, Truncated: found.Truncated}
	for _, finding := range found.Findings {
		report.Findings = append(report.Findings, cli.AuditFinding(finding))
	}
	return report, nil
}

// ProgrammeApply stores the programmes of a source as new versions.
func (actions *actions) ProgrammeApply(ctx context.Context, source cli.ProgrammeSource) ([]cli.ProgrammeVersion, error) {
	terms, err := programme.Parse(source.Name, source.Data)
	if err != nil {
		return nil, err
	}
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.ProgrammeVersion, error) {
		versions, err := service.Apply(ctx, terms, source.As)
		return programmeVersions(versions), err
	})
}

// ProgrammeApprove lets a version settle periods.
func (actions *actions) ProgrammeApprove(ctx context.Context, approval cli.ProgrammeApproval) (cli.ProgrammeVersion, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.ProgrammeVersion, error) {
		version, err := service.ApproveVersion(ctx, approval.Code, approval.Version, approval.As)
		if err != nil {
			return cli.ProgrammeVersion{}, err
		}
		return programmeVersion(version), nil
	})
}

// ProgrammeList lists all versions.
func (actions *actions) ProgrammeList(ctx context.Context) ([]cli.ProgrammeVersion, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.ProgrammeVersion, error) {
		versions, err := service.Versions(ctx)
		if err != nil {
			return nil, err
		}
		inForce, err := settlement.InForceNow(versions, time.Now())
		if err != nil {
			return nil, err
		}
		listed := programmeVersions(versions)
		for i := range versions {
			if inForce[versions[i].Terms.Code] == versions[i].Number {
				listed[i].Status = cli.ProgrammeInForce
			}
		}
		return listed, nil
	})
}

func programmeVersions(versions []settlement.Version) []cli.ProgrammeVersion {
	shown := make([]cli.ProgrammeVersion, 0, len(versions))
	for i := range versions {
		shown = append(shown, programmeVersion(&versions[i]))
	}
	return shown
}

func programmeVersion(version *settlement.Version) cli.ProgrammeVersion {
	status := cli.ProgrammeWaits
	if version.ApprovedAt != nil {
		status = cli.ProgrammeApproved
	}
	return cli.ProgrammeVersion{
		ApprovedAt:    version.ApprovedAt,
		ApprovedBy:    version.ApprovedBy,
		Code:          version.Terms.Code,
		CreatedAt:     version.CreatedAt,
		CreatedBy:     version.CreatedBy,
		Currency:      version.Terms.Currency,
		EffectiveFrom: version.Terms.EffectiveFrom.String(),
		Hash:          version.Hash,
		Kind:          string(version.Terms.Kind),
		Period:        string(version.Terms.Period),
		Status:        status,
		TimeZone:      version.Terms.TimeZone,
		Unchanged:     version.Unchanged,
		Version:       version.Number,
	}
}

// SettlementAcknowledge notes that somebody knows what a run did not deliver.
func (actions *actions) SettlementAcknowledge(ctx context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return actions.settle(ctx, decision, (*settlement.Service).Acknowledge)
}

// SettlementApprove lets a run deliver.
func (actions *actions) SettlementApprove(ctx context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return actions.settle(ctx, decision, (*settlement.Service).Approve)
}

// SettlementCancel ends a run that has not ended.
func (actions *actions) SettlementCancel(ctx context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return actions.settle(ctx, decision, (*settlement.Service).Cancel)
}

// SettlementReject ends a run that awaits approval.
func (actions *actions) SettlementReject(ctx context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return actions.settle(ctx, decision, (*settlement.Service).Reject)
}

func (actions *actions) settle(
	ctx context.Context, decision cli.SettlementDecision,
	decide func(*settlement.Service, context.Context, settlement.Decision) (settlement.Result, error),
) (cli.SettlementRun, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.SettlementRun, error) {
		result, err := decide(service, ctx, settlement.Decision{By: decision.As, Reason: decision.Reason, RunID: decision.RunID})
		if err != nil {
			return cli.SettlementRun{}, err
		}
		return settlementRun(&result), nil
	})
}

// SettlementRetry attempts again what a run left undelivered.
func (actions *actions) SettlementRetry(ctx context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return actions.settle(ctx, decision, (*settlement.Service).Retry)
}

// SettlementList lists runs.
func (actions *actions) SettlementList(ctx context.Context, filter cli.SettlementFilter) ([]cli.SettlementRun, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.SettlementRun, error) {
		results, err := service.List(ctx, filter.Programme, filter.Limit)
		if err != nil {
			return nil, err
		}
		runs := make([]cli.SettlementRun, 0, len(results))
		for i := range results {
			runs = append(runs, settlementRun(&results[i]))
		}
		return runs, nil
	})
}

// SettlementPreview calculates a period and books nothing.
func (actions *actions) SettlementPreview(ctx context.Context, code, period string) (cli.SettlementPreview, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.SettlementPreview, error) {
		preview, err := service.Preview(ctx, code, period)
		if err != nil {
			return cli.SettlementPreview{}, err
		}
		shown := cli.SettlementPreview{
			Budget:         settlementBudget(preview.Budget),
			Currency:       preview.Version.Terms.Currency,
			Eligible:       preview.Eligible,
			EligibleAmount: int64(preview.EligibleAmount),
			Evaluated:      preview.Evaluated,
			Excluded:       preview.Evaluated - preview.Eligible,
			Kind:           string(preview.Version.Terms.Kind),
			Period:         period,
			Programme:      code,
			RunKind:        preview.RunKind,
			TopReasons:     settlementReasons(preview.Reasons),
			Version:        preview.Version.Number,
		}
		for _, mark := range preview.Watermarks {
			shown.Watermarks = append(shown.Watermarks, cli.SettlementWatermark{
				At:      mark.At,
				Needed:  preview.PeriodEndsAt,
				Reached: mark.At != nil && !mark.At.Before(preview.PeriodEndsAt),
				Source:  mark.Source,
			})
		}
		return shown, nil
	})
}

// SettlementRun starts the run of a period, or finds it, and waits for it if that
// is wanted.
func (actions *actions) SettlementRun(ctx context.Context, request cli.SettlementRequest) (cli.SettlementRun, error) {
	return actions.start(ctx, request, func(service *settlement.Service) (int64, error) {
		return service.Plan(ctx, request.Code, request.Period, request.As)
	})
}

// SettlementAcknowledgeable lists the runs that SettlementAcknowledgeAll is about.
func (actions *actions) SettlementAcknowledgeable(ctx context.Context, all cli.SettlementAcknowledgement) ([]cli.SettlementRun, error) {
	return actions.manyRuns(ctx, all, (*settlement.Service).Acknowledgeable)
}

// SettlementAcknowledgeAll acknowledges all runs that match.
func (actions *actions) SettlementAcknowledgeAll(ctx context.Context, all cli.SettlementAcknowledgement) ([]cli.SettlementRun, error) {
	return actions.manyRuns(ctx, all, (*settlement.Service).AcknowledgeAll)
}

func (actions *actions) manyRuns(
	ctx context.Context, all cli.SettlementAcknowledgement,
	act func(*settlement.Service, context.Context, settlement.Acknowledgement) ([]settlement.Result, error),
) ([]cli.SettlementRun, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.SettlementRun, error) {
		results, err := act(service, ctx, settlement.Acknowledgement{
			By: all.As, Count: all.Count, Outcomes: all.Outcomes, Programme: all.Programme, Reason: all.Reason,
		})
		runs := make([]cli.SettlementRun, 0, len(results))
		for i := range results {
			runs = append(runs, settlementRun(&results[i]))
		}
		return runs, err
	})
}

// SettlementAdjust adjusts a period, and waits for the run if that is wanted.
func (actions *actions) SettlementAdjust(ctx context.Context, request cli.SettlementRequest) (cli.SettlementRun, error) {
	return actions.start(ctx, request, func(service *settlement.Service) (int64, error) {
		return service.Adjust(ctx, settlement.Adjustment{By: request.As, Code: request.Code, Key: request.Period, Reason: request.Reason})
	})
}

func (actions *actions) start(
	ctx context.Context, request cli.SettlementRequest, plan func(service *settlement.Service) (int64, error),
) (cli.SettlementRun, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.SettlementRun, error) {
		runID, err := plan(service)
		if err != nil {
			if fault.Is(err, fault.KindInvalid) {
				err = cli.WrongUsage(err)
			}
			return cli.SettlementRun{}, err
		}
		if !request.Wait {
			result, err := service.Get(ctx, runID)
			return settlementRun(&result), err
		}
		return waitForRun(ctx, service, runID, request)
	})
}

// waitForRun looks at a run until it has ended or waits for something.
func waitForRun(ctx context.Context, service *settlement.Service, runID int64, request cli.SettlementRequest) (cli.SettlementRun, error) {
	ticker := time.NewTicker(waitInterval)
	defer ticker.Stop()
	var timeout <-chan time.Time
	if request.Timeout > 0 {
		timer := time.NewTimer(request.Timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	var run cli.SettlementRun
	for {
		result, err := service.Get(ctx, runID)
		if err != nil {
			return run, err
		}
		changed := run.State != result.State
		run = settlementRun(&result)
		if changed && request.Progress != nil {
			request.Progress(run)
		}
		if result.Ended() || result.WaitsFor() != "" {
			return run, nil
		}
		select {
		case <-ctx.Done():
			return run, fmt.Errorf("wait for run %d: %w", runID, ctx.Err())
		case <-timeout:
			return run, nil
		case <-ticker.C:
		}
	}
}

// SettlementExplain tells how a player's amounts came about.
func (actions *actions) SettlementExplain(ctx context.Context, code, period, player string) ([]cli.SettlementItem, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) ([]cli.SettlementItem, error) {
		explanations, err := service.Explain(ctx, code, period, player)
		if err != nil {
			return nil, err
		}
		items := make([]cli.SettlementItem, len(explanations))
		for i := range explanations {
			explained := &explanations[i]
			items[i] = cli.SettlementItem{
				Adj:         explained.Adj,
				Amount:      strconv.FormatInt(explained.Amount, 10),
				Arithmetic:  explained.Lines,
				Currency:    explained.Currency,
				Delivery:    explained.Delivery,
				Disposition: explained.Disposition,
				FailureCode: explained.Failure,
				Reason:      explained.Reason,
				Reference:   explained.Reference,
				RunID:       explained.RunID,
				Version:     explained.Version,
			}
		}
		return items, nil
	})
}

// SettlementExport writes the items of a run.
func (actions *actions) SettlementExport(ctx context.Context, runID int64, to io.Writer) error {
	_, err := withSettlement(ctx, actions, func(service *settlement.Service) (struct{}, error) {
		return struct{}{}, service.Export(ctx, runID, to)
	})
	return err
}

// SettlementShow tells all about one run.
func (actions *actions) SettlementShow(ctx context.Context, runID int64) (cli.SettlementDetail, error) {
	return withSettlement(ctx, actions, func(service *settlement.Service) (cli.SettlementDetail, error) {
		detail, err := service.Show(ctx, runID)
		if err != nil {
			return cli.SettlementDetail{}, err
		}
		shown := cli.SettlementDetail{Budget: settlementBudget(detail.Budget), SettlementRun: settlementRun(&detail.Result), TopReasons: settlementReasons(detail.Reasons)}
		shown.NumUndelivered = detail.NumUndelivered
		for _, item := range detail.Undelivered {
			shown.Undelivered = append(shown.Undelivered, cli.SettlementUndelivered(item))
		}
		for _, event := range detail.Events {
			shown.Events = append(shown.Events, cli.SettlementEvent{
				Actor: event.Actor, At: event.At, Detail: event.Words(), Kind: event.Kind, Reason: event.Reason,
			})
		}
		return shown, nil
	})
}

func settlementBudget(use *settlement.BudgetUse) *cli.SettlementBudget {
	if use == nil {
		return nil
	}
	return &cli.SettlementBudget{Limit: int64(use.Limit), Used: int64(use.Used), Version: use.Version, Window: use.Window}
}

func settlementReasons(reasons []settlement.Reason) []cli.SettlementReason {
	shown := make([]cli.SettlementReason, 0, len(reasons))
	for _, reason := range reasons {
		shown = append(shown, cli.SettlementReason{
			Amount:      reason.Amount,
			Delivery:    reason.Delivery,
			Disposition: reason.Disposition,
			NumItems:    reason.NumItems,
			Reason:      reason.Reason,
		})
	}
	return shown
}

func settlementRun(result *settlement.Result) cli.SettlementRun {
	run := cli.SettlementRun{
		AbortDetail:    result.AbortDetail,
		AbortReason:    result.AbortReason,
		AcknowledgedAt: result.AcknowledgedAt,
		ApprovedBy:     result.ApprovedBy,
		Attempt:        result.Attempt,
		CreatedBy:      result.CreatedBy,
		Credited:       orZero(result.Credited),
		CreditedAmount: orZero(result.CreditedAmount),
		Currency:       result.Currency,
		Eligible:       orZero(result.Eligible),
		EligibleAmount: orZero(result.EligibleAmount),
		Evaluated:      orZero(result.Evaluated),
		Excluded:       orZero(result.Excluded),
		Failed:         orZero(result.Failed),
		FailedAmount:   orZero(result.FailedAmount),
		FinishedAt:     result.FinishedAt,
		Kind:           result.Kind,
		MaxAttempts:    result.MaxAttempts,
		Outcome:        result.Outcome,
		ParentRunID:    result.ParentRunID,
		Pending:        orZero(result.Pending),
		Period:         result.Period,
		Programme:      result.Programme,
		RunID:          result.RunID,
		RunKind:        result.RunKind,
		StartedAt:      result.StartedAt,
		State:          result.State,
		Version:        result.Version,
		WaitsFor:       result.WaitsFor(),
		Withheld:       orZero(result.Withheld),
	}
	if result.WaitsForInputs() {
		run.Deadline = &result.InputsDeadline
	}
	return run
}

func orZero(count *int64) int64 {
	if count == nil {
		return 0
	}
	return *count
}
