package devstack_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
)

func TestStartPostgres_Folders(t *testing.T) {
	t.Parallel()

	refuse := func(t *testing.T, dir string, reasons ...string) {
		t.Helper()
		server, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{DataDir: dir})
		if err == nil {
			_ = server.Stop(t.Context())
		}
		for _, reason := range reasons {
			require.ErrorContains(t, err, reason)
		}
	}

	t.Run("MustBeNamed", func(t *testing.T) {
		t.Parallel()
		refuse(t, "", "DataDir is required")
	})

	t.Run("MayNotHoldWhatSomebodyElsePutThere", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o600))
		refuse(t, dir, dir, "was not made by truegreen", "nothing was touched", "--data-dir")

		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})

	t.Run("MayNotHoldAClusterThatSomebodyElseMade", func(t *testing.T) {
		t.Parallel()

		dir, err := devstack.PrepareDataDir(makeDir(t))
		require.NoError(t, err)
		foreign := filepath.Join(dir, "pg")
		require.NoError(t, os.Mkdir(foreign, 0o711))
		require.NoError(t, os.WriteFile(filepath.Join(foreign, "PG_VERSION"), []byte("15\n"), 0o600))
		refuse(t, dir, foreign, "was not made by truegreen")
	})

	t.Run("MustBeFolders", func(t *testing.T) {
		t.Parallel()

		file := filepath.Join(makeDir(t), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		refuse(t, file, file, "not a directory", "--data-dir")
		refuse(t, filepath.Join(file, "below"), file, "not a directory", "--data-dir")
	})

	t.Run("MustBeWritable", func(t *testing.T) {
		t.Parallel()

		if os.Geteuid() == 0 {
			// Permissions don't bind root, but this folder takes nothing from it.
			refuse(t, "/proc/truegreen", "/proc/truegreen", "--data-dir")
			return
		}
		dir := makeDir(t)
		require.NoError(t, os.Chmod(dir, 0o500))
		refuse(t, dir, dir, "permission denied", "make it writable", "--data-dir")
		refuse(t, filepath.Join(dir, "below"), dir, "permission denied", "make it writable", "--data-dir")
	})

	t.Run("MayHaveAnyName", func(t *testing.T) {
		t.Parallel()

		dir := filepath.Join(makeDir(t), "with spaces", `and 'quotes' "twice"`, "100% $HOME #1", "김치")
		server, _ := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.NoError(t, server.Stop(t.Context()))
		start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
	})

	t.Run("AreTheSameThroughALink", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		start(t.Context(), t, devstack.PostgresConfig{DataDir: filepath.Join(dir, "real")})
		link := filepath.Join(dir, "link")
		require.NoError(t, os.Symlink(filepath.Join(dir, "real"), link))
		refuse(t, link, "is in use by another truegreen", fmt.Sprintf("process %d", os.Getpid()))
	})

	t.Run("AreFreeOnceReleasedThoughAChildIsJustBeingStarted", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		release, copied, err := devstack.LockFolderAndCopy(dir)
		require.NoError(t, err)
		defer func() { _ = syscall.Close(copied) }()
		release()

		again, copiedAgain, err := devstack.LockFolderAndCopy(dir)
		require.NoError(t, err)
		again()
		require.NoError(t, syscall.Close(copiedAgain))
	})

	t.Run("AreReplacedByAnotherWhenPostgresCannotEnter", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		closed := makeDir(t)
		require.NoError(t, os.Chmod(closed, 0o700))
		dir := filepath.Join(closed, "data")

		first, told := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		execute(ctx, t, first.URL(devstack.MainDatabase), "CREATE TABLE kept AS SELECT 42 AS answer")
		if os.Geteuid() == 0 {
			require.Contains(t, told.String(), "the database is kept in "+filepath.Dir(first.DataDir()))
			require.NotContains(t, first.DataDir(), closed)
		} else {
			require.Equal(t, filepath.Join(dir, "pg", "data"), first.DataDir())
		}
		require.ErrorContains(t, devstack.RemoveData(dir), "is in use by another truegreen")
		require.NoError(t, first.Stop(ctx))

		second, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		require.Equal(t, first.DataDir(), second.DataDir())
		require.Equal(t, 42, query[int](ctx, t, second.URL(devstack.MainDatabase), "SELECT answer FROM kept"))
		require.NoError(t, second.Stop(ctx))

		require.NoError(t, devstack.RemoveData(dir))
		require.NoDirExists(t, filepath.Dir(second.DataDir()))
		require.NoDirExists(t, dir)
		require.DirExists(t, closed)
	})
}

