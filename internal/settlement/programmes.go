package settlement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

// Version is one version of a programme's terms.
type Version struct {
	ApprovedAt *time.Time // nil while it waits
	ApprovedBy string     // empty while it waits
	CreatedAt  time.Time
	CreatedBy  string
	Hash       string
	Number     int // from 1
	Terms      programme.Terms
	Unchanged  bool // Apply found the newest version to be the same

	id          int64
	programmeID int64
}

// Apply stores terms as new versions, which wait for their approval, all or
// none, and returns them in order of code. Terms that are those of the newest
// version change nothing, and that version is returned.
//
// Fails with [fault.KindInvalid] when a programme would get another kind,
// currency, period or time zone: its periods could overlap or leave gaps.
func (service *Service) Apply(ctx context.Context, terms []programme.Terms, by string) ([]Version, error) {
	var applied []Version
	// In the order in which everybody locks programmes.
	terms = slices.SortedFunc(slices.Values(terms), func(a, b programme.Terms) int { return strings.Compare(a.Code, b.Code) })
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
		if err := checkPerson(by); err != nil {
			return err
		}
		for i := range terms {
			version, err := apply(ctx, tx, &terms[i], by)
			if err != nil {
				return fmt.Errorf("apply programme %s: %w", terms[i].Code, err)
			}
			applied = append(applied, *version)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return applied, nil
}

func apply(ctx context.Context, tx pgx.Tx, terms *programme.Terms, by string) (*Version, error) {
	rules, err := terms.Canonical()
	if err != nil {
		return nil, fmt.Errorf("write its rules: %w", err)
	}
	hash, err := terms.Hash()
	if err != nil {
		return nil, fmt.Errorf("hash its rules: %w", err)
	}
	stored, err := ensureProgramme(ctx, tx, terms)
	if err != nil {
		return nil, err
	}
	versions, err := listVersions(ctx, tx, terms.Code)
	if err != nil {
		return nil, err
	}
	if n := len(versions); n > 0 && versions[n-1].Hash == hash {
		versions[n-1].Unchanged = true
		return &versions[n-1], nil
	}

	day, err := time.Parse(time.DateOnly, terms.EffectiveFrom.String())
	if err != nil {
		return nil, fmt.Errorf("read effective_from: %w", err)
	}
	row, err := queries.ProgrammeVersionInsert(ctx, tx, &dbsqlc.ProgrammeVersionInsertParams{
		CreatedBy:     by,
		EffectiveFrom: pgtype.Date{Time: day, Valid: true},
		ProgrammeID:   stored.ID,
		Rules:         rules,
		RulesHash:     hash,
		Version:       int32(len(versions) + 1),
	})
	if err != nil {
		return nil, fmt.Errorf("store version %d: %w", len(versions)+1, err)
	}
	return &Version{
		CreatedAt:   row.CreatedAt,
		CreatedBy:   row.CreatedBy,
		Hash:        row.RulesHash,
		Number:      int(row.Version),
		Terms:       *terms,
		id:          row.ID,
		programmeID: row.ProgrammeID,
	}, nil
}

// ensureProgramme adds a programme, or checks that what can't change has not.
func ensureProgramme(ctx context.Context, tx pgx.Tx, terms *programme.Terms) (*dbsqlc.Programme, error) {
	err := queries.ProgrammeInsert(ctx, tx, &dbsqlc.ProgrammeInsertParams{
		Code:     terms.Code,
		Currency: terms.Currency,
		Kind:     string(terms.Kind),
		Period:   string(terms.Period),
		TimeZone: terms.TimeZone,
	})
	if err != nil {
		return nil, fmt.Errorf("store it: %w", err)
	}
	stored, err := queries.ProgrammeLock(ctx, tx, &dbsqlc.ProgrammeLockParams{Code: terms.Code})
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	for _, field := range []struct{ name, is, wanted string }{
		{"kind", stored.Kind, string(terms.Kind)},
		{"currency", stored.Currency, terms.Currency},
		{"period", stored.Period, string(terms.Period)},
		{"time_zone", stored.TimeZone, terms.TimeZone},
	} {
		if field.is != field.wanted {
			return nil, fault.Invalid("its %s is %s and stays so, got %s: give the new programme a code of its own",
				field.name, field.is, field.wanted)
		}
	}
	return stored, nil
}

// ApproveVersion lets a version settle periods.
//
// Fails with [fault.KindNotFound] for an unknown programme or version, and with
// [fault.KindInvalid] when it was approved before, or by whom it was made.
func (service *Service) ApproveVersion(ctx context.Context, code string, number int, by string) (*Version, error) {
	var approved *Version
	err := pgtx.Do(ctx, service.pool, func(tx pgx.Tx) error {
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
		if number < 1 || number > len(versions) {
			return fault.NotFound("there is no version %d; the newest is %d", number, len(versions))
		}
		version := &versions[number-1]
		switch {
		case version.ApprovedAt != nil:
			return fault.Invalid("it was approved by %s at %s", version.ApprovedBy, version.ApprovedAt.UTC().Format(time.RFC3339))
		case version.CreatedBy == by:
			return fault.Invalid("%s made it, so somebody else must approve it", by)
		}
		row, err := queries.ProgrammeVersionApprove(ctx, tx, &dbsqlc.ProgrammeVersionApproveParams{ApprovedBy: by, ID: version.id})
		if err != nil {
			return fmt.Errorf("store the approval: %w", err)
		}
		version.ApprovedAt, version.ApprovedBy = row.ApprovedAt, by
		approved = version
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("approve version %d of programme %s: %w", number, code, err)
	}
	return approved, nil
}

// Versions lists the versions of all programmes, in order of code and number.
func (service *Service) Versions(ctx context.Context) ([]Version, error) {
	return listVersions(ctx, service.pool, "")
}

func lockProgramme(ctx context.Context, tx pgx.Tx, code string) error {
	_, err := queries.ProgrammeLock(ctx, tx, &dbsqlc.ProgrammeLockParams{Code: code})
	if errors.Is(err, pgx.ErrNoRows) {
		return noProgramme(ctx, tx, code)
	}
	if err != nil {
		return fmt.Errorf("lock programme %s: %w", code, err)
	}
	return nil
}

// maxProgrammesNamed bounds how many programmes one error names.
const maxProgrammesNamed = 20

// noProgramme refuses a code that no programme has, and names those that exist.
func noProgramme(ctx context.Context, db dbsqlc.DBTX, code string) error {
	codes, err := queries.ProgrammeAllCodes(ctx, db, &dbsqlc.ProgrammeAllCodesParams{MaxRows: maxProgrammesNamed + 1})
	switch {
	case err != nil:
		return fmt.Errorf("list programmes: %w", err)
	case len(codes) == 0:
		return fault.NotFound("there is no programme %s, and no other: truegreen programmes apply FILE stores the first", code)
	case len(codes) > maxProgrammesNamed:
		return fault.NotFound("there is no programme %s: see truegreen programmes list", code)
	}
	return fault.NotFound("there is no programme %s; there are %s", code, strings.Join(codes, ", "))
}

// checkCode refuses a code that no programme has.
func (service *Service) checkCode(ctx context.Context, code string) error {
	versions, err := listVersions(ctx, service.pool, code)
	if err == nil && len(versions) == 0 {
		err = noProgramme(ctx, service.pool, code)
	}
	return err
}

func listVersions(ctx context.Context, db dbsqlc.DBTX, code string) ([]Version, error) {
	rows, err := queries.ProgrammeVersionList(ctx, db, &dbsqlc.ProgrammeVersionListParams{Code: code})
	if err != nil {
		return nil, fmt.Errorf("list versions of programmes: %w", err)
	}
	versions := make([]Version, 0, len(rows))
	for _, row := range rows {
		terms, err := programme.Decode(row.Rules)
		if err != nil {
			return nil, fmt.Errorf("read version %d of programme %s: %w", row.Version, row.Code, err)
		}
		version := Version{
			ApprovedAt:  row.ApprovedAt,
			CreatedAt:   row.CreatedAt,
			CreatedBy:   row.CreatedBy,
			Hash:        row.RulesHash,
			Number:      int(row.Version),
			Terms:       terms,
			id:          row.ID,
			programmeID: row.ProgrammeID,
		}
		if row.ApprovedBy != nil {
			version.ApprovedBy = *row.ApprovedBy
		}
		versions = append(versions, version)
	}
	return versions, nil
}

// inForce returns the version that settles a period starting on a local day: the
// highest that is approved and effective then. nil: none is.
func inForce(versions []Version, day timewindow.Day) *Version {
	var found *Version
	for i := range versions {
		version := &versions[i]
		if version.ApprovedAt != nil && !day.Before(version.Terms.EffectiveFrom) {
			found = version
		}
	}
	return found
}

// InForceNow returns the number of the version of each programme, by code, that
// would settle a period starting at an instant. A programme of which none would
// is not among them. versions are those of [Service.Versions].
func InForceNow(versions []Version, at time.Time) (map[string]int, error) {
	numbers := make(map[string]int)
	for i := range versions {
		calendar, err := versions[i].Terms.Calendar()
		if err != nil {
			return nil, fmt.Errorf("read calendar of programme %s: %w", versions[i].Terms.Code, err)
		}
		// They come in order, so the highest is what stays.
		if inForce(versions[i:i+1], calendar.LocalDay(at)) != nil {
			numbers[versions[i].Terms.Code] = versions[i].Number
		}
	}
	return numbers, nil
}
