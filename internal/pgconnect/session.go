package pgconnect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// prepareTimeout bounds how long the settings may take, unless the URL has a
// connect_timeout, which bounds them too.
const prepareTimeout = 10 * time.Second

// sessionSetting is what a connection asks for whatever the server, the database
// or the role has as its default.
type sessionSetting struct {
	byDefault   bool // the URL and [Options] may give another value
	name, value string
}

// sessionSettings come in the order in which they are asked for: what could end
// the statement that asks comes first. Values are literals that need no escaping,
// since standard_conforming_strings may be off until it is set.
var sessionSettings = []sessionSetting{
	{true, "statement_timeout", "0"}, // contexts bound our statements
	{true, "lock_timeout", "0"},
	{true, "idle_in_transaction_session_timeout", "0"},
	{false, "client_encoding", "UTF8"}, // other encodings lose or refuse text
	{false, "standard_conforming_strings", "on"},
	{false, "default_transaction_isolation", "read committed"}, // after a lock, we read what its last holder wrote
	{false, "default_transaction_deferrable", "off"},
	{false, "row_security", "off"}, // a policy that hides rows is an error, not a shorter answer
	{false, "TimeZone", "UTC"},
	{false, "DateStyle", "ISO, MDY"},
	{false, "IntervalStyle", "postgres"},
	{false, "bytea_output", "hex"},
	{false, "extra_float_digits", "1"},
	{false, "array_nulls", "on"},
	{false, "backslash_quote", "safe_encoding"},
	{false, "exit_on_error", "off"},
	{false, "gin_fuzzy_search_limit", "0"}, // above 0, an index answers with a part of the rows
	{false, "lc_monetary", "C"},
	{false, "lc_numeric", "C"},
	{false, "lc_time", "C"},
	{false, "transform_null_equals", "off"},
	{true, "check_function_bodies", "on"},
	{true, "client_min_messages", "notice"},
	{true, "escape_string_warning", "on"},
}

// newerSettings are like those of [sessionSettings] that the URL and [Options] may
// give, but the server may be too old to have them: they are asked for only where it
// has them, and only if nobody gives another value.
var newerSettings = []sessionSetting{
	{true, "idle_session_timeout", "0"}, // a pool's connections are idle for long
	{true, "transaction_timeout", "0"},  // from 17 on
}

// replicationRole is set only where it is another: to change it takes a right that few
// roles have.
var replicationRole = sessionSetting{false, "session_replication_role", "origin"}

// EncodingError is a database that cannot store every text.
type EncodingError struct{ Encoding string }

func (err *EncodingError) Error() string {
	return fmt.Sprintf("the database stores text as %s, and Truegreen needs UTF8: make a database with ENCODING 'UTF8' TEMPLATE template0", err.Encoding)
}

// SettingError is a setting that the product relies on and cannot have.
type SettingError struct {
	Cause             error
	Name, Value, Want string
}

func (err *SettingError) Error() string {
	return fmt.Sprintf("setting %s is %q and Truegreen needs %q: change it with ALTER ROLE or ALTER DATABASE, or in the server's configuration (%v)",
		err.Name, err.Value, err.Want, err.Cause)
}

func (err *SettingError) Unwrap() error { return err.Cause }

var errNotTaken = errors.New("the server, or a connection pooler before it, does not take the value")

// connConfig is how one connection is opened and prepared.
func (database *Database) connConfig(options Options) *pgx.ConnConfig {
	config := database.pool.ConnConfig.Copy()
	// Poolers know these two, and a log says from the first line who connects.
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["application_name"] = options.Name
	if database.name != "" {
		config.RuntimeParams["application_name"] = database.name
	}
	settings := maps.Clone(options.Defaults)
	if settings == nil {
		settings = make(map[string]string)
	}
	maps.Copy(settings, database.given)
	maps.Copy(settings, options.Fixed)
	// The driver bounds only what comes before. Without a bound, a server that falls
	// silent here would keep a place of the pool for good.
	timeout := config.ConnectTimeout
	if timeout <= 0 {
		timeout = prepareTimeout
	}
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return database.prepare(ctx, conn, settings)
	}
	return config
}

