package pgconnect_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/pgconnect"
)

// parse reads the URL of a test's database with further options.
func parse(t *testing.T, url string, options ...string) *pgconnect.Database {
	t.Helper()
	for _, option := range options {
		separator := "?"
		if strings.Contains(url, "?") {
			separator = "&"
		}
		url += separator + option
	}
	database, err := pgconnect.Parse(url)
	require.NoError(t, err)
	return database
}

// show asks for a setting on a connection of each kind.
func show(ctx context.Context, t *testing.T, database *pgconnect.Database, options pgconnect.Options, setting string) []string {
	t.Helper()
	query := fmt.Sprintf("SELECT current_setting('%s')", setting)
	shown := make([]string, 3)

	conn, err := database.Connect(ctx, options)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	require.NoError(t, conn.QueryRow(ctx, query).Scan(&shown[0]))

	pool, err := database.Pool(ctx, options)
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, pool.QueryRow(ctx, query).Scan(&shown[1]))

	db := database.DB(options)
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.QueryRowContext(ctx, query).Scan(&shown[2]))
	return shown
}

func TestDatabase_Connect(t *testing.T) {
	t.Parallel()

	t.Run("EveryWayKnowsTheSameOptions", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		url := dbtest.Server(ctx, t)
		database := parse(t, url, "pool_max_conns=10", "pool_min_conns=1", "statement_cache_capacity=9", "lock_timeout=7s",
			"options=-c%20search_path%3Dours%20--work-mem%3D11MB", "application_name=mine", "truegreen.own=1")
		options := pgconnect.Options{
			Defaults: map[string]string{"jit": "off", "lock_timeout": "1s"}, Fixed: map[string]string{"statement_timeout": "3s"}, Name: "theirs",
		}
		for setting, want := range map[string]string{
			"application_name": "mine", "jit": "off", "lock_timeout": "7s", "search_path": "ours", "statement_timeout": "3s",
			"truegreen.own": "1", "work_mem": "11MB",
		} {
			require.Equal(t, []string{want, want, want}, show(ctx, t, database, options, setting), setting)
		}
	})

	t.Run("WhatTheURLGivesWinsOverWhatOnlyNewerServersHave", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		url := dbtest.Server(ctx, t)
		require.Equal(t, []string{"0", "0", "0"}, show(ctx, t, parse(t, url), pgconnect.Options{}, "idle_session_timeout"))
		require.Equal(t, []string{"7min", "7min", "7min"}, show(ctx, t, parse(t, url, "idle_session_timeout=7min"), pgconnect.Options{}, "idle_session_timeout"))

		conn, err := parse(t, url).Connect(ctx, pgconnect.Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		var isKnown bool
		require.NoError(t, conn.QueryRow(ctx, "SELECT current_setting('transaction_timeout', true) IS NOT NULL").Scan(&isKnown))
		database := parse(t, url, "transaction_timeout=7min")
		if isKnown {
			require.Equal(t, []string{"7min", "7min", "7min"}, show(ctx, t, database, pgconnect.Options{}, "transaction_timeout"))
		} else {
			require.ErrorContains(t, database.Check(ctx), `unrecognized configuration parameter "transaction_timeout"`)
		}
	})

	t.Run("AnUnknownSettingIsRefusedByName", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		database := parse(t, dbtest.Server(ctx, t), "pool_max_con=10")
		require.ErrorContains(t, database.Check(ctx), `unrecognized configuration parameter "pool_max_con"`)
	})

	t.Run("ThePoolIsNoLargerThanTheURLSays", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		url := dbtest.Server(ctx, t)
		for _, tc := range []struct {
			own  int32
			url  string
			want int32
		}{{12, "pool_max_conns=5", 5}, {12, "pool_max_conns=50", 12}, {12, "jit=off", 12}, {0, "pool_max_conns=50", 50}} {
			pool, err := parse(t, url, tc.url, "pool_min_conns=0").Pool(ctx, pgconnect.Options{MaxConns: tc.own})
			require.NoError(t, err)
			require.Equal(t, tc.want, pool.Config().MaxConns, "%+v", tc)
			pool.Close()
		}
	})
}

func TestDatabase_SearchPath(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Empty(ctx, t)
	database := parse(t, db.URL)
	name := db.Pool.Config().ConnConfig.Database
	_, err := db.Pool.Exec(ctx, "ALTER DATABASE "+name+" SET search_path = one, public")
	require.NoError(t, err)
	require.NoError(t, database.Check(ctx))

	_, err = db.Pool.Exec(ctx, "ALTER DATABASE "+name+" SET search_path = other, public")
	require.NoError(t, err)
	require.Equal(t, []string{"one, public", "one, public", "one, public"}, show(ctx, t, database, pgconnect.Options{}, "search_path"),
		"one process works in one schema, whatever is changed while it runs")
	require.Equal(t, "other, public", show(ctx, t, parse(t, db.URL), pgconnect.Options{}, "search_path")[0])
}

func TestDatabase_Check(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	require.NoError(t, parse(t, dbtest.Server(ctx, t)).Check(ctx))

	err := parse(t, "postgres://nobody:hush@127.0.0.1:1/nothing").Check(ctx)
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.NotContains(t, err.Error(), "hush")
}

func TestDatabase_Check_OneFreeSlot(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := dbtest.Empty(ctx, t)
	role := strings.ReplaceAll(db.Pool.Config().ConnConfig.Database+"_one", "-", "_")
	_, err := db.Pool.Exec(ctx, "CREATE ROLE "+role+" LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := db.Pool.Exec(context.WithoutCancel(ctx), "DROP ROLE "+role)
		require.NoError(t, err)
	})
	address, err := url.Parse(db.URL)
	require.NoError(t, err)
	address.User = url.UserPassword(role, "x")
	database := parse(t, address.String())
	require.NoError(t, database.Check(ctx))

	only, err := database.Connect(ctx, pgconnect.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, only.Close(ctx)) }()
	require.ErrorContains(t, database.Check(ctx), "too many connections", "without any room there is nothing to look at")
}
