package pgtx

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Exactly stands in for db in one call of a generated :exec query that must affect
// that many rows. With another number the call fails with [ErrRowCount]: a trigger, a
// rule or a policy may keep a statement from its rows, and the database reports no
// error then. The transaction must be rolled back.
func Exactly(db DB, wantRows int) DB {
	return exactly{DB: db, wantRows: int64(wantRows)}
}

type exactly struct {
	DB
	wantRows int64
}

// Exec implements [DB].
func (e exactly) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	tag, err := e.DB.Exec(ctx, sql, args...)
	if err != nil {
		return tag, err
	}
	return tag, checkRows(tag.RowsAffected(), e.wantRows)
}

func checkRows(got, want int64) error {
	if got != want {
		return fmt.Errorf("%d rows affected, want %d: %w", got, want, ErrRowCount)
	}
	return nil
}
