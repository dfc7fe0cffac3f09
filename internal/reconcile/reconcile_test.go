package reconcile_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
	"truegreen/internal/reconcile"
)

func TestRun(t *testing.T) {
	t.Parallel()

	t.Run("ComparesAllStreamsInOrderOfName", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.deliver(ctx, w.append(ctx, wallet, "p-1/KRW", "p-2/KRW", "p-1/KRW")...)
		events := w.append(ctx, rolling, "p-1", "p-1")
		w.deliver(ctx, events[0])
		w.exec(ctx, "UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row' WHERE id = $1", events[1].id)
		w.append(ctx, wallet, "p-1/KRW")

		report, err := reconcile.Run(ctx, w.Pool, w.broker, reconcile.Options{})
		require.NoError(t, err)
		require.Equal(t, reconcile.Report{Streams: []reconcile.StreamResult{
			{Counts: map[reconcile.Kind]reconcile.Count{}, Extent: reconcile.Extent{First: 1, Name: "TRUEGREEN_AGENT"}, Stream: agent},
			{
				Counts: map[reconcile.Kind]reconcile.Count{}, Extent: reconcile.Extent{First: 1, Last: 1, Name: "TRUEGREEN_ROLLING"}, NumMessages: 1,
				NumRows: reconcile.RowCounts{Parked: 1, Published: 1}, Stream: rolling,
			},
			{
				Counts: map[reconcile.Kind]reconcile.Count{}, Extent: reconcile.Extent{First: 1, Last: 3, Name: "TRUEGREEN_WALLET"}, NumMessages: 3,
				NumRows: reconcile.RowCounts{Published: 3, Undelivered: 1}, Stream: wallet,
			},
		}}, report)
		require.Zero(t, report.NumOpen())
	})

	t.Run("TellsTheFirstFindingsAndCountsAll", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		for i, e := range w.append(ctx, rolling, strings.Split(strings.Repeat("a ", 7), " ")[:7]...) {
			w.mark(ctx, e, ref(rolling, uint64(i+1)))
		}
		report, result := w.run(ctx, rolling, reconcile.Options{MaxFindings: 2})
		require.Equal(t, []string{"lost a#1", "lost a#2"}, w.found(report))
		require.Equal(t, map[reconcile.Kind]reconcile.Count{reconcile.KindLost: {Total: 7}}, result.Counts)
		require.EqualValues(t, 7, report.NumOpen())
	})

	t.Run("LeavesNothingBehind", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		for range 2 {
			w.run(ctx, rolling, reconcile.Options{})
		}
		require.Zero(t, w.Pool.Stat().AcquiredConns())
		require.Eventually(t, func() bool {
			var numTables int
			err := w.Pool.QueryRow(ctx, "SELECT count(*) FROM pg_class WHERE relname LIKE 'reconcile%'").Scan(&numTables)
			return err == nil && numTables == 0
		}, 10*time.Second, 10*time.Millisecond)
	})

	t.Run("RefusesOptionsOutOfBounds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		for want, options := range map[string]reconcile.Options{
			"MaxFindings must be from 1 to 10000, got -1":    {MaxFindings: -1},
			"MaxFindings must be from 1 to 10000, got 10001": {MaxFindings: 10_001},
			"Grace must not be negative, got -1s":            {Grace: -time.Second},
			"As must say who adopts":                         {Adopt: true},
			"in 1 to 200 characters, got 201":                {Adopt: true, As: strings.Repeat("é", 201)},
		} {
			_, err := reconcile.Run(ctx, w.Pool, w.broker, options)
			require.ErrorContains(t, err, want)
			require.True(t, fault.Is(err, fault.KindInvalid))
		}
		_, err := reconcile.Run(ctx, w.Pool, w.broker, reconcile.Options{Streams: []string{rolling, "walet"}})
		require.ErrorContains(t, err, `there is no stream "walet"; there are agent, rolling, wallet`)
		require.True(t, fault.Is(err, fault.KindNotFound))
	})

	t.Run("ReturnsWhatTheBrokerFailsWith", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.broker.err = errors.New("nobody answers")
		report, err := reconcile.Run(ctx, w.Pool, w.broker, reconcile.Options{})
		require.ErrorIs(t, err, w.broker.err)
		require.ErrorContains(t, err, "reconcile stream agent: read the broker: nobody answers")
		require.Empty(t, report)
	})

	t.Run("RefusesAReadingThatCannotBeRight", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.deliver(ctx, w.append(ctx, rolling, "a", "a")...)
		for want, mislead := range map[string]func(*reconcile.Extent){
			"the reader gave the stream no name":                        func(extent *reconcile.Extent) { extent.Name = "" },
			"the reader went on to place 2, behind the end at 1":        func(extent *reconcile.Extent) { extent.Last = 1 },
			"places 1 to 9223372036854775808 are higher than can be":    func(extent *reconcile.Extent) { extent.Last = math.MaxInt64 + 1 },
			"the reader gave place 2 after place 2: places must rise":   func(*reconcile.Extent) {},
			"the reader gave no time for the message at place 18446744": func(*reconcile.Extent) {},
		} {
			w.broker.mislead = mislead
			messages := w.broker.stream(rolling).messages
			switch {
			case strings.Contains(want, "after place"):
				w.broker.stream(rolling).messages = append(messages, messages[1])
			case strings.Contains(want, "no time"):
				w.broker.stream(rolling).messages = []reconcile.Message{{Sequence: math.MaxUint64}}
			}
			_, err := reconcile.Run(ctx, w.Pool, w.broker, reconcile.Options{Streams: []string{rolling}})
			require.ErrorContains(t, err, want)
			w.broker.stream(rolling).messages = messages
		}
	})
}

