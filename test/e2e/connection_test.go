package e2e_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
)

// hostileDefaults are session settings that would change what the product does, or
// keep it from doing it, if a connection took them as they are.
var hostileDefaults = map[string]string{
	"DateStyle":                           "German, DMY",
	"IntervalStyle":                       "sql_standard",
	"TimeZone":                            "Asia/Kolkata",
	"array_nulls":                         "off",
	"backslash_quote":                     "on",
	"bytea_output":                        "escape",
	"check_function_bodies":               "off",
	"client_encoding":                     "LATIN1",
	"client_min_messages":                 "debug1",
	"default_transaction_deferrable":      "on",
	"default_transaction_isolation":       "serializable",
	"escape_string_warning":               "off",
	"exit_on_error":                       "on",
	"extra_float_digits":                  "-15",
	"gin_fuzzy_search_limit":              "1",
	"idle_in_transaction_session_timeout": "1s",
	"idle_session_timeout":                "1s",
	"jit":                                 "on",
	"jit_above_cost":                      "0",
	"lock_timeout":                        "1ms",
	"plan_cache_mode":                     "force_generic_plan",
	"quote_all_identifiers":               "on",
	"row_security":                        "on",
	"search_path":                         "nowhere, public",
	"standard_conforming_strings":         "off",
	"statement_timeout":                   "50ms",
	"synchronous_commit":                  "off",
	"timezone_abbreviations":              "India",
	"transform_null_equals":               "on",
	"work_mem":                            "64kB",
	"xmlbinary":                           "hex",
	"xmloption":                           "document",
}

// otherSettings are all others of Postgres 15 that a role may have defaults of: they
// change how a statement is planned or how much it costs, not what it answers, or have
// a test of their own.
const otherSettings = `application_name backend_flush_after client_connection_check_interval commit_siblings constraint_exclusion
	cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction debug_pretty_print debug_print_parse debug_print_plan
	debug_print_rewritten default_statistics_target default_table_access_method default_tablespace default_text_search_config
	default_toast_compression default_transaction_read_only effective_cache_size effective_io_concurrency enable_async_append
	enable_bitmapscan enable_gathermerge enable_hashagg enable_hashjoin enable_incremental_sort enable_indexonlyscan enable_indexscan
	enable_material enable_memoize enable_mergejoin enable_nestloop enable_parallel_append enable_parallel_hash
	enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join enable_seqscan enable_sort enable_tidscan
	force_parallel_mode from_collapse_limit geqo geqo_effort geqo_generations geqo_pool_size geqo_seed geqo_selection_bias geqo_threshold
	gin_pending_list_limit hash_mem_multiplier jit_expressions jit_inline_above_cost jit_optimize_above_cost jit_tuple_deforming
	join_collapse_limit lc_monetary lc_numeric lc_time local_preload_libraries log_parameter_max_length_on_error
	logical_decoding_work_mem maintenance_io_concurrency maintenance_work_mem max_parallel_maintenance_workers max_parallel_workers
	max_parallel_workers_per_gather min_parallel_index_scan_size min_parallel_table_scan_size parallel_leader_participation
	parallel_setup_cost parallel_tuple_cost password_encryption random_page_cost recursive_worktable_factor
	restrict_nonsystem_relation_kind seed seq_page_cost stats_fetch_consistency synchronize_seqscans tcp_keepalives_count
	tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout temp_buffers temp_tablespaces trace_notify trace_sort
	transaction_deferrable transaction_isolation transaction_read_only vacuum_cost_delay vacuum_cost_limit vacuum_cost_page_dirty
	vacuum_cost_page_hit vacuum_cost_page_miss vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age
	vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age vacuum_multixact_freeze_table_age wal_sender_timeout
	wal_skip_threshold`

// TestConnection_Options keeps that a URL means the same to every command.
func TestConnection_Options(t *testing.T) {
	t.Parallel()

	t.Run("EveryCommandTakesThoseOfThePool", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := setup(ctx, t)
		s.dbURL += "&pool_max_conns=4&pool_min_conns=1&pool_max_conn_lifetime=1m&statement_cache_capacity=100&connect_timeout=5" +
			"&options=-c%20work_mem%3D8MB"
		s.worksThroughout(ctx, t)
	})

	t.Run("EveryCommandRefusesTheSame", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := setup(ctx, t)
		url := s.dbURL
		for option, says := range map[string]string{
			"pool_max_conns=none":    `DATABASE_URL: option "pool_max_conns" has a value that cannot be used`,
			"keepalives=1":           `DATABASE_URL: option "keepalives" is not supported: remove it`,
			"client_encoding=LATIN1": `DATABASE_URL: option "client_encoding" must be "UTF8", which Truegreen relies on, got "LATIN1": remove it`,
			"no_such_setting=1":      `unrecognized configuration parameter "no_such_setting"`,
		} {
			s.dbURL = url + "&" + option
			for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"worker"}, {"status"}, {"audit"}, {"import", "-"}} {
				out, err := s.run(ctx, t, "", command...)
				require.NotZero(t, exitCode(err), "%s: %s", command, out)
				require.Contains(t, out, says, strings.Join(command, " "))
			}
		}
	})
}

