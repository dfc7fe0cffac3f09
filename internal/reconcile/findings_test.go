package reconcile_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/reconcile"
)

// divergence brings an outbox and a broker apart that agreed, in one way. Of stream
// rolling, a#1 b#1 a#2 a#3 are at places 1 to 4; a#4 is not delivered.
type divergence struct {
	detail string // part of the first finding
	happen func(ctx context.Context, w *world, events []event)
	name   string
	want   []string
}

// TestRun_Findings is the negative control of each check: all is well before, and
// exactly this is found afterwards.
func TestRun_Findings(t *testing.T) {
	t.Parallel()

	for _, tc := range append(rowDivergences(), brokerDivergences()...) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := setup(ctx, t)
			events := w.append(ctx, rolling, "a", "b", "a", "a", "a")
			w.deliver(ctx, events[:4]...)
			report, _ := w.run(ctx, rolling, reconcile.Options{})
			require.Empty(t, report.Findings)

			tc.happen(ctx, w, events)
			report, result := w.run(ctx, rolling, reconcile.Options{})
			require.Equal(t, tc.want, w.found(report))
			require.Contains(t, report.Findings[0].Detail, tc.detail)
			require.EqualValues(t, len(tc.want), report.NumOpen())
			var total int64
			for _, count := range result.Counts {
				total += count.Total
			}
			require.EqualValues(t, len(tc.want), total)
		})
	}
}

func rowDivergences() []divergence {
	return []divergence{
		{
			name:   "AMarkWithoutAMessageBehindTheEnd",
			happen: func(ctx context.Context, w *world, events []event) { w.mark(ctx, events[4], "TRUEGREEN_ROLLING/5") },
			want:   []string{"lost a#4"},
			detail: "the row says that it is at TRUEGREEN_ROLLING/5, but the stream ends at 4",
		},
		{
			name: "AMarkThatNamesThePlaceOfAnother",
			happen: func(ctx context.Context, w *world, events []event) {
				w.mark(ctx, events[4], "TRUEGREEN_ROLLING/2")
			},
			want:   []string{"lost a#4"},
			detail: "is at TRUEGREEN_ROLLING/2, where event ",
		},
		{
			name: "AMarkOfAnotherStream",
			happen: func(ctx context.Context, w *world, events []event) {
				w.force(ctx, "UPDATE outbox_delivery SET broker_ref = 'TRUEGREEN_WALLET/1' WHERE id = $1", events[0].id)
			},
			want:   []string{"wrong_ref a#1"},
			detail: "'TRUEGREEN_WALLET/1', which is no place in stream TRUEGREEN_ROLLING; the broker has it at TRUEGREEN_ROLLING/1",
		},
		{
			name: "AMarkThatIsNoPlaceAndNoMessage",
			happen: func(ctx context.Context, w *world, events []event) {
				w.mark(ctx, events[4], "TRUEGREEN_ROLLING/99999999999999999999")
			},
			want:   []string{"lost a#4"},
			detail: "which is no place in stream TRUEGREEN_ROLLING, and the broker does not have it",
		},
		{
			name: "AMarkThatNamesAnotherPlace",
			happen: func(ctx context.Context, w *world, events []event) {
				w.force(ctx, "UPDATE outbox_delivery SET broker_ref = 'TRUEGREEN_ROLLING/4' WHERE id = $1", events[0].id)
			},
			want:   []string{"wrong_ref a#1"},
			detail: "at TRUEGREEN_ROLLING/4, which is not where it is; the broker has it at TRUEGREEN_ROLLING/1",
		},
		{
			name:   "AnUnsetMark",
			happen: func(ctx context.Context, w *world, events []event) { w.unmark(ctx, events[3]) },
			want:   []string{"unmarked a#3"},
			detail: "its row is not marked as published; the relay sends it again, or 'outbox reconcile --adopt' marks it",
		},
		{
			name: "AParkedRowThatArrived",
			happen: func(ctx context.Context, w *world, events []event) {
				w.store(events[4])
				w.exec(ctx, "UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row' WHERE id = $1", events[4].id)
			},
			want:   []string{"unmarked a#4"},
			detail: "its row is parked; 'outbox reconcile --adopt' marks it, or 'outbox redrive' sends it again",
		},
		{
			name: "ARowThatIsGone",
			happen: func(ctx context.Context, w *world, events []event) {
				w.forget(ctx, events[1])
				w.exec(ctx, "UPDATE outbox_key SET last_seq = 1 WHERE key = 'b'")
			},
			want:   []string{"ghost b#1"},
			detail: "at TRUEGREEN_ROLLING/2, stored ",
		},
		{
			name: "ANumberThatWouldBeGivenOutAgain",
			happen: func(ctx context.Context, w *world, _ []event) {
				w.exec(ctx, "UPDATE outbox_key SET last_seq = 2 WHERE key = 'a'")
			},
			want:   []string{"key_behind a#3"},
			detail: "the broker has number 3 of this key, and the database gave out numbers up to 2",
		},
		{
			name: "ADiscardedRowThatArrived",
			happen: func(ctx context.Context, w *world, events []event) {
				w.store(events[4])
				w.exec(ctx, "UPDATE outbox_delivery SET discarded_at = clock_timestamp(), discarded_by = 'me', discard_reason = 'test' WHERE id = $1", events[4].id)
			},
			want:   []string{"discarded_but_stored a#4"},
			detail: "the broker has the event at TRUEGREEN_ROLLING/5",
		},
		{
			name: "ARowThatSaysSomethingElse",
			happen: func(ctx context.Context, w *world, events []event) {
				w.force(ctx, "UPDATE outbox_event SET key = 'c', type = 'test.other.v1' WHERE id = $1", events[1].id)
			},
			want:   []string{"different b#1"},
			detail: "is number 1 of key 'b', type test.happened.v1, and its row is number 1 of key 'c', type test.other.v1",
		},
	}
}

