// Package pgtx runs functions in database transactions, and sends many
// statements in one round trip.
package pgtx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rollbackTimeout bounds the rollback of a transaction whose context is done.
const rollbackTimeout = 5 * time.Second

// Beginner is what a transaction can be begun on: a pool, a connection, or
// another transaction, in which it is a savepoint.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Do runs fn in a transaction of its own and commits it, or rolls it back when
// fn fails or panics. It returns fn's error as it is. When the commit fails
// because the connection broke, it is not known whether it happened.
func Do(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		// A transaction that cannot be rolled back ends with its connection, which
		// pgx closes then.
		_ = tx.Rollback(ctx)
	}()

	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	committed = true
	return nil
}

// ErrCollision is for code that finds out by itself what the database would say
// of a key: that another transaction has just added the same.
var ErrCollision = errors.New("another transaction has just added the same")

// Collides reports whether err comes from meeting another transaction, so that
// the whole transaction may succeed when it is run again: a serialization
// failure, a deadlock, or a key that somebody else has just inserted. The last
// stays an error when the key is simply taken, so run again a few times only.
func Collides(err error) bool {
	if errors.Is(err, ErrCollision) {
		return true
	}
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	switch pgErr.Code {
	case "23505", "40001", "40P01":
		return true
	}
	return false
}