// prepare asks for the settings and looks at what the connection has then.
func (database *Database) prepare(ctx context.Context, conn *pgconn.PgConn, settings map[string]string) error {
	var statements strings.Builder
	for _, setting := range sessionSettings {
		fmt.Fprintf(&statements, "SET %s = '%s';", setting.name, setting.value)
	}
	if err := exec(ctx, conn, statements.String()); err != nil {
		return fmt.Errorf("set up session: %w", err)
	}
	got, err := database.apply(ctx, conn, settings)
	if err != nil {
		return err
	}
	if got.serverEncoding != "UTF8" {
		return &EncodingError{Encoding: got.serverEncoding}
	}
	if got.clientEncoding != "UTF8" {
		return &SettingError{Cause: errNotTaken, Name: "client_encoding", Value: got.clientEncoding, Want: "UTF8"}
	}
	// With "replica" neither our triggers nor foreign keys are looked at.
	if got.replicationRole != replicationRole.value {
		if err := exec(ctx, conn, "SET session_replication_role = 'origin'"); err != nil {
			return &SettingError{Cause: err, Name: replicationRole.name, Value: got.replicationRole, Want: replicationRole.value}
		}
	}
	// What was committed must survive a crash: an operator who wants it otherwise says
	// so in the URL.
	if _, given := settings["synchronous_commit"]; got.synchronousCommit == "off" && !given {
		if err := exec(ctx, conn, "SET synchronous_commit = 'on'"); err != nil {
			return fmt.Errorf("set up session: %w", err)
		}
	}
	return nil
}

// session is what a connection has after its settings were applied.
type session struct {
	clientEncoding, replicationRole, serverEncoding, synchronousCommit string
}

// apply sets what the URL and the options say, and the search path that the first
// connection saw: one that is changed while a process runs would lead some of its
// connections to other tables.
func (database *Database) apply(ctx context.Context, conn *pgconn.PgConn, settings map[string]string) (session, error) {
	database.mu.Lock()
	searchPath := database.searchPath
	database.mu.Unlock()
	if searchPath != "" {
		settings = maps.Clone(settings)
		settings["search_path"] = searchPath
	}

	columns := []string{
		"current_setting('server_encoding')", "current_setting('client_encoding')", "current_setting('session_replication_role')",
		"current_setting('synchronous_commit')", "current_setting('search_path')",
	}
	for _, setting := range newerSettings {
		if _, given := settings[setting.name]; !given {
			columns = append(columns, fmt.Sprintf("CASE WHEN current_setting('%[1]s', true) IS NOT NULL THEN set_config('%[1]s', '%[2]s', false) END",
				setting.name, setting.value))
		}
	}
	var values [][]byte
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		values = append(values, []byte(name), []byte(settings[name]))
		columns = append(columns, fmt.Sprintf("set_config($%d, $%d, false)", len(values)-1, len(values)))
	}
	slices.Reverse(columns) // what is set comes first
	result := conn.ExecParams(ctx, "SELECT "+strings.Join(columns, ", "), values, nil, nil, nil).Read()
	if result.Err != nil {
		return session{}, fmt.Errorf("set up session: %w", result.Err)
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != len(columns) {
		return session{}, fmt.Errorf("set up session: %w", errNotTaken)
	}
	row := result.Rows[0]
	slices.Reverse(row)

	database.mu.Lock()
	defer database.mu.Unlock()
	if database.searchPath == "" {
		database.searchPath = string(row[4])
	}
	return session{
		clientEncoding: string(row[1]), replicationRole: string(row[2]), serverEncoding: string(row[0]), synchronousCommit: string(row[3]),
	}, nil
}

func exec(ctx context.Context, conn *pgconn.PgConn, statements string) error {
	_, err := conn.Exec(ctx, statements).ReadAll()
	return err //nolint:wrapcheck // the caller says what for
}
