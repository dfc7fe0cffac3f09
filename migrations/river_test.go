package migrations_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/migrations"
)

// TestRiver compares River's migrations in our files with River's own.
func TestRiver(t *testing.T) {
	t.Parallel()

	t.Run("HasAFileForEachVersion", func(t *testing.T) {
		t.Parallel()

		require.Empty(t, versionsWithoutFile(t, migrations.Files()))
	})

	t.Run("AVersionWithoutFileIsFound", func(t *testing.T) {
		t.Parallel()

		tooFew := fstest.MapFS{}
		for version := range riverVersions(t) {
			if version != 3 {
				tooFew[fmt.Sprintf("%05d_river_%03d.sql", version+20, version)] = &fstest.MapFile{}
			}
		}
		missing := versionsWithoutFile(t, tooFew)
		require.Len(t, missing, 1)
		require.Contains(t, missing[0], "River's migration 3 ")
		require.Contains(t, missing[0], "_river_003.sql")
	})

	t.Run("BuildsWhatRiverBuilds", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		ours, theirs := dbtest.Empty(ctx, t), dbtest.Empty(ctx, t)
		require.NoError(t, migrations.UpRiverOnly(ctx, ours.URL))
		migrator, err := rivermigrate.New(riverpgxv5.New(theirs.Pool), nil)
		require.NoError(t, err)
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		require.NoError(t, err)

		expected := lines(ctx, t, theirs.Pool, snapshot)
		require.Greater(t, len(expected), 50, "the snapshot sees River's tables")
		require.Empty(t, differences(expected, lines(ctx, t, ours.Pool, snapshot)),
			"the files *_river_NNN.sql no longer make what this version of River makes")

		for _, drift := range []string{
			"ALTER TABLE river_job ALTER COLUMN priority SET DEFAULT 2",
			"ALTER TABLE river_job DROP CONSTRAINT kind_length",
			"ALTER TYPE river_job_state ADD VALUE 'lost'",
			"DROP INDEX river_job_kind",
			"ALTER TABLE river_queue ALTER COLUMN metadata DROP NOT NULL",
			"ALTER TABLE river_leader SET LOGGED",
		} {
			tx, err := ours.Pool.Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, drift)
			require.NoError(t, err, drift)
			require.NotEmpty(t, differences(expected, lines(ctx, t, tx, snapshot)), "the comparison must see: %s", drift)
			require.NoError(t, tx.Rollback(ctx))
		}
	})
}

// riverVersions are the migrations of the River that is in go.mod, by number.
func riverVersions(t *testing.T) map[int]rivermigrate.Migration {
	t.Helper()
	migrator, err := rivermigrate.New(riverpgxv5.New(nil), nil)
	require.NoError(t, err)
	versions := make(map[int]rivermigrate.Migration)
	for _, version := range migrator.AllVersions() {
		versions[version.Version] = version
	}
	require.Greater(t, len(versions), 5)
	return versions
}

// versionsWithoutFile says of each version of River's that has no file in files
// what to do about it.
func versionsWithoutFile(t *testing.T, files fs.FS) []string {
	t.Helper()
	names, err := fs.Glob(files, "*_river_[0-9][0-9][0-9].sql")
	require.NoError(t, err)
	var missing []string
	for number, version := range riverVersions(t) {
		ending := fmt.Sprintf("_river_%03d.sql", number)
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ending) }) {
			continue
		}
		missing = append(missing, fmt.Sprintf(
			"River's migration %d (%s) has no file: put its SQL, up and down, into migrations/NNNNN%s with the next free number, as the others are; rivermigrate has it without the schema's name:\n%s",
			number, version.Name, ending, version.SQLUp))
	}
	slices.Sort(missing)
	return missing
}
