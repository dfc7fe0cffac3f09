package pgconnect

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// minPoolConns is the smallest pool that the product works with: River keeps one
// connection to listen on, and an import or a calculation may hold one while it
// asks on another.
const minPoolConns = 4

// ErrSyntax quotes nothing of the text, which may hold a password.
var ErrSyntax = errors.New("it cannot be parsed; it looks like postgres://user:password@host:5432/database")

// unsupported are options of libpq that the driver does not have. It would send
// them to the server as settings, which knows none of them.
var unsupported = []string{
	"fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "hostaddr", "keepalives", "keepalives_count",
	"keepalives_idle", "keepalives_interval", "load_balance_hosts", "replication", "requirepeer", "requiressl", "scram_client_key",
	"scram_server_key", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcompression", "sslcrl", "sslcrldir", "sslkeylogfile",
}

// Parse reads a URL, or key=value pairs, as libpq and pgx know them, without
// connecting. Its options are those of the driver, pool_max_conns and its like
// included, and any setting of a session that [sessionSettings] does not fix. An
// option that cannot be used is refused by name. No error quotes a password.
func Parse(text string) (*Database, error) {
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, parseError(text)
	}
	settings := make(map[string]string) // names are the same in any case
	for name, value := range config.ConnConfig.RuntimeParams {
		settings[strings.ToLower(name)] = value
	}
	clear(config.ConnConfig.RuntimeParams)
	if err := takeOptions(settings); err != nil {
		return nil, err
	}
	for _, name := range unsupported {
		if _, given := settings[name]; given {
			return nil, fmt.Errorf("option %q is not supported: remove it", name)
		}
	}
	if err := checkFixed(settings); err != nil {
		return nil, err
	}
	if err := checkDriver(config); err != nil {
		return nil, err
	}
	database := &Database{given: settings, name: settings["application_name"], pool: config, searchPath: settings["search_path"]}
	delete(database.given, "application_name")
	if isBounded(text) {
		database.maxConns = config.MaxConns
	}
	return database, nil
}

// parseError names the option that the driver refuses, if it is one.
func parseError(text string) error {
	parsed, err := url.Parse(text)
	if err != nil {
		return ErrSyntax
	}
	given := parsed.Query()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		without := maps.Clone(given)
		delete(without, name)
		parsed.RawQuery = without.Encode()
		if _, err := pgxpool.ParseConfig(parsed.String()); err == nil {
			return fmt.Errorf("option %q has a value that cannot be used", name)
		}
	}
	return ErrSyntax
}

// takeOptions turns libpq's options into the settings that they are: -c name=value
// or --name=value, separated by spaces, where a backslash makes a character plain.
func takeOptions(settings map[string]string) error {
	text, given := settings["options"]
	if !given {
		return nil
	}
	delete(settings, "options")
	words := splitOptions(text)
	for i := 0; i < len(words); i++ {
		assignment, isLong := strings.CutPrefix(words[i], "--")
		if !isLong {
			var isShort bool
			if assignment, isShort = strings.CutPrefix(words[i], "-c"); !isShort {
				return fmt.Errorf("option \"options\" may hold -c name=value and --name=value, got %q", words[i])
			}
			if assignment == "" && i+1 < len(words) {
				i++
				assignment = words[i]
			}
		}
		name, value, isAssignment := strings.Cut(assignment, "=")
		if !isAssignment || name == "" {
			return fmt.Errorf("option \"options\" may hold -c name=value and --name=value, got %q", words[i])
		}
		name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
		if _, twice := settings[name]; !twice { // a parameter of its own comes later, and wins
			settings[name] = value
		}
	}
	return nil
}

func splitOptions(text string) []string {
	var words []string
	var word strings.Builder
	inWord, escaped := false, false
	for _, character := range text {
		switch {
		case escaped:
			word.WriteRune(character)
			escaped = false
		case character == '\\':
			inWord, escaped = true, true
		case strings.ContainsRune(" \t\n\r\f\v", character):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(character)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// checkFixed refuses a setting that contradicts what the product relies on, and
// leaves the rest. PGTZ is for whoever runs the process, who did not have this
// database in mind.
func checkFixed(settings map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if name == "timezone" && settings[name] == os.Getenv("PGTZ") {
			delete(settings, name)
			continue
		}
		for _, fixed := range append(sessionSettings[:len(sessionSettings):len(sessionSettings)], replicationRole) {
			if !fixed.byDefault && strings.EqualFold(name, fixed.name) {
				if plain(settings[name]) != plain(fixed.value) {
					return fmt.Errorf("option %q must be %q, which Truegreen relies on, got %q: remove it", name, fixed.value, settings[name])
				}
				delete(settings, name)
			}
		}
	}
	return nil
}

// plain makes UTF-8 and utf8, or ISO,MDY and ISO, MDY, the same.
func plain(value string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(value))
}

// isBounded says whether the text, which can be parsed, has a pool_max_conns.
func isBounded(text string) bool {
	config, err := pgx.ParseConfig(text)
	return err == nil && config.RuntimeParams["pool_max_conns"] != ""
}

func checkDriver(config *pgxpool.Config) error {
	if config.MaxConns < minPoolConns {
		return fmt.Errorf("option \"pool_max_conns\" must be at least %d, got %d", minPoolConns, config.MaxConns)
	}
	mode := config.ConnConfig.DefaultQueryExecMode
	switch {
	case mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol:
		return fmt.Errorf("option \"default_query_exec_mode\" must be cache_statement, cache_describe or describe_exec, got %q",
			strings.ReplaceAll(mode.String(), " ", "_"))
	case mode == pgx.QueryExecModeCacheStatement && config.ConnConfig.StatementCacheCapacity < 1:
		return errors.New("option \"statement_cache_capacity\" must be at least 1, or default_query_exec_mode be describe_exec")
	case mode == pgx.QueryExecModeCacheDescribe && config.ConnConfig.DescriptionCacheCapacity < 1:
		return errors.New("option \"description_cache_capacity\" must be at least 1, or default_query_exec_mode be describe_exec")
	}
	return nil
}
