package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// undefinedTable is what Postgres says of a database without our tables.
const undefinedTable = "42P01"

// Schema is how a database stands to this binary's migrations.
type Schema struct {
	Has       int64 // the newest migration that the database has; 0 for none
	MinBinary int64 // the oldest binary that it lets in, by its newest migration
}

// RowQuerier is a connection, a pool or a transaction.
type RowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ReadSchema asks goose's table, which no migration of ours makes, and ours. A
// database without them has migration 0.
func ReadSchema(ctx context.Context, db RowQuerier) (Schema, error) {
	var schema Schema
	err := db.QueryRow(ctx, `
		SELECT
			(SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied),
			(SELECT coalesce(max(min_binary), 0) FROM schema_requirement)
	`).Scan(&schema.Has, &schema.MinBinary)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == undefinedTable {
		return Schema{}, nil
	}
	if err != nil {
		return Schema{}, fmt.Errorf("read schema version: %w", err)
	}
	return schema, nil
}

// Check refuses a schema that is older than needs, the newest migration that this
// binary knows, and one that lets only newer binaries in. A newer schema is fine:
// that is how a rolling deploy looks.
func (schema Schema) Check(needs int64) error {
	switch {
	case schema.Has < needs:
		return fmt.Errorf("the database schema has migration %d, this binary needs %d: run 'truegreen migrate up'", schema.Has, needs)
	case schema.MinBinary > needs:
		return fmt.Errorf("the database schema wants a binary that knows migration %d, this one knows %d: deploy a newer one", schema.MinBinary, needs)
	}
	return nil
}