// TestRun_Traffic: what happens while the two sides are read is no finding.
func TestRun_Traffic(t *testing.T) {
	t.Parallel()

	t.Run("KnowsRowsThatWereAppendedWhileTheBrokerWasRead", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.broker.beforeEnd = func() { w.deliver(ctx, w.append(ctx, rolling, "a", "b", "a")...) }
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 3, result.NumMessages)
		require.Zero(t, result.NumRecent)
	})

	t.Run("DoesNotMissWhatWasPublishedBehindTheEnd", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		pending := w.append(ctx, rolling, "a", "a")
		w.broker.afterEnd = func() { w.deliver(ctx, append(pending, w.append(ctx, rolling, "b")...)...) }
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.Zero(t, result.NumMessages)
		require.EqualValues(t, 3, result.NumRecent)

		// It is looked at by the next reading.
		w.broker.afterEnd = nil
		w.remove(rolling, 2)
		report, result = w.run(ctx, rolling, reconcile.Options{})
		require.Equal(t, []string{"lost a#2"}, w.found(report))
		require.Zero(t, result.NumRecent)
	})

	t.Run("CountsYoungUnmarkedRowsAsInFlight", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		for _, e := range w.append(ctx, rolling, "a") {
			w.store(e) // a minute ago
		}
		report, result := w.run(ctx, rolling, reconcile.Options{Grace: reconcile.DefaultGrace})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 1, result.NumInFlight)

		report, result = w.run(ctx, rolling, reconcile.Options{Grace: 10 * time.Second})
		require.Equal(t, []string{"unmarked a#1"}, w.found(report))
		require.Zero(t, result.NumInFlight)
	})

	t.Run("BelievesMarksThatCameWhileTheBrokerWasRead", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		e := w.append(ctx, rolling, "a")[0]
		place := w.store(e)
		w.broker.afterEnd = func() { w.mark(ctx, e, ref(rolling, place)) }
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 1, result.NumRows.Published)
	})
}

