package dbtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/dbtest"
)

// runBinary runs tests of this test binary in a process of their own.
func runBinary(t *testing.T, tests string, environment ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	command := childproc.Command(t.Context(), self, "-test.run="+tests)
	command.Env = append(os.Environ(), environment...)
	output, err := command.CombinedOutput()
	return string(output), err
}

func TestServer_Private(t *testing.T) {
	t.Parallel()

	t.Run("LeavesOneFolderThatTheNextTestBinaryRemoves", func(t *testing.T) {
		t.Parallel()

		temporary := makeTemporary(t)
		var left []string
		for range 2 {
			output, err := runBinary(t, "^TestEmpty$", serverVariable+"=", "TMPDIR="+temporary)
			require.NoError(t, err, output)
			before := left
			left, err = filepath.Glob(filepath.Join(temporary, "truegreen-test-*"))
			require.NoError(t, err)
			require.Len(t, left, 1)
			require.NotEqual(t, before, left)
		}

	})

	t.Run("IsNotWhatDATABASE_URLSays", func(t *testing.T) {
		t.Parallel()

		output, err := runBinary(t, "^TestEmpty$", serverVariable+"=", "TMPDIR="+makeTemporary(t),
			"DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing")
		require.NoError(t, err, output)
	})
}

func TestServer_OfTheVariable(t *testing.T) {
	t.Parallel()

	t.Run("IsUsedAndIsRidOfEarlierRunsButNotOfLivingOnes", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		server, _ := dbtest.Cluster(ctx, t, map[string]string{"fsync": "off"})
		// Another database than the tests are told of: locks are per database.
		conn, err := pgx.Connect(ctx, server.URL("truegreen"))
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		_, err = conn.Exec(ctx, "SELECT pg_advisory_lock(x'fedcba9876543210'::bigint)")
		require.NoError(t, err)
		for _, name := range []string{"truegreen_test_fedcba9876543210_1", "truegreen_test_0123456789abcdef_1", "truegreen_testing"} {
			_, err = conn.Exec(ctx, "CREATE DATABASE "+name)
			require.NoError(t, err)
		}

		output, err := runBinary(t, "^(TestDatabase|TestTx)$", serverVariable+"="+server.URL("postgres"))
		require.NoError(t, err, output)

		rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE datname LIKE 'truegreen\\_test%'")
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Contains(t, names, "truegreen_test_fedcba9876543210_1")
		require.Contains(t, names, "truegreen_testing")
		require.NotContains(t, names, "truegreen_test_0123456789abcdef_1")
		require.Len(t, names, 4, "and the template and the shared database of the run")

		output, err = runBinary(t, "^TestEmpty$", serverVariable+"="+server.URL("postgres"))
		require.NoError(t, err, output)
		require.Equal(t, 2, query[int](ctx, t, conn,
			"SELECT count(*) FROM pg_database WHERE datname LIKE 'truegreen\\_test%'"))
	})

	t.Run("IsNamedInTheErrorWhenItCannotBeUsed", func(t *testing.T) {
		t.Parallel()

		for _, address := range []string{"postgres://nobody@127.0.0.1:1/nothing", "host=127.0.0.1 port=1", "banana"} {
			output, err := runBinary(t, "^TestEmpty$", serverVariable+"="+address)
			require.Error(t, err)
			require.Contains(t, output, serverVariable, address)
			require.LessOrEqual(t, strings.Count(output, "start test database server"), 1)
		}
	})
}

// makeTemporary makes a temporary folder for test binaries run by a test. It is
// removed with what they left there, once their servers have ended.
func makeTemporary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() {
		require.Eventually(t, func() bool {
			running, err := filepath.Glob(filepath.Join(dir, "*", "pg", "data", "postmaster.pid"))
			return err == nil && len(running) == 0
		}, time.Minute, 10*time.Millisecond)
	})
	return dir
}
