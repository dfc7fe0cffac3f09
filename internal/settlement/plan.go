package settlement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
	"truegreen/internal/timewindow"
)

// planned is a period with the version that settles it.
type planned struct {
	dueAt   time.Time
	owedAt  time.Time // since when some version, approved by then, has let it be due
	span    timewindow.Span
	version *Version
}

// closedPeriods lists the periods of a programme that have ended, in order, each
// with the version that was in force at its start. It needs the versions of one
// programme, all of which have the same calendar.
func closedPeriods(versions []Version, now time.Time) ([]planned, error) {
	earliest := effectiveSince(versions)
	if earliest == nil {
		return nil, nil
	}
	calendar, err := versions[0].Terms.Calendar()
	if err != nil {
		return nil, fmt.Errorf("read calendar: %w", err)
	}

	var closed []planned
	for span := range calendar.From(*earliest) {
		if span.End.After(now) {
			break
		}
		closed = append(closed, plan(versions, calendar, span))
	}
	return closed, nil
}

// dueWithoutRun lists the periods of a programme that are due and have no run, in
// order: what a tick plans, and what alarms when none does.
func dueWithoutRun(ctx context.Context, db dbsqlc.DBTX, code string, now time.Time) ([]planned, error) {
	versions, err := listVersions(ctx, db, code)
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	keys, err := queries.SettlementPeriodKeysWithRun(ctx, db, &dbsqlc.SettlementPeriodKeysWithRunParams{ProgrammeID: versions[0].programmeID})
	if err != nil {
		return nil, fmt.Errorf("list periods: %w", err)
	}
	hasRun := make(map[string]bool, len(keys))
	for _, key := range keys {
		hasRun[key] = true
	}
	closed, err := closedPeriods(versions, now)
	if err != nil {
		return nil, err
	}
	var missing []planned
	for _, p := range closed {
		if p.version != nil && !hasRun[p.span.Key] && !now.Before(p.dueAt) {
			missing = append(missing, p)
		}
	}
	return missing, nil
}

// effectiveSince is the first day on which any version of a programme was in force; nil
// if none is approved.
func effectiveSince(versions []Version) *timewindow.Day {
	var earliest *timewindow.Day
	for i := range versions {
		version := &versions[i]
		if version.ApprovedAt != nil && (earliest == nil || version.Terms.EffectiveFrom.Before(*earliest)) {
			earliest = &version.Terms.EffectiveFrom
		}
	}
	return earliest
}

// readEffectiveSince is the first day on which a programme that has a run was in force.
func readEffectiveSince(ctx context.Context, tx pgx.Tx, code string) (timewindow.Day, error) {
	versions, err := listVersions(ctx, tx, code)
	if err != nil {
		return timewindow.Day{}, err
	}
	earliest := effectiveSince(versions)
	if earliest == nil {
		return timewindow.Day{}, fmt.Errorf("programme %s has no approved version", code)
	}
	return *earliest, nil
}

// plan says how a period is settled; its version is nil when none is in force.
func plan(versions []Version, calendar timewindow.Calendar, span timewindow.Span) planned {
	day := calendar.LocalDay(span.Start)
	version := inForce(versions, day)
	if version == nil {
		return planned{span: span}
	}
	p := planned{dueAt: span.End.Add(version.Terms.Grace), span: span, version: version}
	for i := range versions {
		other := inForce(versions[i:i+1], day)
		if other == nil {
			continue
		}
		owedAt := span.End.Add(other.Terms.Grace)
		if other.ApprovedAt.After(owedAt) {
			owedAt = *other.ApprovedAt
		}
		if p.owedAt.IsZero() || owedAt.Before(p.owedAt) {
			p.owedAt = owedAt
		}
	}
	return p
}

// making is who makes a run, of which kind, and why.
type making struct {
	kind   string
	maker  string
	reason string // may be empty
}

// planRun adds a run of a period and its job. It adds nothing and returns 0 when
// the period has such a run that was not aborted. The programme must be locked.
func (service *Service) planRun(ctx context.Context, tx pgx.Tx, p planned, how making) (int64, error) {
	runID, err := insertRun(ctx, tx, p, how)
	if err != nil || runID == 0 {
		return 0, err
	}
	terms := &p.version.Terms
	return runID, service.giveJob(ctx, tx, string(terms.Kind), runID, terms.MaxAttempts)
}

