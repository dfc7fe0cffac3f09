package reconcile_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/reconcile"
)

func (w *world) lastSeq(ctx context.Context, key string) int64 {
	w.t.Helper()
	var lastSeq int64
	require.NoError(w.t, w.Pool.QueryRow(ctx, "SELECT coalesce(max(last_seq), 0) FROM outbox_key WHERE stream = 'rolling' AND key = $1", key).Scan(&lastSeq))
	return lastSeq
}

// interventions are what the record says, in its order.
func (w *world) interventions(ctx context.Context) []string {
	w.t.Helper()
	rows, err := w.Pool.Query(ctx, "SELECT format('%s %s#%s by %s: %s', act, key, key_seq, by_whom, reason) FROM outbox_intervention ORDER BY id")
	require.NoError(w.t, err)
	defer rows.Close()
	var told []string
	for rows.Next() {
		var line string
		require.NoError(w.t, rows.Scan(&line))
		told = append(told, line)
	}
	require.NoError(w.t, rows.Err())
	return told
}

// onIntervention runs sql, in the same transaction, whenever something is recorded.
func (w *world) onIntervention(ctx context.Context, sql string) {
	w.t.Helper()
	w.exec(ctx, "CREATE FUNCTION on_intervention() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN "+sql+"; RETURN NULL; END; $body$")
	w.exec(ctx, "CREATE TRIGGER on_intervention AFTER INSERT ON outbox_intervention FOR EACH STATEMENT EXECUTE FUNCTION on_intervention()")
}