// TestRun_Allowed: what looks odd and is as it should be.
func TestRun_Allowed(t *testing.T) {
	t.Parallel()

	t.Run("RepeatsThatTheAttemptsExplain", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "a", "a")
		w.store(events[0])
		w.exec(ctx, "UPDATE outbox_delivery SET attempts = 1 WHERE id = $1", events[0].id) // ambiguous
		w.deliver(ctx, events[0], events[1])                                               // the mark names the second copy
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 1, result.NumRepeats)
		require.EqualValues(t, 3, result.NumMessages)
	})

	t.Run("RepeatsOfAnOpenRowWhoseAttemptsAreNotAllCounted", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		e := w.append(ctx, rolling, "a")[0]
		w.store(e)
		w.store(e)
		report, _ := w.run(ctx, rolling, reconcile.Options{Grace: time.Hour})
		require.Empty(t, report.Findings)
	})

	t.Run("WhatTheBrokersRetentionRemoved", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "a", "b", "a", "a")
		w.deliver(ctx, events[:3]...)
		w.store(events[0]) // of a revived publisher
		w.force(ctx, "UPDATE outbox_delivery SET attempts = 2 WHERE id = $1", events[0].id)
		w.deliver(ctx, events[3])
		w.remove(rolling, 1)
		w.remove(rolling, 2)
		w.broker.stream(rolling).retention.AnyAge = true

		// Number 1 of a is first seen at its repeat now, behind number 2.
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 1, result.NumExpired)
		require.EqualValues(t, 3, result.Extent.First)
	})

	t.Run("WhatTheBrokersRetentionRemovedByItsAge", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, rolling, "old", "young", "adopted", "left")
		w.deliver(ctx, events...)
		w.force(ctx, "UPDATE outbox_delivery SET published_at = published_at - interval '23 hours 56 minutes' WHERE id = $1", events[0].id)
		w.force(ctx, "UPDATE outbox_delivery SET published_at = published_at - interval '23 hours 54 minutes' WHERE id = $1", events[1].id)
		w.exec(ctx, `
			INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
			VALUES ('adopt', 'me', $1, 'adopted', 1, 'the broker holds it', 'rolling')`, events[2].eventID)
		for place := range uint64(3) {
			w.remove(rolling, place+1)
		}
		w.broker.stream(rolling).retention.MaxAge = 24 * time.Hour

		// The clocks of the two may be five minutes apart.
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Equal(t, []string{"lost young#1"}, w.found(report))
		require.Contains(t, report.Findings[0].Detail, "the row says that it is at TRUEGREEN_ROLLING/2, but the stream begins at 4, and by itself it removes nothing as young")
		require.EqualValues(t, 2, result.NumExpired)
	})

	t.Run("MessagesWhoseRowsAreNoLongerKept", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		for _, storedAt := range []time.Time{time.Now().Add(-time.Hour), time.Now()} {
			w.storeAs(rolling, reconcile.Message{EventID: uuid.NewString(), Key: "a", KeySeq: 1, StoredAt: storedAt, Type: "test.happened.v1"})
		}
		w.exec(ctx, "INSERT INTO outbox_key (stream, key, last_seq) VALUES ('rolling', 'a', 2)")
		w.exec(ctx, "INSERT INTO outbox_retention (dropped_before) VALUES (clock_timestamp() - interval '30 minutes')")
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Equal(t, []string{"ghost a#?", "out_of_order a#?"}, w.found(report))
		require.EqualValues(t, 2, report.Findings[0].Sequence)
		require.EqualValues(t, 1, result.NumForgot)
	})

	t.Run("RowsThatMovedToTheHistory", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		w.deliver(ctx, w.append(ctx, rolling, "a", "a")...)
		w.exec(ctx, "SELECT outbox_history_move(clock_timestamp() + interval '1 hour', 0, 1)")
		report, result := w.run(ctx, rolling, reconcile.Options{})
		require.Empty(t, report.Findings)
		require.EqualValues(t, 2, result.NumRows.Published)
	})

	t.Run("ASkippedEventThatWasSentAfterAll", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		w := setup(ctx, t)
		events := w.append(ctx, agent, "a", "a", "a")
		w.deliver(ctx, events[0])
		w.exec(ctx, "UPDATE outbox_delivery SET parked_at = clock_timestamp(), park_reason = 'row' WHERE id = $1", events[1].id)
		w.exec(ctx, "SELECT outbox_leave_gaps(ARRAY[$1]::bigint[], 'row')", events[1].id)
		var markerID string
		require.NoError(t, w.Pool.QueryRow(ctx, "SELECT event_id::text FROM outbox_events WHERE type = 'truegreen.gap.v1'").Scan(&markerID))
		marker := w.row(ctx, markerID)
		w.deliver(ctx, marker, events[2])
		report, _ := w.run(ctx, agent, reconcile.Options{})
		require.Empty(t, report.Findings)

		w.exec(ctx, "UPDATE outbox_delivery SET parked_at = NULL, park_reason = NULL WHERE id = $1", events[1].id) // as a redrive does
		report, _ = w.run(ctx, agent, reconcile.Options{})
		require.Empty(t, report.Findings, "a redriven event that is not yet sent")

		w.deliver(ctx, events[1])
		report, _ = w.run(ctx, agent, reconcile.Options{})
		require.Empty(t, report.Findings)

		// The marker itself may not come late.
		w.broker.streams = make(map[string]*stored)
		for i, e := range []event{events[0], events[2], marker, events[1]} {
			w.store(e)
			w.force(ctx, "UPDATE outbox_delivery SET broker_ref = $2 WHERE id = $1", e.id, ref(agent, uint64(i+1)))
		}
		report, _ = w.run(ctx, agent, reconcile.Options{})
		require.Equal(t, []string{"out_of_order " + marker.String()}, w.found(report))
		require.Equal(t, marker.eventID, report.Findings[0].EventID)

		// Unless the event itself was there in time, and nobody knew when it was parked.
		w.broker.streams = make(map[string]*stored)
		for i, e := range []event{events[0], events[1], events[2], marker} {
			w.store(e)
			w.force(ctx, "UPDATE outbox_delivery SET broker_ref = $2 WHERE id = $1", e.id, ref(agent, uint64(i+1)))
		}
		report, _ = w.run(ctx, agent, reconcile.Options{})
		require.Empty(t, report.Findings)
	})
}

