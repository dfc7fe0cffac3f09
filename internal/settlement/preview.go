package settlement

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// Preview is what a run of a period would find now.
type Preview struct {
	Budget         *BudgetUse // that the run would be asked for now; nil for none
	Eligible       int64
	EligibleAmount money.Minor
	Evaluated      int64
	PeriodEndsAt   time.Time
	Reasons        []Reason // the largest groups first
	RunKind        string   // regular; adjustment of a period that is settled
	Version        Version  // whose terms they are: the run's, if the period has one
	Watermarks     []Watermark

	periodID int64
}

// Preview works out a period as a run would, by the same code, and stores
// nothing. It locks nothing either, and sees one moment. It does not ask whether
// the period is due or its inputs are complete.
//
// A period whose run has ended is previewed as its adjustment would find it.
//
// Fails with [fault.KindNotFound] for an unknown programme, and with
// [fault.KindInvalid] for a key that is no period of it, when no approved version
// was in force, and for a period whose run has calculated it and not ended.
func (service *Service) Preview(ctx context.Context, code, key string) (*Preview, error) {
	var preview *Preview
	options := pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}
	err := pgx.BeginTxFunc(ctx, service.pool, options, func(tx pgx.Tx) error {
		preview = &Preview{}
		p, err := preview.plan(ctx, tx, code, key)
		if err != nil {
			return err
		}
		marks, err := readInputs(ctx, tx, p.version.Terms.Sources())
		if err != nil {
			return err
		}
		preview.PeriodEndsAt, preview.Version, preview.Watermarks = p.span.End, *p.version, marks
		return preview.calculate(ctx, tx, code, p)
	})
	if err != nil {
		return nil, fmt.Errorf("preview period %s of programme %s: %w", key, code, err)
	}
	return preview, nil
}

// plan is that of a period, by the version that its run has, if it has one. A
// period whose run has ended is one for an adjustment.
func (preview *Preview) plan(ctx context.Context, tx pgx.Tx, code, key string) (planned, error) {
	versions, err := listVersions(ctx, tx, code)
	if err != nil {
		return planned{}, err
	}
	p, err := planOf(ctx, tx, versions, code, key)
	if err != nil {
		return planned{}, err
	}
	regular, err := findRegular(ctx, tx, p, key)
	if err != nil {
		return planned{}, err
	}
	if preview.Budget, err = useOf(ctx, tx, p.version, p.span.Start, 0); err != nil {
		return planned{}, err
	}
	preview.RunKind = runRegular
	switch {
	case regular == nil || regular.isVoid():
		return p, nil
	case isEnded(regular.State):
		preview.RunKind = runAdjustment
		preview.periodID = regular.PeriodID
	case regular.State != statePlanned && regular.State != stateWaitingInputs:
		return planned{}, fault.Invalid("run %d has calculated it: see truegreen settlement show %d", regular.ID, regular.ID)
	}
	p.version = &versions[regular.Version-1]
	return p, nil
}

// calculate fills in the counts.
func (preview *Preview) calculate(ctx context.Context, tx pgx.Tx, code string, p planned) error {
	since, err := readEffectiveSince(ctx, tx, code)
	if err != nil {
		return err
	}
	groups := make(map[Reason]*Reason)
	of := subject{effectiveSince: since, endsAt: p.span.End, periodID: preview.periodID, programmeID: p.version.programmeID, startsAt: p.span.Start, terms: &p.version.Terms}
	err = eachPage(ctx, tx, of, func(items []*dbsqlc.SettlementItemInsertParams) error {
		for _, item := range items {
			preview.Evaluated++
			group := Reason{Delivery: valueOr(item.Delivery, ""), Disposition: item.Disposition, Reason: valueOr(item.Reason, "")}
			if groups[group] == nil {
				groups[group] = &Reason{Delivery: group.Delivery, Disposition: group.Disposition, Reason: group.Reason}
			}
			groups[group].Amount += item.AmountMinor
			groups[group].NumItems++
			if item.Delivery == nil {
				continue
			}
			preview.Eligible++
			var err error
			if preview.EligibleAmount, err = preview.EligibleAmount.Add(money.Minor(item.AmountMinor)); err != nil {
				return fmt.Errorf("sum up what is owed: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, group := range groups {
		preview.Reasons = append(preview.Reasons, *group)
	}
	slices.SortFunc(preview.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.NumItems, a.NumItems), cmp.Compare(a.Disposition+a.Reason, b.Disposition+b.Reason))
	})
	return nil
}
