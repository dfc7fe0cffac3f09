package audit_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/audit"
	"truegreen/internal/dbtest"
	"truegreen/internal/fault"
)

// recorder notes how a transaction was asked for.
type recorder struct {
	audit.Beginner

	options pgx.TxOptions
}

func (r *recorder) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	r.options = options
	return r.Beginner.BeginTx(ctx, options)
}

func TestRun(t *testing.T) {
	t.Parallel()

	corrupt := func(ctx context.Context, t *testing.T, db *dbtest.DB) {
		t.Helper()
		_, err := db.Pool.Exec(ctx, `
			ALTER TABLE wallet DROP CONSTRAINT balance_not_below_floor;
			UPDATE wallet SET balance_minor = -1 WHERE player_id = (SELECT id FROM player WHERE code = 'alice');
			UPDATE wallet SET version = 9 WHERE player_id = (SELECT id FROM player WHERE code = 'carol')`)
		require.NoError(t, err)
	}

	t.Run("FindsNothingWhereAllIsWell", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		report, err := audit.Run(ctx, healthy(ctx, t).Pool, 10)
		require.NoError(t, err)
		require.Equal(t, audit.Report{NumAudits: len(auditViews(ctx, t, begin(ctx, t)))}, report)
		require.Greater(t, report.NumAudits, 10)
	})

	t.Run("ReturnsWhatItFindsInOrder", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		db := healthy(ctx, t)
		corrupt(ctx, t, db)
		report, err := audit.Run(ctx, db.Pool, 3)
		require.NoError(t, err)
		require.False(t, report.Truncated)
		w := enter(ctx, t, db)
		alice, carol := w.fill(ctx, t, "wallet of account {account alice}"), w.fill(ctx, t, "wallet of account {account carol}")
		require.Less(t, carol, alice, "as text")
		expected := []audit.Finding{
			{Audit: "audit_wallet_balanced", Detail: "version is 9, it has 1 entries", Subject: carol},
			{Audit: "audit_wallet_balanced", Detail: "balance is -1, its entries sum to 7150", Subject: alice},
			{Audit: "audit_wallet_floor", Detail: "balance -1 is below the floor 0", Subject: alice},
		}
		require.Equal(t, expected, report.Findings)
	})

	t.Run("SaysThatThereIsMore", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		db := healthy(ctx, t)
		corrupt(ctx, t, db)
		report, err := audit.Run(ctx, db.Pool, 2)
		require.NoError(t, err)
		require.True(t, report.Truncated)
		require.Len(t, report.Findings, 2)
	})

	t.Run("ReadsOneStateAndCannotWrite", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		db := &recorder{Beginner: dbtest.Database(ctx, t).Pool}
		_, err := audit.Run(ctx, db, 1)
		require.NoError(t, err)
		require.Equal(t, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, db.options)
	})

	t.Run("RefusesALimitOutOfBounds", func(t *testing.T) {
		t.Parallel()
		for _, limit := range []int{-1, 0, audit.MaxLimit + 1} {
			_, err := audit.Run(t.Context(), nil, limit)
			require.True(t, fault.Is(err, fault.KindInvalid), "%d: %v", limit, err)
			require.ErrorContains(t, err, "limit must be from 1 to 100000")
		}
	})

	t.Run("FailsWhereTheSchemaIsMissing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		_, err := audit.Run(ctx, dbtest.Empty(ctx, t).Pool, 1)
		require.ErrorContains(t, err, "audit the books: list findings: ")
	})
}