func brokerDivergences() []divergence {
	return []divergence{
		{
			name:   "AMessageThatIsGone",
			happen: func(_ context.Context, w *world, _ []event) { w.remove(rolling, 3) },
			want:   []string{"lost a#2"},
			detail: "the row says that it is at TRUEGREEN_ROLLING/3, but nothing is there",
		},
		{
			name: "AMessageThatIsGoneFromTheFrontOfAStreamThatKeepsAll",
			happen: func(_ context.Context, w *world, _ []event) {
				w.remove(rolling, 1)
				w.remove(rolling, 2)
			},
			want:   []string{"lost a#1", "lost b#1"},
			detail: "the row says that it is at TRUEGREEN_ROLLING/1, but the stream begins at 3, and by itself it removes nothing: it was purged, or removed by hand",
		},
		{
			name: "TwoMessagesOfAKeySwapped",
			happen: func(ctx context.Context, w *world, events []event) {
				messages := w.broker.stream(rolling).messages
				messages[2].EventID, messages[3].EventID = messages[3].EventID, messages[2].EventID
				messages[2].KeySeq, messages[3].KeySeq = messages[3].KeySeq, messages[2].KeySeq
				w.force(ctx, "UPDATE outbox_delivery SET broker_ref = 'TRUEGREEN_ROLLING/4' WHERE id = $1", events[2].id)
				w.force(ctx, "UPDATE outbox_delivery SET broker_ref = 'TRUEGREEN_ROLLING/3' WHERE id = $1", events[3].id)
			},
			want:   []string{"out_of_order a#2"},
			detail: "number 2 of its key is first stored at TRUEGREEN_ROLLING/4, behind number 3",
		},
		{
			name: "ANumberGivenOutTwice",
			happen: func(ctx context.Context, w *world, events []event) {
				w.force(ctx, "DROP INDEX outbox_event_key_seq_key")
				w.force(ctx, "UPDATE outbox_event SET key_seq = 3 WHERE id = $1", events[4].id)
				w.deliver(ctx, w.row(ctx, events[4].eventID))
			},
			want:   []string{"out_of_order a#3"},
			detail: "number 3 of its key is first stored at TRUEGREEN_ROLLING/5, behind number 3",
		},
		{
			name: "AnEventThatWasPassedBy",
			happen: func(ctx context.Context, w *world, _ []event) {
				w.deliver(ctx, w.append(ctx, rolling, "a")...)
			},
			want:   []string{"overtaken a#4"},
			detail: "number 4 of its key is not delivered, and number 5 is at the broker",
		},
		{
			name:   "ARepeatOfNoLoggedAttempt",
			happen: func(_ context.Context, w *world, events []event) { w.store(events[0]) },
			want:   []string{"repeat a#1"},
			detail: "the broker has it 2 times, and its row counts 1 attempts",
		},
		{
			name: "ARepeatThatSaysSomethingElse",
			happen: func(ctx context.Context, w *world, events []event) {
				w.force(ctx, "UPDATE outbox_delivery SET attempts = 2 WHERE id = $1", events[0].id)
				w.storeAs(rolling, reconcile.Message{EventID: events[0].eventID, Key: "a", KeySeq: 1, Type: "test.other.v1"})
			},
			want:   []string{"different a#1"},
			detail: "the message at TRUEGREEN_ROLLING/5 is number 1 of key 'a', type test.other.v1",
		},
		{
			name: "AForeignEvent",
			happen: func(_ context.Context, w *world, _ []event) {
				w.storeAs(rolling, reconcile.Message{EventID: uuid.NewString(), Key: "a", KeySeq: 9, Type: "test.happened.v1"})
			},
			want:   []string{"ghost a#?", "key_behind a#?", "overtaken a#4"},
			detail: "as number 9 of its key, and no row knows it",
		},
		{
			name: "AMessageThatIsNoEvent",
			happen: func(_ context.Context, w *world, _ []event) {
				w.storeAs(rolling, reconcile.Message{EventID: "order-17", Key: "a\x00\xff", KeySeq: 1, Type: "x"})
			},
			want:   []string{"unreadable"},
			detail: `the message at TRUEGREEN_ROLLING/5 is no event as consumers are promised: its id "order-17" is no event's`,
		},
		{
			name: "AnEventWhoseHeadersCannotBeRead",
			happen: func(_ context.Context, w *world, _ []event) {
				w.broker.stream(rolling).messages[3].Problem = "ce-keysequence is missing"
				w.broker.stream(rolling).messages[3].KeySeq = 0
			},
			want:   []string{"unreadable a#3"},
			detail: "ce-keysequence is missing",
		},
	}
}

