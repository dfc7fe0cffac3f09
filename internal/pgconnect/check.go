package pgconnect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// checkTimeout bounds each step of [Database.Check], connecting included.
	checkTimeout = 10 * time.Second

	// closeTimeout bounds how long a closed connection is waited for.
	closeTimeout = time.Second

	// secondTimeout bounds how long [Database.Check] waits for a second connection.
	secondTimeout = 5 * time.Second

	// roundsTimeout is when no further round begins: each takes two round trips, and
	// the server may be far away.
	roundsTimeout = 2 * time.Second

	// maxCheckRounds is how often both connections are asked again. One round finds a
	// pooler that is otherwise idle. A busy pooler may need more.
	maxCheckRounds = 8
)

// ErrPooling is a pooler that keeps no session for a connection.
var ErrPooling = errors.New("a connection pooler gives each transaction another server connection (pool_mode transaction or statement), " +
	"and Truegreen needs its own session for each: set pool_mode to session, or connect to Postgres itself")

// Check connects and refuses a database that the product cannot work on: one that
// cannot be reached within 10 s, that a connection pooler shares by transaction
// (ErrPooling), or that [Database.Connect] refuses. It changes nothing, also not in
// the sessions of a pooler that it refuses.
//
// Check wants two connections at once. If the server or the pooler has room for only
// one, it continues with that one, and then misses a pooler that happens to give this
// connection the same server each time.
func (database *Database) Check(ctx context.Context) error {
	first, err := database.openBare(ctx)
	if err != nil {
		return err
	}
	defer first.close()
	if err := database.checkSessions(ctx, first); err != nil {
		return err
	}
	return plainError(database.connConfig(Options{Name: "truegreen"}).AfterConnect(ctx, first.conn))
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

// checkSessions compares the server processes of two connections: a connection with
// its own session keeps one process, which serves no other connection.
//
// Each question is a whole transaction in one message, so it takes one round trip and
// the pooler can reassign the server after it. Every round reverses the order: servers
// that are given out strictly in turn would otherwise always match the connections.
func (database *Database) checkSessions(ctx context.Context, first *bareSession) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	sessions := []*bareSession{first}
	second, err := database.openSecond(ctx)
	if err != nil {
		return fmt.Errorf("open a second connection: %w", err)
	}
	if second != nil {
		defer second.close()
		if second.pid == first.pid {
			return ErrPooling
		}
		sessions = append(sessions, second)
	}

	start := time.Now()
	for round := range maxCheckRounds {
		if round > 0 && time.Since(start) >= roundsTimeout {
			return nil
		}
		slices.Reverse(sessions)
		for _, session := range sessions {
			pid, err := askPID(ctx, session.conn)
			if err != nil {
				return err
			}
			if pid != session.pid {
				return ErrPooling
			}
		}
	}
	return nil
}

// bareSession is a connection and the process that served it first.
type bareSession struct {
	conn *pgconn.PgConn
	pid  string
}

// close waits for the server to end the session, so that its slot is free for the
// connection that comes next.
func (session *bareSession) close() {
	hijacked, err := session.conn.Hijack()
	if err != nil {
		return // an error has closed it
	}
	defer func() { _ = hijacked.Conn.Close() }()
	_ = hijacked.Conn.SetDeadline(time.Now().Add(closeTimeout))
	hijacked.Frontend.Send(&pgproto3.Terminate{})
	err = hijacked.Frontend.Flush()
	for err == nil {
		_, err = hijacked.Frontend.Receive()
	}
}

// openBare opens a connection without the settings of [Database.Connect], and asks
// which process serves it.
func (database *Database) openBare(ctx context.Context) (*bareSession, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	config := database.connConfig(Options{Name: "truegreen"})
	config.AfterConnect = nil
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	pid, err := askPID(ctx, conn)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return &bareSession{conn: conn, pid: pid}, nil
}

// openSecond returns nil if there is no room for another connection. A pooler without
// room accepts the connection, and then leaves it waiting.
func (database *Database) openSecond(ctx context.Context) (*bareSession, error) {
	waitCtx, cancel := context.WithTimeout(ctx, secondTimeout)
	defer cancel()
	second, err := database.openBare(waitCtx)
	isWaiting := waitCtx.Err() != nil && ctx.Err() == nil
	if err != nil && (isWaiting || lacksRoom(err)) {
		return nil, nil //nolint:nilnil // both are expected
	}
	return second, err
}

// lacksRoom reports whether the server or PgBouncer refuses one more connection.
func lacksRoom(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	return refused.Code == tooManyConnections ||
		refused.Code == pgbouncerRefusal && slices.ContainsFunc(pgbouncerFull, func(text string) bool {
			return strings.Contains(refused.Message, text)
		})
}

// askPID asks in a transaction of its own which process serves it. What it sets
// ends with the transaction.
func askPID(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	results, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED;"+
		"SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;"+
		"SELECT pg_backend_pid(); COMMIT").ReadAll()
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

// tooManyConnections is the code of Postgres for every limit on connections, that of a
// role or a database and the reserved slots included.
const tooManyConnections = "53300"

// pgbouncerFull are texts of PgBouncer for a connection that it has no room for. The
// last three are Postgres's own, which PgBouncer repeats under its own code.
var pgbouncerFull = []string{
	"no more connections allowed", "client connections exceeded", "query_wait_timeout",
	"too many clients", "too many connections", "connection slots are reserved",
}