func TestStartPostgres_Versions(t *testing.T) {
	t.Parallel()

	// setup makes a folder with a cluster that says it is of another version.
	setup := func(t *testing.T, version string) devstack.PostgresConfig {
		t.Helper()
		dir := makeDir(t)
		server, _ := start(t.Context(), t, devstack.PostgresConfig{DataDir: dir})
		require.NoError(t, server.Stop(t.Context()))
		require.NoError(t, os.WriteFile(filepath.Join(server.DataDir(), "PG_VERSION"), []byte(version), 0o600))
		return devstack.WithFetch(devstack.PostgresConfig{DataDir: dir}, offline)
	}

	for name, version := range map[string]string{
		"TooOld": "14\n", "Ancient": "9.6\n", "Garbage": "banana\n", "Empty": "",
	} {
		t.Run("Refuses"+name, func(t *testing.T) {
			t.Parallel()

			config := setup(t, version)
			_, err := devstack.StartPostgres(t.Context(), config)
			require.ErrorContains(t, err, "15 or newer is needed: start over with --fresh")
			require.DirExists(t, filepath.Join(config.DataDir, "pg", "data", "base"))
		})
	}

	t.Run("RefusesAFolderThatIsNoCluster", func(t *testing.T) {
		t.Parallel()

		config := setup(t, "15\n")
		require.NoError(t, os.Remove(filepath.Join(config.DataDir, "pg", "data", "PG_VERSION")))
		_, err := devstack.StartPostgres(t.Context(), config)
		require.ErrorContains(t, err, "no usable Postgres cluster; start over with --fresh")
	})

	t.Run("NamesTheVersionThatAnExistingClusterNeeds", func(t *testing.T) {
		t.Parallel()

		_, err := devstack.StartPostgres(t.Context(), setup(t, "99\n"))
		require.ErrorIs(t, err, errOffline)
		require.ErrorContains(t, err, "PostgreSQL 99, which made this cluster, is needed")
		require.ErrorContains(t, err, "(found ")
		require.ErrorContains(t, err, "--fresh")
	})
}

