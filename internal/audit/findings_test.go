package audit_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// corruption breaks the books, and says what is to find it.
type corruption struct {
	name   string
	sql    string
	want   []string // "view: subject"; the subject * stands for several
	detail string   // a part of what one of them says
}

// corruptions are all that is tried.
func corruptions() []corruption {
	return slices.Concat(ledgerCorruptions(), originCorruptions(), itemCorruptions(), creditCorruptions(), runCorruptions(), jobCorruptions())
}

// findings are those of a view, "view: subject", each once, and all details.
func findings(ctx context.Context, t *testing.T, tx pgx.Tx) (found []string, details string) {
	t.Helper()
	// As Run does; compiling the views would take longer than the tests.
	_, err := tx.Exec(ctx, "SET LOCAL jit = off")
	require.NoError(t, err)
	rows, err := tx.Query(ctx, "SELECT audit || ': ' || subject, detail FROM audit_findings ORDER BY 1, 2")
	require.NoError(t, err)
	var one, detail string
	_, err = pgx.ForEachRow(rows, []any{&one, &detail}, func() error {
		found = append(found, one)
		details += detail + "\n"
		return nil
	})
	require.NoError(t, err)
	return slices.Compact(found), details
}

func auditViews(ctx context.Context, t *testing.T, tx pgx.Tx) []string {
	t.Helper()
	rows, err := tx.Query(ctx, `SELECT viewname FROM pg_views WHERE schemaname = current_schema() AND viewname ~ '^audit_' AND viewname <> 'audit_findings' ORDER BY 1`)
	require.NoError(t, err)
	views, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return views
}

// together are the views that audit_findings puts together, each under its name.
func together(ctx context.Context, t *testing.T, tx pgx.Tx) []string {
	t.Helper()
	var definition string
	require.NoError(t, tx.QueryRow(ctx, "SELECT pg_get_viewdef('audit_findings'::regclass)").Scan(&definition))
	var views []string
	for _, match := range regexp.MustCompile(`(?s)SELECT '(\w+)'(?:::text)?.*?FROM (\w+)`).FindAllStringSubmatch(definition, -1) {
		require.Equal(t, match[1], match[2], "a finding goes by the name of its view")
		views = append(views, match[2])
	}
	slices.Sort(views)
	return views
}

func TestFindings(t *testing.T) {
	t.Parallel()
	db := healthy(t.Context(), t)

	t.Run("PutsEveryAuditTogether", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := begin(ctx, t)
		views := auditViews(ctx, t, tx)
		require.Greater(t, len(views), 10)
		require.Equal(t, views, together(ctx, t, tx))

		_, err := tx.Exec(ctx, "CREATE VIEW audit_forgotten AS SELECT 'a'::text AS subject, 'b'::text AS detail")
		require.NoError(t, err)
		require.NotEqual(t, auditViews(ctx, t, tx), together(ctx, t, tx))
	})

	t.Run("HaveSubjectAndDetail", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		tx := begin(ctx, t)
		for _, view := range append(auditViews(ctx, t, tx), "audit_findings") {
			var columns string
			err := tx.QueryRow(ctx, `SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)
				FROM information_schema.columns WHERE table_name = $1`, view).Scan(&columns)
			require.NoError(t, err)
			require.Equal(t, "subject text, detail text", strings.TrimPrefix(columns, "audit text, "), view)
		}
	})

	t.Run("EveryAuditIsTriedByACorruption", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		var tried []string
		for _, tt := range corruptions() {
			for _, want := range tt.want {
				view, _, _ := strings.Cut(want, ":")
				tried = append(tried, view)
			}
		}
		slices.Sort(tried)
		require.Equal(t, auditViews(ctx, t, begin(ctx, t)), slices.Compact(tried))
	})

	t.Run("AreNoneInAHealthyWorld", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		found, details := findings(ctx, t, enter(ctx, t, db).tx)
		require.Empty(t, found, details)
	})

	for _, tt := range corruptions() {
		t.Run("Find"+tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := enter(ctx, t, db)
			w.breaks(ctx, t, tt)
		})
	}
}

// breaks breaks the world, and expects what is to find it and nothing else.
func (w *world) breaks(ctx context.Context, t *testing.T, broken corruption) {
	t.Helper()
	want := make([]string, len(broken.want))
	for i := range broken.want {
		want[i] = w.fill(ctx, t, broken.want[i])
	}
	detail := w.fill(ctx, t, broken.detail)
	w.exec(ctx, t, "SET LOCAL session_replication_role = replica;"+w.fill(ctx, t, broken.sql))

	found, details := findings(ctx, t, w.tx)
	for i, one := range found {
		if view, _, _ := strings.Cut(one, ":"); slices.Contains(want, view+": *") {
			found[i] = view + ": *"
		}
	}
	require.ElementsMatch(t, want, slices.Compact(found), "%s: %s", broken.name, details)
	require.Contains(t, details, detail, broken.name)
}

// TestFindings_Tolerate tries what looks odd and breaks no law.
func TestFindings_Tolerate(t *testing.T) {
	t.Parallel()
	db := healthy(t.Context(), t)

	for _, tt := range []struct{ name, sql string }{
		{"AJobThatRiverForgot", "DELETE FROM river_job"},
		{"AJobThatIsRetriedAfterTheEnd", "UPDATE river_job SET state = 'retryable', finalized_at = NULL"},
		{"APartialRunWhoseJobFailed", "UPDATE settlement_run SET job_end = 'failed' WHERE id = {run partial}; UPDATE river_job SET state = 'discarded' WHERE id = 1000000 + {run partial}"},
		{"AJobThatDiedUnderARunThatAPersonEnded", "UPDATE river_job SET state = 'discarded' WHERE id = 1000000 + {run aborted}"},
		{
			"AnExclusionBesideAClaim", `
			ALTER TABLE settlement_item DROP CONSTRAINT settlement_item_run_id_player_id_key;
			UPDATE settlement_item SET player_id = {player alice} WHERE id = {item partial/gina}`,
		},
		{"ABudgetThatIsUsedUp", `UPDATE programme_version SET rules = rules || '{"budget": {"limit": 13050, "window": "monthly"}}'`},
		{"ABudgetOfSmallerWindows", `UPDATE programme_version SET rules = rules || '{"budget": {"limit": 11000, "window": "weekly"}}'`},
		{
			"AnEventOfACreditThatIsNoSettlement", `
			INSERT INTO outbox_event (stream, shard, key, key_seq, type, payload)
			SELECT stream, shard, key, 99, type, payload || '{"reference": "convert/x"}' FROM outbox_event WHERE payload ->> 'reference' = '{ref partial/alice}';
			INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
			SELECT id, created_at, key, id, shard, stream FROM outbox_event WHERE id NOT IN (SELECT id FROM outbox_delivery)`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := enter(ctx, t, db)
			w.exec(ctx, t, "SET LOCAL session_replication_role = replica;"+w.fill(ctx, t, tt.sql))
			found, details := findings(ctx, t, w.tx)
			require.Empty(t, found, details)
		})
	}
}
