package cli_test

import (
	"context"
	"io"
	"time"

	"truegreen/internal/cli"
)

// fakeProgrammes are answers about programmes.
type fakeProgrammes struct{ versions []cli.ProgrammeVersion }

// fakeSettlements are answers about settlements.
type fakeSettlements struct {
	accepted []cli.SettlementAcceptance
	detail   cli.SettlementDetail
	items    []cli.SettlementItem
	preview  cli.SettlementPreview
	progress []cli.SettlementRun // what a request is told while it waits
	run      cli.SettlementRun
	runs     []cli.SettlementRun
}

func (fake *fakeActions) ProgrammeApply(_ context.Context, source cli.ProgrammeSource) ([]cli.ProgrammeVersion, error) {
	content, err := io.ReadAll(source.Data)
	if err != nil {
		return nil, err
	}
	return fake.versions, fake.call("apply %s as %s: %s", source.Name, source.As, content)
}

func (fake *fakeActions) ProgrammeApprove(_ context.Context, approval cli.ProgrammeApproval) (cli.ProgrammeVersion, error) {
	version := cli.ProgrammeVersion{}
	if len(fake.versions) > 0 {
		version = fake.versions[0]
	}
	return version, fake.call("approve %+v", approval)
}

func (fake *fakeActions) ProgrammeList(context.Context) ([]cli.ProgrammeVersion, error) {
	return fake.versions, fake.call("list programmes")
}

func (fake *fakeActions) SettlementAcknowledge(_ context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return fake.run, fake.call("acknowledge %+v", decision)
}

func (fake *fakeActions) SettlementAccept(_ context.Context, accepted cli.SettlementAcceptance) (cli.SettlementAcceptance, error) {
	accepted.ID = 3
	return accepted, fake.call("accept %s of %q in %q as %s because %s", accepted.Failure, accepted.Player, accepted.Programme, accepted.As, accepted.Reason)
}

func (fake *fakeActions) SettlementAccepted(context.Context) ([]cli.SettlementAcceptance, error) {
	return fake.accepted, fake.call("accepted")
}

func (fake *fakeActions) SettlementUnaccept(_ context.Context, id int64, as, reason string) error {
	return fake.call("unaccept %d as %s because %s", id, as, reason)
}

func (fake *fakeActions) SettlementAcknowledgeable(_ context.Context, all cli.SettlementAcknowledgement) ([]cli.SettlementRun, error) {
	return fake.runs, fake.call("acknowledgeable %+v", all)
}

func (fake *fakeActions) SettlementAcknowledgeAll(_ context.Context, all cli.SettlementAcknowledgement) ([]cli.SettlementRun, error) {
	return fake.runs, fake.call("acknowledge all %+v", all)
}

func (fake *fakeActions) SettlementAdjust(_ context.Context, request cli.SettlementRequest) (cli.SettlementRun, error) {
	return fake.run, fake.call("adjust %s %s as %s because %q, wait %t %s", request.Code, request.Period, request.As, request.Reason, request.Wait, request.Timeout)
}

func (fake *fakeActions) SettlementApprove(_ context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return fake.run, fake.call("approve %+v", decision)
}

func (fake *fakeActions) SettlementCancel(_ context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return fake.run, fake.call("cancel %+v", decision)
}

func (fake *fakeActions) SettlementExplain(_ context.Context, code, period, player string) ([]cli.SettlementItem, error) {
	return fake.items, fake.call("explain %s %s %s", code, period, player)
}

func (fake *fakeActions) SettlementExport(_ context.Context, runID int64, to io.Writer) error {
	_, _ = io.WriteString(to, "run_id\n")
	return fake.call("export %d", runID)
}

func (fake *fakeActions) SettlementList(_ context.Context, filter cli.SettlementFilter) ([]cli.SettlementRun, error) {
	return fake.runs, fake.call("list %+v", filter)
}

func (fake *fakeActions) SettlementPreview(_ context.Context, code, period string) (cli.SettlementPreview, error) {
	return fake.preview, fake.call("preview %s %s", code, period)
}

func (fake *fakeActions) SettlementReject(_ context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return fake.run, fake.call("reject %+v", decision)
}

func (fake *fakeActions) SettlementRetry(_ context.Context, decision cli.SettlementDecision) (cli.SettlementRun, error) {
	return fake.run, fake.call("retry %+v", decision)
}

func (fake *fakeActions) SettlementRun(_ context.Context, request cli.SettlementRequest) (cli.SettlementRun, error) {
	if request.Progress != nil {
		for _, run := range fake.progress {
			request.Progress(run)
		}
	}
	return fake.run, fake.call("run %s %s as %s, wait %t %s", request.Code, request.Period, request.As, request.Wait, request.Timeout)
}

func (fake *fakeActions) SettlementShow(_ context.Context, runID int64) (cli.SettlementDetail, error) {
	return fake.detail, fake.call("show %d", runID)
}

// sampleRun is a run that was delivered in part.
func sampleRun() cli.SettlementRun {
	return cli.SettlementRun{
		ApprovedBy:     "bo",
		Attempt:        2,
		CreatedBy:      "cli:ana",
		Credited:       990,
		CreditedAmount: 1234500,
		Currency:       "KRW",
		Eligible:       1003,
		EligibleAmount: 1250000,
		Evaluated:      1203,
		Excluded:       200,
		Failed:         10,
		FailedAmount:   15500,
		FinishedAt:     new(time.Date(2026, 11, 9, 2, 10, 5, 600, time.UTC)),
		Kind:           "cashback",
		MaxAttempts:    6,
		Outcome:        "partial",
		Period:         "2026-W45",
		Programme:      "weekly-cashback",
		RunID:          12,
		RunKind:        "regular",
		StartedAt:      new(time.Date(2026, 11, 9, 11, 0, 0, 0, time.FixedZone("KST", 9*60*60))),
		State:          "done",
		Version:        3,
		Withheld:       3,
	}
}

// sampleRunIn is a run of which nothing is known but where it is.
func sampleRunIn(state, outcome string) cli.SettlementRun {
	return cli.SettlementRun{
		Currency: "KRW", Outcome: outcome, Period: "2026-W45", Programme: "weekly-cashback", RunID: 12, RunKind: "regular", State: state,
	}
}

func sampleVersions() []cli.ProgrammeVersion {
	created := time.Date(2026, 9, 30, 8, 0, 0, 0, time.UTC)
	return []cli.ProgrammeVersion{
		{
			Code: "first-deposit", CreatedAt: created, CreatedBy: "cli:ana", Currency: "KRW", EffectiveFrom: "2026-11-01", Hash: "ab12",
			Kind: "lossback", Period: "daily", Status: cli.ProgrammeWaits, TimeZone: "Asia/Seoul", Version: 2,
		},
		{
			ApprovedAt: new(created.Add(time.Hour)), ApprovedBy: "bo", Code: "weekly-cashback", CreatedAt: created, CreatedBy: "cli:ana",
			Currency: "KRW", EffectiveFrom: "2026-10-01", Hash: "cd34", Kind: "cashback", Period: "weekly", Status: cli.ProgrammeInForce,
			TimeZone: "Asia/Seoul", Unchanged: true, Version: 1,
		},
	}
}