func TestRemoveData(t *testing.T) {
	t.Parallel()

	t.Run("RemovesWhatWasMadeAndTheFolderWithIt", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		dir := filepath.Join(makeDir(t), "data")
		server, _ := start(ctx, t, devstack.PostgresConfig{DataDir: dir})
		broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: filepath.Join(dir, "nats")})
		require.NoError(t, err)
		t.Cleanup(broker.Stop)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "env"), nil, 0o600))

		require.ErrorContains(t, devstack.RemoveData(dir, "env"), "is in use by another truegreen")
		require.NoError(t, server.Stop(ctx))
		require.ErrorContains(t, devstack.RemoveData(dir, "env"), "is in use by another truegreen")
		require.DirExists(t, server.DataDir())
		broker.Stop()

		require.NoError(t, devstack.RemoveData(dir, "env"))
		require.NoDirExists(t, dir)
		require.NoError(t, devstack.RemoveData(dir))
	})

	t.Run("LeavesWhatNobodyNamed", func(t *testing.T) {
		t.Parallel()

		dir, err := devstack.PrepareDataDir(makeDir(t))
		require.NoError(t, err)
		mine := filepath.Join(dir, "thesis.txt")
		require.NoError(t, os.WriteFile(mine, []byte("mine"), 0o600))

		require.NoError(t, devstack.RemoveData(dir))
		require.FileExists(t, mine)
		_, err = devstack.PrepareDataDir(dir)
		require.NoError(t, err, "the folder is still ours")
	})

	t.Run("RefusesAForeignFolder", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "pg", "data"), 0o700))
		require.ErrorContains(t, devstack.RemoveData(dir), "was not made by truegreen: nothing was removed")
		require.DirExists(t, filepath.Join(dir, "pg", "data"))
	})

	t.Run("RefusesAForeignFolderInOneOfOurs", func(t *testing.T) {
		t.Parallel()

		for _, name := range []string{"pg", "nats"} {
			dir, err := devstack.PrepareDataDir(makeDir(t))
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "mine"), 0o700))
			require.ErrorContains(t, devstack.RemoveData(dir), name+" was not made by truegreen: nothing was removed")
			require.DirExists(t, filepath.Join(dir, name, "mine"))
		}
	})

	t.Run("RefusesNamesThatLeadElsewhere", func(t *testing.T) {
		t.Parallel()

		dir, err := devstack.PrepareDataDir(makeDir(t))
		require.NoError(t, err)
		for _, name := range []string{"", ".", "..", "../other", "/etc"} {
			require.ErrorContains(t, devstack.RemoveData(dir, name), "only names of entries", name)
		}
	})

	t.Run("StopsAServerThatOutlivedItsParent", func(t *testing.T) {
		t.Parallel()

		dir := makeDir(t)
		parent, report := startChild(t, childOrder{DataDir: dir})
		suspend(t, report.PID)
		kill(t, parent)

		require.NoError(t, devstack.RemoveData(dir))
		require.False(t, devstack.IsRunning(report.PID))
		require.NoDirExists(t, dir)
	})
}

func TestStartPostgres_Programs(t *testing.T) {
	t.Parallel()

	t.Run("SaysWhatItNeedsWhenThereAreNoneAndNoneCanBeFetched", func(t *testing.T) {
		t.Parallel()

		config := devstack.WithoutInstalled(devstack.PostgresConfig{DataDir: makeDir(t)})
		_, err := devstack.StartPostgres(t.Context(), devstack.WithFetch(config, offline))
		require.ErrorIs(t, err, errOffline)
		for _, part := range []string{
			"PostgreSQL 15 or newer is needed", "looked for initdb and postgres in PATH",
			"install it (Debian: apt install postgresql", "--database-url", "TRUEGREEN_TEST_DATABASE_URL",
		} {
			require.ErrorContains(t, err, part)
		}
	})

	t.Run("FetchesNothingWhenTheirFolderIsGiven", func(t *testing.T) {
		t.Parallel()

		empty := makeDir(t)
		_, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{BinDir: empty, DataDir: makeDir(t)})
		require.ErrorContains(t, err, "looked for initdb and postgres in "+empty)
		require.ErrorContains(t, err, "nothing is fetched")
	})

	t.Run("RunsThoseOfTheGivenFolder", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		installed := devstack.InstalledDirs(ctx)
		require.NotEmpty(t, installed)
		server, _ := start(ctx, t, devstack.PostgresConfig{BinDir: installed[len(installed)-1], DataDir: makeDir(t)})
		require.Equal(t, 1, query[int](ctx, t, server.URL(devstack.MainDatabase), "SELECT 1"))
	})

	t.Run("FetchesTheMajorThatIsNewest", func(t *testing.T) {
		t.Parallel()

		var asked int
		config := devstack.WithoutInstalled(devstack.PostgresConfig{DataDir: makeDir(t)})
		_, err := devstack.StartPostgres(t.Context(), devstack.WithFetch(config, func(_ context.Context, major int) (string, error) {
			asked = major
			return "/nonexistent", nil
		}))
		require.ErrorContains(t, err, "try the fetched programs in /nonexistent")
		require.Equal(t, 18, asked)
	})
}
