package pgconnect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// checkTimeout bounds [Database.Check], connecting included.
	checkTimeout = 10 * time.Second

	// numCheckRounds is how often it is looked whether two connections keep their
	// servers to themselves. A pooler that is otherwise idle shows in the first; the
	// others are for one that has much to do.
	numCheckRounds = 8
)

// ErrPooling is a pooler that keeps no session for a connection.
var ErrPooling = errors.New("a connection pooler gives each transaction another server connection (pool_mode transaction or statement), " +
	"and Truegreen needs its own session for each: set pool_mode to session, or connect to Postgres itself")

// Check connects and refuses a database that the product cannot work on: one that
// cannot be reached within 10 s, that a connection pooler shares by transaction
// (ErrPooling), or that [Database.Connect] refuses. It changes nothing, also not in
// the sessions of a pooler that it refuses.
func (database *Database) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := database.checkSessions(ctx); err != nil {
		return err
	}
	conn, err := database.Connect(ctx, Options{Name: "truegreen"})
	if err != nil {
		return err
	}
	_ = conn.Close(ctx)
	return nil
}

// CheckWrites refuses a database that takes no writes on a new connection, and says
// why not.
func (database *Database) CheckWrites(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := database.Connect(ctx, Options{Name: "truegreen"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var isStandby bool
	var readOnly, source string
	err = conn.QueryRow(ctx, `
		SELECT pg_is_in_recovery(), setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'
	`).Scan(&isStandby, &readOnly, &source)
	switch {
	case err != nil:
		return fmt.Errorf("ask whether the database takes writes: %w", err)
	case isStandby:
		return errors.New("the server is a standby and takes no writes: connect to the primary, or give all hosts and target_session_attrs=read-write")
	case readOnly == "on":
		return fmt.Errorf("setting default_transaction_read_only is \"on\" (source: %s), so the database takes no writes: set it to off where it was set", source)
	}
	return nil
}

// checkSessions looks by whom two connections are served, in turn: a connection of
// its own session has one server process as long as it lasts, which no other
// connection has.
func (database *Database) checkSessions(ctx context.Context) error {
	first, err := database.connectBare(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close(ctx) }()
	firstPID, err := askPID(ctx, first, "COMMIT")
	if err != nil {
		return err
	}
	second, err := database.connectBare(ctx)
	if err != nil {
		return fmt.Errorf("open a second connection: %w", err)
	}
	defer func() { _ = second.Close(ctx) }()

	var secondPID string
	for range numCheckRounds {
		pid, err := askPID(ctx, second, "") // and keep the server busy
		if err != nil {
			return fmt.Errorf("open a second connection: %w", err)
		}
		if pid == firstPID || (secondPID != "" && pid != secondPID) {
			return ErrPooling
		}
		secondPID = pid
		if pid, err = askPID(ctx, first, "COMMIT"); err != nil {
			return err
		}
		if pid != firstPID {
			return ErrPooling
		}
		if err := exec(ctx, second, "COMMIT"); err != nil {
			return fmt.Errorf("end transaction: %w", err)
		}
	}
	return nil
}

// connectBare opens a connection that no setting was asked for.
func (database *Database) connectBare(ctx context.Context) (*pgconn.PgConn, error) {
	config := database.connConfig(Options{Name: "truegreen"})
	config.AfterConnect = nil
	return pgconn.ConnectConfig(ctx, &config.Config) //nolint:wrapcheck // it says what it did
}

// askPID asks in a transaction of its own which process serves it. What it sets
// ends with the transaction.
func askPID(ctx context.Context, conn *pgconn.PgConn, end string) (string, error) {
	results, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED;"+
		"SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;"+
		"SELECT pg_backend_pid();"+end).ReadAll()
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == pgbouncerRefusal && strings.Contains(refused.Message, statementPooling) {
		return "", ErrPooling
	}
	if err != nil {
		return "", fmt.Errorf("ask for the server process: %w", err)
	}
	for _, result := range results {
		if len(result.Rows) == 1 {
			return string(result.Rows[0][0]), nil
		}
	}
	return "", fmt.Errorf("ask for the server process: %w", errNotTaken)
}

// PgBouncer has one code for all that it refuses, a server that it cannot reach
// included: only its text tells them apart.
const (
	pgbouncerRefusal = "08P01"
	statementPooling = "statement pooling"
)
