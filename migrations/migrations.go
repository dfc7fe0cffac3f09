// Package migrations is the only source of the database schema: goose files,
// River's own included, embedded in the binary.
//
// Files 00001 to 00008 hold River's migrations, one version a file, so that one
// tool sees one schema. When a new River version brings a migration, a test
// fails until it has a file here, with the next free number and a name that
// ends in river_NNN.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"truegreen/internal/pgconnect"
)

//go:embed *.sql
var files embed.FS

// Files are the goose files, River's among them.
func Files() fs.FS { return files }

// Status is one migration and whether the database has it.
type Status struct {
	Applied bool
	Name    string
	Version int64
}

// Latest is the number of the newest migration in this binary.
func Latest() (int64, error) {
	sources, err := fs.Glob(files, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var latest int64
	for _, name := range sources {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("read number of migration %s: %w", name, err)
		}
		latest = max(latest, version)
	}
	return latest, nil
}

// Up applies every migration that the database at databaseURL lacks, and
// returns the names of those it applied. Several processes may call it at once:
// an advisory lock lets one of them work.
func Up(ctx context.Context, databaseURL string) ([]string, error) {
	var applied []string
	err := withProvider(ctx, databaseURL, files, true, func(provider *goose.Provider) error {
		results, err := provider.Up(ctx)
		for _, result := range results {
			applied = append(applied, result.Source.Path)
		}
		if err != nil {
			return fmt.Errorf("apply migrations: %w", err)
		}
		return nil
	})
	return applied, err
}

// Down undoes the newest migration that the database has, and returns its name:
// empty when there was none.
func Down(ctx context.Context, databaseURL string) (string, error) {
	var undone string
	err := withProvider(ctx, databaseURL, files, true, func(provider *goose.Provider) error {
		result, err := provider.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("undo newest migration: %w", err)
		}
		undone = result.Source.Path
		return nil
	})
	return undone, err
}

// List says of each migration in this binary whether the database has it, in
// order of their numbers.
func List(ctx context.Context, databaseURL string) ([]Status, error) {
	var list []Status
	err := withProvider(ctx, databaseURL, files, false, func(provider *goose.Provider) error {
		statuses, err := provider.Status(ctx)
		if err != nil {
			return fmt.Errorf("read migration status: %w", err)
		}
		for _, status := range statuses {
			list = append(list, Status{
				Applied: status.State == goose.StateApplied,
				Name:    status.Source.Path,
				Version: status.Source.Version,
			})
		}
		return nil
	})
	return list, err
}

// UpRiverOnly applies River's migrations alone. It exists for the test that
// compares them with what River itself would build.
func UpRiverOnly(ctx context.Context, databaseURL string) error {
	return withProvider(ctx, databaseURL, riverFiles{files}, true, func(provider *goose.Provider) error {
		if _, err := provider.Up(ctx); err != nil {
			return fmt.Errorf("apply River's migrations: %w", err)
		}
		return nil
	})
}

// riverFiles shows goose River's files alone.
type riverFiles struct{ embed.FS }

// Glob is asked for *.sql, and then for *.go, of which there are none.
func (f riverFiles) Glob(pattern string) ([]string, error) {
	if pattern != "*.sql" {
		return nil, nil
	}
	names, err := fs.Glob(f.FS, "*_river_[0-9][0-9][0-9].sql")
	if err != nil {
		return nil, fmt.Errorf("list River's migrations: %w", err)
	}
	return names, nil
}

func withProvider(ctx context.Context, databaseURL string, source fs.FS, writes bool, work func(*goose.Provider) error) error {
	database, err := pgconnect.Parse(databaseURL)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err)
	}
	// Also, goose's lock would retry for minutes on a database that cannot be reached.
	if err := database.Check(ctx); err != nil {
		return fmt.Errorf("reach database: %w", err)
	}
	if writes {
		if err := database.CheckWrites(ctx); err != nil {
			return fmt.Errorf("change schema: %w", err)
		}
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	db := database.DB(pgconnect.Options{Name: "truegreen migrate"})
	defer func() { _ = db.Close() }()

	provider, err := goose.NewProvider(goose.DialectPostgres, db, source,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	return work(provider)
}
