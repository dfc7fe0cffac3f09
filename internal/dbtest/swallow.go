package dbtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Ways are how [Swallow] keeps a statement from its rows.
var Ways = []string{"rule", "trigger"}

// Swallow has the database keep statements on a table from their rows, and report no
// error. events are INSERT, UPDATE and DELETE.
func Swallow(ctx context.Context, t testing.TB, pool *pgxpool.Pool, way, table string, events ...string) {
	t.Helper()
	sanitized := pgx.Identifier{table}.Sanitize()
	var statements []string
	switch way {
	case "rule":
		for _, event := range events {
			statements = append(statements, fmt.Sprintf("CREATE RULE swallow_%s AS ON %s TO %s DO INSTEAD NOTHING", strings.ToLower(event), event, sanitized))
		}
	case "trigger":
		// Among the first, so that no other one fails before.
		statements = []string{
			`CREATE OR REPLACE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
			fmt.Sprintf(`CREATE TRIGGER "!swallow" BEFORE %s ON %s FOR EACH ROW EXECUTE FUNCTION swallow()`, strings.Join(events, " OR "), sanitized),
		}
	default:
		t.Fatalf("there is no way %q to swallow rows", way)
	}
	for _, statement := range statements {
		if _, err := pool.Exec(ctx, statement); err != nil {
			t.Fatalf("swallow %v of %s: %v", events, table, err)
		}
	}
}
