package pgconnect_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/pgconnect"
)

func TestParse(t *testing.T) {
	t.Parallel()

	t.Run("TakesEveryOptionOfTheDriver", func(t *testing.T) {
		t.Parallel()

		for _, text := range []string{
			"postgres://u:p@h/d",
			"host=h dbname=d user=u password=p pool_max_conns=10",
			"postgres://u:p@h/d?pool_max_conns=10&pool_min_conns=1&pool_min_idle_conns=1&pool_max_conn_lifetime=1h" +
				"&pool_max_conn_idle_time=1m&pool_health_check_period=1m&pool_max_conn_lifetime_jitter=1s&pool_ping_timeout=1s",
			"postgres://u:p@h/d?statement_cache_capacity=10&description_cache_capacity=10&default_query_exec_mode=cache_describe",
			"postgres://u:p@h1,h2/d?sslmode=prefer&connect_timeout=3&target_session_attrs=read-write&channel_binding=prefer",
			"postgres://u:p@h/d?application_name=x&search_path=a,b&statement_timeout=3s&lock_timeout=1s&work_mem=64MB&my.own=1",
			"postgres://u:p@h/d?options=-c%20search_path%3Da%5C%20b%20-cjit%3Don%20--work-mem%3D64MB",
			"postgres://u:p@h/d?client_encoding=utf-8&TimeZone=UTC&datestyle=ISO,MDY&standard_conforming_strings=on",
		} {
			_, err := pgconnect.Parse(text)
			require.NoError(t, err, text)
		}
	})

	t.Run("RefusesByName", func(t *testing.T) {
		t.Parallel()

		for text, want := range map[string]string{
			"mysql://u:hush@h/d":                                                    "it cannot be parsed",
			"postgres://u:hush@h:port/d":                                            "it cannot be parsed",
			"postgres://u:hush@h/d?pool_max_conns=ten":                              `option "pool_max_conns" has a value that cannot be used`,
			"postgres://u:hush@h/d?sslmode=maybe&pool_max_conns=10":                 `option "sslmode" has a value that cannot be used`,
			"postgres://u:hush@h/d?pool_max_conns=3":                                `option "pool_max_conns" must be at least 4, got 3`,
			"postgres://u:hush@h/d?keepalives=1":                                    `option "keepalives" is not supported: remove it`,
			"postgres://u:hush@h/d?replication=database":                            `option "replication" is not supported: remove it`,
			"postgres://u:hush@h/d?client_encoding=LATIN1":                          `option "client_encoding" must be "UTF8", which Truegreen relies on, got "LATIN1": remove it`,
			"postgres://u:hush@h/d?timezone=Asia/Seoul":                             `option "timezone" must be "UTC"`,
			"postgres://u:hush@h/d?Default_Transaction_Isolation=serializable":      `option "default_transaction_isolation" must be "read committed"`,
			"postgres://u:hush@h/d?options=-c%20standard_conforming_strings%3Doff":  `option "standard_conforming_strings" must be "on"`,
			"postgres://u:hush@h/d?options=--row-security%3Don":                     `option "row_security" must be "off"`,
			"postgres://u:hush@h/d?session_replication_role=replica":                `option "session_replication_role" must be "origin"`,
			"postgres://u:hush@h/d?options=-B%2016":                                 `option "options" may hold -c name=value and --name=value, got "-B"`,
			"postgres://u:hush@h/d?options=-c":                                      `option "options" may hold -c name=value and --name=value, got "-c"`,
			"postgres://u:hush@h/d?default_query_exec_mode=simple_protocol":         `option "default_query_exec_mode" must be cache_statement, cache_describe or describe_exec, got "simple_protocol"`,
			"postgres://u:hush@h/d?default_query_exec_mode=exec":                    `option "default_query_exec_mode" must be cache_statement, cache_describe or describe_exec, got "exec"`,
			"postgres://u:hush@h/d?statement_cache_capacity=0":                      `option "statement_cache_capacity" must be at least 1`,
			"host=h password=hush dbname=d user=u default_query_exec_mode=whatever": "it cannot be parsed",
		} {
			_, err := pgconnect.Parse(text)
			require.ErrorContains(t, err, want, text)
			require.NotContains(t, err.Error(), "hush")
		}
	})
}

// TestParse_Environment cannot run beside others.
func TestParse_Environment(t *testing.T) {
	t.Setenv("PGTZ", "Asia/Seoul")
	t.Setenv("PGOPTIONS", "-c default_transaction_isolation=serializable")
	_, err := pgconnect.Parse("postgres://u:p@h/d")
	require.ErrorContains(t, err, `option "default_transaction_isolation"`, "PGOPTIONS is an option like those of the URL")

	t.Setenv("PGOPTIONS", "")
	_, err = pgconnect.Parse("postgres://u:p@h/d")
	require.NoError(t, err, "PGTZ is about how its user likes to read times")
}
