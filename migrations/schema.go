package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

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

// CheckRowSecurity refuses a role that row-level security keeps from rows of the
// schema's tables, and names them. Ask it before [ReadSchema], which is one of the
// statements that fail under row-level security.
func CheckRowSecurity(ctx context.Context, db RowQuerier) error {
	ours, err := tableNames()
	if err != nil {
		return err
	}
	var tables, role string
	err = db.QueryRow(ctx, `
		SELECT coalesce(string_agg(class.relname, ', ' ORDER BY class.relname), ''), current_user
		FROM pg_class AS class
		JOIN unnest($1::text[]) AS ours (name) ON class.oid = to_regclass(ours.name)
		WHERE class.relrowsecurity
			AND row_security_active(class.oid)
	`, ours).Scan(&tables, &role)
	if err != nil {
		return fmt.Errorf("look for row-level security: %w", err)
	}
	if tables != "" {
		return fmt.Errorf("row-level security is on for %s and may hide rows from role %s: "+
			"connect as a role with BYPASSRLS, or run ALTER TABLE … DISABLE ROW LEVEL SECURITY", tables, role)
	}
	return nil
}

var createTable = regexp.MustCompile(`(?m)^\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)`)

// tableNames lists the tables that migrations make, also those that others remove.
func tableNames() ([]string, error) {
	names := []string{"goose_db_version"}
	sources, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	for _, source := range sources {
		text, err := files.ReadFile(source)
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", source, err)
		}
		for _, match := range createTable.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names, nil
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