// TestRun_Jobs: what a completed job says of itself is held against the rows.
func TestRun_Jobs(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		detail string // "" for no finding
		name   string
		result string // $1 to $3 are the ids of two published events and a pending one
	}{
		{name: "AJobThatDeliveredWhatItSent", result: `{"first_id": $1, "last_id": $2, "num_failed": 0, "num_published": 2, "num_sent": 2}`},
		{name: "AJobThatLeftWhatItClaimedToItsSuccessor", result: `{"first_id": $1, "last_id": $3, "num_failed": 0, "num_published": 2, "num_sent": 2}`},
		{name: "AJobThatTellsNothing", result: `{}`},
		{name: "AJobThatTellsNonsense", result: `{"first_id": "x", "last_id": -1, "num_failed": "many", "num_published": 1.5, "num_sent": "$3x"}`},
		{
			name:   "AJobThatFailedAndCompleted",
			result: `{"num_failed": 1, "num_published": 2}`,
			detail: "although 1 of the events that it sent failed",
		},
		{
			name:   "AJobThatWasNotToldThatAllArrived",
			result: `{"num_failed": 0, "num_published": 2, "num_sent": 3}`,
			detail: "although it sent 3 events and was told that 2 arrived",
		},
		{
			name:   "AJobThatTellsOfMoreThanThereIs",
			result: `{"first_id": $1, "last_id": $3, "num_failed": 0, "num_published": 3, "num_sent": 3}`,
			detail: "tells of 3 delivered events with ids from 1 to 3, but only 2 of its shard were published, parked or discarded there by its end",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := setup(ctx, t)
			events := w.append(ctx, rolling, "a", "a", "a")
			w.deliver(ctx, events[:2]...)
			ids := strings.NewReplacer("$1", fmt.Sprint(events[0].id), "$2", fmt.Sprint(events[1].id), "$3", fmt.Sprint(events[2].id))
			id := w.job(ctx, rolling, "a", ids.Replace(tc.result))

			report, _ := w.run(ctx, rolling, reconcile.Options{})
			if tc.detail == "" {
				require.Empty(t, report.Findings)
				return
			}
			require.Len(t, report.Findings, 1)
			require.Equal(t, reconcile.KindJobContradiction, report.Findings[0].Kind)
			require.Contains(t, report.Findings[0].Detail, fmt.Sprintf("job %d completed", id))
			require.Contains(t, report.Findings[0].Detail, tc.detail)
		})
	}

	for _, tc := range []struct {
		detail string // "" for no finding
		later  string // when the second event was published, after the job's end
		name   string
	}{
		{name: "HoldsForAWhileThatClocksMayBeApart", later: "4900 milliseconds"},
		{name: "FindsAJobWhoseEventWasSentAfterItsEnd", later: "5100 milliseconds", detail: "but only 2 of its shard were published, parked or discarded there by its end"},
		{name: "FindsAJobWhoseEventWasSentMuchLater", later: "3 hours", detail: "; the rest is by now, so nothing is lost, but its worker is broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := setup(ctx, t)
			events := w.append(ctx, rolling, "a", "a", "a", "b")
			w.deliver(ctx, events...)
			id := w.job(ctx, rolling, "a", fmt.Sprintf(`{"first_id": %d, "last_id": %d, "num_failed": 0, "num_published": 3, "num_sent": 3}`, events[0].id, events[2].id))
			w.endJob(ctx, id, "2026-11-09T02:00:00Z")
			w.resolve(ctx, "published_at", "2026-11-09T01:59:59Z", events...)
			w.force(ctx, "UPDATE outbox_delivery SET published_at = '2026-11-09T02:00:00Z'::timestamptz + $2::text::interval WHERE id = $1", events[1].id, tc.later)

			report, _ := w.run(ctx, rolling, reconcile.Options{})
			if tc.detail == "" {
				require.Empty(t, report.Findings)
				return
			}
			require.Equal(t, []string{"job_contradiction"}, w.found(report))
			require.Contains(t, report.Findings[0].Detail, tc.detail)
		})
	}

	t.Run("LetsAJobPassByWhatWasNotItsOwn", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "a", "a", "a", "a", "a")
		w.deliver(ctx, events...)
		// Those in the middle failed before, and waited: two hours, and for a person.
		first := w.job(ctx, rolling, "a", fmt.Sprintf(`{"first_id": %d, "last_id": %d, "num_failed": 0, "num_published": 3, "num_sent": 3}`, events[0].id, events[4].id))
		w.endJob(ctx, first, "2026-11-09T02:00:00Z")
		w.resolve(ctx, "published_at", "2026-11-09T01:59:59Z", events[0], events[3], events[4])
		second := w.job(ctx, rolling, "a", fmt.Sprintf(`{"first_id": %d, "last_id": %d, "num_failed": 0, "num_published": 1, "num_sent": 1}`, events[1].id, events[1].id))
		w.endJob(ctx, second, "2026-11-09T04:00:00Z")
		w.resolve(ctx, "published_at", "2026-11-09T03:59:59Z", events[1])
		w.force(ctx, "UPDATE outbox_delivery SET parked_at = '2026-11-09T01:00:00Z', park_reason = 'row' WHERE id = $1", events[2].id)
		report, _ := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)

		// As if the second had done nothing, and a later one its work.
		w.resolve(ctx, "published_at", "2026-11-09T05:00:00Z", events[1])
		report, _ = w.run(ctx, rolling, reconcile.Options{})
		require.Len(t, report.Findings, 1)
		require.Contains(t, report.Findings[0].Detail, fmt.Sprintf("job %d completed and tells of 1 delivered events", second))
		require.Contains(t, report.Findings[0].Detail, "but only 0 of its shard")
	})

	t.Run("IsSilentOfJobsWhoseRowsMayBeGone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.job(ctx, rolling, "a", `{"first_id": 1, "last_id": 9, "num_failed": 0, "num_published": 9}`)
		report, _ := w.run(ctx, rolling, reconcile.Options{})
		require.Len(t, report.Findings, 1)

		w.exec(ctx, "INSERT INTO outbox_retention (dropped_before) VALUES (clock_timestamp())")
		report, _ = w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
	})

	t.Run("IsSilentOfJobsThatDidNotComplete", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.job(ctx, rolling, "a", `{"num_failed": 3}`)
		w.exec(ctx, "UPDATE river_job SET state = 'discarded'")
		report, _ := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
	})
}