// TestRun_Unreadable: what others publish cannot break the comparison.
func TestRun_Unreadable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := setup(ctx, t)
	for _, message := range []reconcile.Message{
		{},
		{EventID: "{" + uuid.NewString() + "}", Key: "a", KeySeq: 1, Type: "x"},
		{EventID: uuid.NewString(), Key: strings.Repeat("ü", 5000), KeySeq: 1, Type: "x"},
		{EventID: uuid.NewString(), Key: "a", KeySeq: 0, Type: "x"},
		{EventID: uuid.NewString(), Key: "a", KeySeq: math.MinInt64, Type: "\xff"},
		{EventID: uuid.NewString(), Key: "a", KeySeq: 1, Type: "x\x00"},
	} {
		w.storeAs(rolling, message)
	}
	report, result := w.run(ctx, rolling, reconcile.Options{})
	require.Len(t, report.Findings, 6)
	require.Equal(t, map[reconcile.Kind]reconcile.Count{reconcile.KindUnreadable: {Total: 6}}, result.Counts)
	for i, want := range []string{`its id "" is no event's`, "is no event's", "more than 2048 bytes, or what is no text", "is 0, below 1", "is -9223372036854775808, below 1", "what is no text"} {
		require.Contains(t, report.Findings[i].Detail, want)
		require.Contains(t, report.Findings[i].Detail, fmt.Sprintf("TRUEGREEN_ROLLING/%d", i+1))
	}
}