// insertRun adds a run without a job.
func insertRun(ctx context.Context, tx pgx.Tx, p planned, how making) (int64, error) {
	period, err := queries.SettlementPeriodEnsure(ctx, tx, &dbsqlc.SettlementPeriodEnsureParams{
		DueAt:       p.dueAt,
		EndsAt:      p.span.End,
		Key:         p.span.Key,
		ProgrammeID: p.version.programmeID,
		StartsAt:    p.span.Start,
	})
	if err != nil {
		return 0, fmt.Errorf("store period %s: %w", p.span.Key, err)
	}
	if !period.StartsAt.Equal(p.span.Start) || !period.EndsAt.Equal(p.span.End) {
		return 0, fmt.Errorf("period %s is stored as %s to %s, but by the rules of its time zone it is %s to %s: settle it by hand",
			p.span.Key, period.StartsAt.UTC(), period.EndsAt.UTC(), p.span.Start, p.span.End)
	}
	terms := &p.version.Terms
	runID, err := queries.SettlementRunInsert(ctx, tx, &dbsqlc.SettlementRunInsertParams{
		CreatedBy:      how.maker,
		Currency:       terms.Currency,
		DueAt:          period.DueAt,
		InputsDeadline: terms.InputsDeadline,
		Kind:           how.kind,
		MaxAttempts:    int32(terms.MaxAttempts),
		PeriodEndsAt:   period.EndsAt,
		PeriodID:       period.ID,
		Sources:        terms.Sources(),
		VersionID:      p.version.id,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("add run of period %s: %w", p.span.Key, err)
	}
	err = record(ctx, tx, runID, event{
		actor:  how.maker,
		detail: map[string]any{"period": p.span.Key, "version": p.version.Number},
		kind:   "planned",
		reason: how.reason,
	})
	return runID, err
}

// Plan makes a run of one period on behalf of a person and returns its id; where
// the period has a run already that was not aborted, it returns that one's.
//
// Fails with [fault.KindNotFound] for an unknown programme, with
// [fault.KindInvalid] for a key that is no period of it, and when no approved
// version was in force; with [fault.KindNotReady] before the period is due.
func (service *Service) Plan(ctx context.Context, code, key, by string) (int64, error) {
	var runID int64
	err := service.inPeriod(ctx, code, key, by, func(tx pgx.Tx, _ []Version, p planned) error {
		regular, err := findRegular(ctx, tx, p, key)
		if err != nil {
			return err
		}
		if regular != nil && regular.State != stateAborted {
			runID = regular.ID
			return nil
		}
		if regular != nil && !regular.isVoid() {
			return fault.Invalid("run %d was aborted after it had begun to pay, so no other may start: truegreen settlement retry %d goes on with it",
				regular.ID, regular.ID)
		}
		now, err := databaseNow(ctx, tx)
		if err != nil {
			return err
		}
		if now.Before(p.dueAt) {
			return fault.NotReady("it is due at %s", p.dueAt.Format(time.RFC3339))
		}
		runID, err = service.planRun(ctx, tx, p, making{kind: runRegular, maker: by})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("settle period %s of programme %s: %w", key, code, err)
	}
	return runID, nil
}

// inPeriod runs fn in a transaction that has locked a programme, with its versions and
// the plan of one period of it, on behalf of a person.
func (service *Service) inPeriod(ctx context.Context, code, key, by string, fn func(tx pgx.Tx, versions []Version, p planned) error) error {
	return pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(by); err != nil {
			return err
		}
		if err := lockProgramme(ctx, tx, code); err != nil {
			return err
		}
		versions, err := listVersions(ctx, tx, code)
		if err != nil {
			return err
		}
		p, err := planOf(ctx, tx, versions, code, key)
		if err != nil {
			return err
		}
		return fn(tx, versions, p)
	})
}

// planOf says how the period of a key is settled.
func planOf(ctx context.Context, db dbsqlc.DBTX, versions []Version, code, key string) (planned, error) {
	if len(versions) == 0 {
		return planned{}, noProgramme(ctx, db, code)
	}
	calendar, err := versions[0].Terms.Calendar()
	if err != nil {
		return planned{}, fmt.Errorf("read calendar: %w", err)
	}
	span, err := calendar.ByKey(key)
	if err != nil {
		return planned{}, fault.Invalid("%w", err)
	}
	p := plan(versions, calendar, span)
	if p.version == nil {
		return planned{}, fault.Invalid("no approved version was in force on %s, when it started: see truegreen programmes list",
			calendar.LocalDay(span.Start))
	}
	return p, nil
}
