package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

type keeperBundle struct {
	*testBundle
	keeper *outbox.Keeper
}

func setupKeeper(ctx context.Context, t *testing.T) *keeperBundle {
	t.Helper()
	bundle := setup(ctx, t)
	keeper, err := outbox.NewKeeper(bundle.db.Pool, bundle.record, outbox.KeeperConfig{})
	require.NoError(t, err)
	return &keeperBundle{keeper: keeper, testBundle: bundle}
}

// resolve has a key's event published or discarded some time ago.
func (bundle *keeperBundle) resolve(ctx context.Context, t *testing.T, key, facts string, age time.Duration) {
	t.Helper()
	bundle.exec(ctx, t, `ALTER TABLE outbox_delivery DISABLE TRIGGER outbox_delivery_of_one_event`)
	bundle.exec(ctx, t, `UPDATE outbox_delivery SET created_at = now() - $2::interval, `+facts+` WHERE key = $1`, key, age)
}

func (bundle *keeperBundle) strings(ctx context.Context, t *testing.T, query string) []string {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, query)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return found
}

const (
	day       = 24 * time.Hour
	published = `published_at = now() - $2::interval, broker_ref = 'S/1', attempts = 1`
	discarded = `discarded_at = now() - $2::interval, discarded_by = 'kim', discard_reason = 'x'`
	parked    = `parked_at = now() - $2::interval, park_reason = 'row'`
)