func TestRun_Adopt(t *testing.T) {
	t.Parallel()

	adopt := reconcile.Options{Adopt: true, As: "me"}

	t.Run("MendsWhatAnOlderBackupDoesNotKnow", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "a", "b", "a", "a", "c", "b")
		w.store(events[1]) // twice at the broker, which the backup does not know
		w.deliver(ctx, events...)
		w.unmark(ctx, events[1], events[2])
		w.forget(ctx, events[3])
		w.forget(ctx, events[4])
		w.exec(ctx, "DELETE FROM outbox_key WHERE key = 'c'")

		found := []string{"unmarked b#1", "unmarked a#2", "ghost a#3", "ghost c#1", "key_behind a#3", "key_behind c#1"}
		report, _ := w.run(ctx, rolling, reconcile.Options{})
		require.Equal(t, found, w.found(report))
		require.EqualValues(t, 6, report.NumOpen())
		require.Empty(t, w.interventions(ctx), "without being told to, it changes nothing")

		report, result := w.run(ctx, rolling, adopt)
		require.Equal(t, []string{
			"unmarked b#1 mended", "unmarked a#2 mended", "ghost a#3", "ghost c#1", "key_behind a#3 mended", "key_behind c#1 mended",
		}, w.found(report))
		require.EqualValues(t, 2, result.NumAdopted)
		require.EqualValues(t, 2, result.NumLifted)
		require.EqualValues(t, 2, report.NumOpen())
		require.Equal(t, reconcile.Count{Mended: 2, Total: 2}, result.Counts[reconcile.KindUnmarked])
		require.Equal(t, []string{
			"adopt a#3 by me: the broker holds it: the next number of its key follows this one",
			"adopt c#1 by me: the broker holds it: the next number of its key follows this one",
			"adopt b#1 by me: the broker holds it as TRUEGREEN_ROLLING/1",
			"adopt a#2 by me: the broker holds it as TRUEGREEN_ROLLING/4",
		}, w.interventions(ctx))
		require.EqualValues(t, 4, w.append(ctx, rolling, "a")[0].keySeq)

		report, result = w.run(ctx, rolling, adopt)
		require.Equal(t, []string{"ghost a#3", "ghost c#1"}, w.found(report))
		require.Zero(t, result.NumAdopted+result.NumLifted)
	})

	t.Run("NeverLowersALastNumber", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		e := w.append(ctx, rolling, "a", "a", "a")[1]
		// What is appended between the comparison and its adoption is not to be seen
		// from outside.
		numLifted, err := dbsqlc.New().ReconcileKeyLift(ctx, w.Pool, &dbsqlc.ReconcileKeyLiftParams{
			ByWhom: "me", EventIds: []uuid.UUID{uuid.MustParse(e.eventID)}, Keys: []string{"a"}, LastSeqs: []int64{2}, Stream: rolling,
		})
		require.NoError(t, err)
		require.Zero(t, numLifted)
		require.EqualValues(t, 3, w.lastSeq(ctx, "a"))
		require.Empty(t, w.interventions(ctx))
	})

	t.Run("DoesNotFollowNumbersWithGaps", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.deliver(ctx, w.append(ctx, rolling, "a", "b")...)
		for _, foreign := range []reconcile.Message{{Key: "a", KeySeq: 900_000_000_000_000_000}, {Key: "b", KeySeq: 2}} {
			foreign.EventID, foreign.Type = uuid.NewString(), "x"
			w.storeAs(rolling, foreign)
		}
		report, result := w.run(ctx, rolling, adopt)
		require.Equal(t, []string{"ghost a#?", "ghost b#?", "key_behind a#?", "key_behind b#? mended"}, w.found(report))
		require.Contains(t, report.Findings[2].Detail, "numbers between are missing at the broker, so it is not adopted")
		require.EqualValues(t, 1, result.NumLifted)
		require.EqualValues(t, 1, w.lastSeq(ctx, "a"))
		require.EqualValues(t, 2, w.lastSeq(ctx, "b"))
	})

	t.Run("LeavesAMessageThatSaysSomethingElse", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		e := w.append(ctx, rolling, "a")[0]
		w.storeAs(rolling, reconcile.Message{EventID: e.eventID, Key: "a", KeySeq: 1, Type: "test.other.v1"})
		report, result := w.run(ctx, rolling, adopt)
		require.Equal(t, []string{"unmarked a#1", "different a#1"}, w.found(report))
		require.Contains(t, report.Findings[0].Detail, "it cannot be adopted")
		require.Zero(t, result.NumAdopted)
	})

	t.Run("LeavesWhatIsInFlight", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.store(w.append(ctx, rolling, "a")[0])
		_, result := w.run(ctx, rolling, reconcile.Options{Adopt: true, As: "me", Grace: time.Hour})
		require.Zero(t, result.NumAdopted)
		require.EqualValues(t, 1, result.NumInFlight)
	})

	t.Run("TellsWhatToDoAboutSuppliedNumbers", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, wallet, "p/KRW", "p/KRW", "q/KRW")
		w.deliver(ctx, events...)
		w.forget(ctx, events[1])
		w.forget(ctx, events[2])
		report, result := w.run(ctx, wallet, adopt)
		require.Equal(t, []string{"ghost p/KRW#2", "ghost q/KRW#1", "key_behind p/KRW#2", "key_behind q/KRW#1"}, w.found(report))
		require.Contains(t, report.Findings[2].Detail, "set the version of what the key names to 2")
		require.Zero(t, result.NumLifted)
		require.EqualValues(t, 4, report.NumOpen())
	})

	t.Run("DoesNotCallMendedWhatSomebodyDiscardedMeanwhile", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "a", "b", "c")
		for _, e := range events {
			w.store(e)
		}
		// The keys are raised first: in that moment.
		w.exec(ctx, "DELETE FROM outbox_key WHERE key = 'c'")
		w.onIntervention(ctx, fmt.Sprintf(`
			UPDATE outbox_delivery SET discarded_at = clock_timestamp(), discarded_by = 'you', discard_reason = 'test'
			WHERE id = %d AND discarded_at IS NULL`, events[0].id))
		report, result := w.run(ctx, rolling, adopt)
		require.Equal(t, []string{"unmarked a#1", "unmarked b#1 mended", "unmarked c#1 mended", "key_behind c#1 mended"}, w.found(report))
		require.EqualValues(t, 2, result.NumAdopted)
		require.Equal(t, reconcile.Count{Mended: 2, Total: 3}, result.Counts[reconcile.KindUnmarked])
		require.EqualValues(t, 1, report.NumOpen())

		report, _ = w.run(ctx, rolling, adopt)
		require.Equal(t, []string{"discarded_but_stored a#1"}, w.found(report))
	})

	t.Run("LooksUpTheRowsThatItMarks", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.store(w.append(ctx, rolling, "a")[0])
		w.exec(ctx, "CREATE TABLE planned (enable_nestloop text)")
		w.onIntervention(ctx, "INSERT INTO planned VALUES (current_setting('enable_nestloop'))")
		_, result := w.run(ctx, rolling, adopt)
		require.EqualValues(t, 1, result.NumAdopted)
		var planned string
		require.NoError(t, w.Pool.QueryRow(ctx, "SELECT string_agg(enable_nestloop, ',') FROM planned").Scan(&planned))
		require.Equal(t, "on", planned, "without, each batch reads whole tables with its rows locked")
	})

	t.Run("AdoptsInBatches", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		const numEvents = 2500
		w.exec(ctx, `SELECT outbox_append_many('rolling', array_agg('k' || n), array_agg('test.happened.v1'::text), array_agg('{}'::jsonb)) FROM generate_series(1, $1) AS n`, numEvents)
		rows, err := w.Pool.Query(ctx, "SELECT event_id::text, id, key, key_seq, stream, type FROM outbox_event ORDER BY id")
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var e event
			require.NoError(t, rows.Scan(&e.eventID, &e.id, &e.key, &e.keySeq, &e.stream, &e.kind))
			w.store(e)
		}
		require.NoError(t, rows.Err())
		w.exec(ctx, "DELETE FROM outbox_key")

		report, result := w.run(ctx, rolling, adopt)
		require.EqualValues(t, numEvents, result.NumAdopted)
		require.EqualValues(t, numEvents, result.NumLifted)
		require.Zero(t, report.NumOpen())
		require.Len(t, report.Findings, 2*reconcile.DefaultMaxFindings)
		report, _ = w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
	})
}