// worksThroughout runs what the product is for: migrate, import, append, publish,
// settle, audit.
func (s *stack) worksThroughout(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, command := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"broker", "provision"}, {"programmes", "list"}} {
		out, err := s.run(ctx, t, "", command...)
		require.NoError(t, err, "%s: %s", command, out)
	}
	s.lose(ctx, t, 3, allOf("active"))
	out, err := s.run(ctx, t, `{"type":"player","player":"é-플레이어","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"active","at":"2026-11-01T15:00:00Z"}
{"type":"deposit","id":"é","player":"é-플레이어","amount":1000,"at":"2026-11-02T01:00:00Z"}`, "import", "-")
	require.NoError(t, err, out)
	s.promote(ctx, t, cashback+autoApproved)
	p := s.startWorker(t, s.settlementEnvironment()...)
	p.waitReady(t)
	out, code := s.settle(ctx, t)
	require.Zero(t, code, out)
	s.appendEvent(ctx, t, "key")
	s.waitPublished(ctx, t)
	s.checkDelivery(ctx, t)
	out, err = s.run(ctx, t, "", "status")
	require.NoError(t, err, out)
	require.Equal(t, 1, s.count(ctx, t, `SELECT count(*) FROM player WHERE code = 'é-플레이어'`))
	s.requireTrueBooks(ctx, t)
}

// TestConnection_Defaults keeps that no default of a server, database or role changes
// what the product does.
func TestConnection_Defaults(t *testing.T) {
	t.Parallel()

	t.Run("WorksUnderHostileOnes", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s, role := setupRole(ctx, t, dbtest.Empty(ctx, t))
		s.requireAllSettingsKnown(ctx, t)
		for setting, value := range hostileDefaults {
			if setting == "search_path" {
				value = "nowhere', 'public"
			}
			s.alter(ctx, t, "ALTER ROLE %s SET %s = '%s'", role, setting, value)
		}
		s.worksThroughout(ctx, t)
	})

	for name, refusal := range map[string]struct{ alter, says string }{
		"ReadOnly": {
			"ALTER ROLE %s SET default_transaction_read_only = on",
			`setting default_transaction_read_only is "on" (source: user), so the database takes no writes`,
		},
		"WithoutTriggers": {
			"ALTER ROLE %s SET session_replication_role = replica",
			`setting session_replication_role is "replica" and Truegreen needs "origin"`,
		},
	} {
		t.Run("Refuses"+name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			s, role := setupRole(ctx, t, dbtest.Empty(ctx, t))
			s.alter(ctx, t, refusal.alter, role)
			out, err := s.run(ctx, t, "", "migrate", "up")
			require.NotZero(t, exitCode(err), out)
			require.Contains(t, out, refusal.says)
		})
	}

	t.Run("RefusesADatabaseThatIsNotUTF8", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		s := &stack{brokerURL: "nats://127.0.0.1:1", database: dbtest.Database(ctx, t)}
		for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
			database := strings.ToLower(s.database.Pool.Config().ConnConfig.Database + "_" + encoding)
			s.alter(ctx, t, "CREATE DATABASE %s ENCODING %s LOCALE 'C' TEMPLATE template0", database, encoding)
			t.Cleanup(func() { s.alter(context.WithoutCancel(ctx), t, "DROP DATABASE %s WITH (FORCE)", database) })
			address, err := url.Parse(s.database.URL)
			require.NoError(t, err)
			address.Path = "/" + database
			s.dbURL = address.String()
			for _, command := range [][]string{{"migrate", "up"}, {"worker"}, {"import", "-"}, {"status"}} {
				out, err := s.run(ctx, t, "", command...)
				require.NotZero(t, exitCode(err), out)
				require.Contains(t, out, "the database stores text as "+encoding+", and Truegreen needs UTF8", strings.Join(command, " "))
			}
		}
	})
}

// setupRole is a stack whose commands connect as the owner of the database, who is no
// superuser.
func setupRole(ctx context.Context, t *testing.T, database *dbtest.DB) (s *stack, role string) {
	t.Helper()
	s = &stack{brokerDir: t.TempDir(), database: database}
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: s.brokerDir})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	s.broker, s.brokerURL = broker, broker.URL()

	name := database.Pool.Config().ConnConfig.Database
	role = name + "_role"
	s.alter(ctx, t, "CREATE ROLE %s LOGIN PASSWORD 'hush'", role)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		s.alter(ctx, t, "REASSIGN OWNED BY %s TO CURRENT_USER", role)
		s.alter(ctx, t, "DROP OWNED BY %s", role)
		s.alter(ctx, t, "DROP ROLE %s", role)
	})
	s.alter(ctx, t, "ALTER DATABASE %s OWNER TO %s", name, role)
	address, err := url.Parse(database.URL)
	require.NoError(t, err)
	address.User = url.UserPassword(role, "hush")
	s.dbURL = address.String()
	return s, role
}

// alter runs a statement as a superuser.
func (s *stack) alter(ctx context.Context, t *testing.T, format string, args ...any) {
	t.Helper()
	_, err := s.database.Pool.Exec(ctx, fmt.Sprintf(format, args...), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err, format, args)
}

// requireAllSettingsKnown finds the settings that nobody has thought about.
func (s *stack) requireAllSettingsKnown(ctx context.Context, t *testing.T) {
	t.Helper()
	rows, err := s.database.Pool.Query(ctx, `SELECT name FROM pg_settings
		WHERE context = 'user' AND name NOT LIKE '%.%' AND current_setting('server_version_num')::int < 160000`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	known := strings.Fields(otherSettings)
	for _, name := range names {
		if _, hostile := hostileDefaults[name]; !hostile {
			require.Contains(t, known, name)
		}
	}
}