func TestKeeper_Keep(t *testing.T) {
	t.Parallel()

	t.Run("MovesWhatIsDeliveredAndKeepsItInSight", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.stage(ctx, t, "old", "given-up", "fresh", "open", "parked")
		bundle.resolve(ctx, t, "old", published, 3*day)
		bundle.resolve(ctx, t, "given-up", discarded, 2*day)
		bundle.resolve(ctx, t, "fresh", published, time.Hour)
		bundle.resolve(ctx, t, "open", "attempts = 0", 3*day)
		bundle.resolve(ctx, t, "parked", parked, 3*day)
		before := bundle.strings(ctx, t, `SELECT outbox_events::text FROM outbox_events ORDER BY id`)
		require.Len(t, before, 5)

		result, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Equal(t, int64(2), result.NumMoved)
		require.Equal(t, int64(8), result.NumMade, "today and a week ahead")
		require.Equal(t, before, bundle.strings(ctx, t, `SELECT outbox_events::text FROM outbox_events ORDER BY id`), "the view shows the same")
		require.Equal(t, []string{"given-up", "old"}, bundle.strings(ctx, t, `SELECT key FROM outbox_history ORDER BY key`))
		require.Equal(t, []string{"fresh", "open", "parked"}, bundle.strings(ctx, t, `SELECT key FROM outbox_event ORDER BY key`))
		require.Equal(t, []string{"fresh", "open", "parked"}, bundle.strings(ctx, t, `SELECT key FROM outbox_delivery ORDER BY key`))
		require.Empty(t, bundle.strings(ctx, t, `SELECT audit || subject FROM audit_findings`))
		require.Equal(t, freshness.Progress{Kind: freshness.Success, Loop: "maintenance", NumItems: 2, Result: result}, bundle.record.completed[0])

		result, err = bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Equal(t, outbox.KeepResult{}, result)
	})

	t.Run("DropsWhatIsOldEnough", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.stage(ctx, t, "older", "old")
		bundle.resolve(ctx, t, "older", published, 40*day)
		bundle.resolve(ctx, t, "old", published, 20*day)
		_, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Equal(t, []string{"old"}, bundle.strings(ctx, t, `SELECT key FROM outbox_events ORDER BY key`))
		require.Equal(t, []string{"true"}, bundle.strings(ctx, t,
			`SELECT (dropped_before BETWEEN now() - interval '31 days' AND now() - interval '29 days')::text FROM outbox_retention`))
	})

	t.Run("NeverDropsAPartitionThatHoldsAnUndeliveredEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.stage(ctx, t, "older", "oldest")
		bundle.resolve(ctx, t, "older", published, 35*day)
		bundle.resolve(ctx, t, "oldest", published, 40*day)
		// The table does not take such an event; the drop does not rely on that.
		bundle.exec(ctx, t, `SELECT outbox_history_move(now(), 0, 100)`)
		bundle.exec(ctx, t, `ALTER TABLE outbox_history DROP CONSTRAINT delivered_or_discarded, DROP CONSTRAINT resolved_when_it_was`)
		bundle.exec(ctx, t, `UPDATE outbox_history SET published_at = NULL, broker_ref = NULL WHERE key = 'oldest'`)

		_, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.ErrorContains(t, err, "old enough to be dropped, but undelivered events are in it")
		require.Equal(t, []string{"oldest"}, bundle.strings(ctx, t, `SELECT key FROM outbox_history`), "the other partition is dropped all the same")
		require.Empty(t, bundle.record.completed)
		require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)
	})

	t.Run("FailsWhileAnEventIsUndeliveredForLongerThanAnyIsKept", func(t *testing.T) {
		t.Parallel()
		for name, facts := range map[string]string{"Parked": parked, "Pending": "attempts = 0"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle := setupKeeper(ctx, t)
				bundle.stage(ctx, t, "forgotten")
				bundle.resolve(ctx, t, "forgotten", facts, 31*day)
				_, err := bundle.keeper.Keep(ctx, bundle.record.complete)
				require.ErrorContains(t, err, "1 events are undelivered for more than 720h0m0s, the first of them 1")
				require.Len(t, bundle.strings(ctx, t, `SELECT key FROM outbox_event`), 1)
			})
		}
	})

	t.Run("MovesMoreThanOneWindow", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.exec(ctx, t, `SELECT outbox_append_many('rolling', array_agg('k' || n % 50), array_agg('a.b'::text), array_agg('{}'::jsonb)) FROM generate_series(1, 12000) AS n`)
		bundle.exec(ctx, t, `ALTER TABLE outbox_delivery DISABLE TRIGGER outbox_delivery_of_one_event`)
		bundle.exec(ctx, t, `UPDATE outbox_delivery SET created_at = now() - interval '2 days', published_at = now() - interval '2 days', broker_ref = 'S/1' WHERE id <> 7`)
		result, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Equal(t, int64(11_999), result.NumMoved)
		require.Equal(t, []string{"7"}, bundle.strings(ctx, t, `SELECT id::text FROM outbox_delivery`))
	})

	t.Run("FailsOnceItCannotKeepUp", func(t *testing.T) {
		t.Parallel()
		for age, isLate := range map[time.Duration]bool{29 * time.Hour: false, 31 * time.Hour: true} {
			t.Run(age.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle := setupKeeper(ctx, t)
				keeper, err := outbox.NewKeeper(bundle.db.Pool, bundle.record, outbox.KeeperConfig{Budget: 1})
				require.NoError(t, err)
				bundle.stage(ctx, t, "old")
				bundle.resolve(ctx, t, "old", published, age)
				_, err = keeper.Keep(ctx, bundle.record.complete)
				if !isLate {
					require.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, "the oldest was delivered 31h0m0s ago and should have been moved after 24h0m0s")
			})
		}
	})

	t.Run("RecordsThatItsTimeWasOver", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		bundle := setupKeeper(ctx, t)
		cancel()
		_, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, bundle.record.recorded, 1)
		require.Equal(t, freshness.Failure, bundle.record.recorded[0].Kind)
	})

	t.Run("LeavesTheTablesToAnotherKeeper", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.stage(ctx, t, "old")
		bundle.resolve(ctx, t, "old", published, 3*day)
		other, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = other.Rollback(ctx) }()
		_, err = other.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('truegreen.outbox_history', 0))`)
		require.NoError(t, err)
		result, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Zero(t, result.NumMoved)
	})

	t.Run("RemovesJobsThatFailedForGoodLongAgo", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setupKeeper(ctx, t)
		bundle.exec(ctx, t, `
			INSERT INTO river_job (args, kind, max_attempts, queue, state, finalized_at)
			SELECT '{}', kind, 1, kind, 'discarded', now() - age
			FROM (VALUES ('outbox_wallet', interval '31 days'), ('outbox_wallet', interval '29 days'), ('settlement_cashback', interval '31 days'), ('maintenance', interval '31 days')) AS job (kind, age)`)
		result, err := bundle.keeper.Keep(ctx, bundle.record.complete)
		require.NoError(t, err)
		require.Equal(t, int64(2), result.NumPruned)
		require.Equal(t, []string{"outbox_wallet", "settlement_cashback"}, bundle.strings(ctx, t, `SELECT kind FROM river_job ORDER BY kind`))
	})
}

func TestNewKeeper(t *testing.T) {
	t.Parallel()
	_, err := outbox.NewKeeper(dbtest.Database(t.Context(), t).Pool, &record{}, outbox.KeeperConfig{Keep: time.Hour, KeepLive: time.Hour})
	require.ErrorContains(t, err, "KeepLive must not be below 0, and Keep above it, got 1h0m0s and 1h0m0s")
}
