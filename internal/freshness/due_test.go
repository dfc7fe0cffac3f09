package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadLoops_Due says which events of an outbox count as due.
func TestReadLoops_Due(t *testing.T) {
	t.Parallel()

	const never = -1
	minute := time.Minute
	cases := []struct {
		name    string
		arrange func(rows rows)
		loop    string
		atLeast time.Duration // of the oldest due event; never: nothing is due
	}{
		{"Nothing", func(rows) {}, loop, never},
		{"AnEventThatNeverWasSent", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", stream: stream})
			rows.event(event{age: minute, key: "b", stream: stream})
		}, loop, 5 * minute},
		{"NotAPublishedOne", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", stream: stream})
			rows.exec(`UPDATE outbox_delivery SET published_at = now(), broker_ref = 'S:1'`)
		}, loop, never},
		{"NotAnEventOfAnotherStream", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", stream: "rolling"})
		}, loop, never},
		{"NotADelayedOne", func(rows rows) {
			rows.event(event{age: 5 * minute, delay: minute, failedAgo: minute, key: "a", stream: stream})
		}, loop, never},
		{"ADelayedOneOnceItsWaitIsOver", func(rows rows) {
			rows.event(event{age: 9 * minute, delay: -2 * minute, failedAgo: 3 * minute, key: "a", stream: stream})
		}, loop, 2 * minute},
		{"NotWhatWaitsBehindADelayedOne", func(rows rows) {
			rows.event(event{age: 5 * minute, delay: minute, failedAgo: minute, key: "a", stream: stream})
			rows.event(event{age: 4 * minute, key: "a", stream: stream})
		}, loop, never},
		{"NotWhatWaitsBehindAParkedOne", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
			rows.event(event{age: 4 * minute, key: "a", stream: stream})
		}, loop, never},
		{"AnotherKeyOfThatShard", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
			rows.event(event{age: 4 * minute, key: "a", stream: stream})
			rows.event(event{age: 3 * minute, key: "b", stream: stream})
		}, loop, 3 * minute},
		{"WhatGoesOnBehindAParkedOneByPolicy", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: "agent"})
			rows.event(event{age: 4 * minute, key: "a", stream: "agent"})
		}, "outbox_agent", 4 * minute},
		{"AnOldOneBehindOneThatFailsEveryFewSeconds", func(rows rows) {
			rows.event(event{age: 9 * minute, delay: -time.Second, failedAgo: 2 * time.Second, key: "a", stream: stream})
			rows.event(event{age: 4 * minute, key: "b", stream: stream})
		}, loop, 4 * minute},
		{"OneKeyThatFailsIsAPoisonEvent", func(rows rows) {
			rows.published(stream, 0, 30*minute)
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
		}, loop, never},
		{"TwoKeysThatFailedSinceTheLastAcknowledgement", func(rows rows) {
			rows.published(stream, 0, 30*minute)
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
			rows.event(event{age: 4 * minute, delay: minute, failedAgo: minute, key: "b", shard: 3, stream: stream})
		}, loop, 4 * minute},
		{"TwoKeysThatFailedAndNothingEverWasAcknowledged", func(rows rows) {
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
			rows.event(event{age: 4 * minute, key: "b", parkedAgo: minute, stream: stream})
		}, loop, 4 * minute},
		{"TwoKeysThatFailedBeforeTheLastAcknowledgement", func(rows rows) {
			rows.published(stream, 2, minute/2)
			rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
			rows.event(event{age: 4 * minute, delay: minute, failedAgo: minute, key: "b", shard: 3, stream: stream})
		}, loop, never},
		{"AnOldPoisonEventIsNoReasonToCallAYoungFailureOld", func(rows rows) {
			rows.event(event{age: 600 * minute, key: "a", parkedAgo: 500 * minute, stream: stream})
			rows.event(event{age: minute, delay: minute, failedAgo: time.Second, key: "b", stream: stream})
		}, loop, minute},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx, rows := txBundle(ctx, t)
			test.arrange(rows)
			age := statusOf(ctx, t, tx, test.loop).OldestDueAge
			if test.atLeast == never {
				require.Nil(t, age)
				return
			}
			require.NotNil(t, age)
			require.GreaterOrEqual(t, *age, test.atLeast)
			require.Less(t, *age, test.atLeast+30*time.Second)
		})
	}

	t.Run("WhatWasNotLookedAt", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx, rows := txBundle(ctx, t)
		rows.event(event{age: 5 * minute, key: "a", parkedAgo: minute, stream: stream})
		rows.exec(`
			INSERT INTO outbox_delivery (id, place, stream, shard, key, created_at)
			SELECT n, n, 'wallet', 0, 'a', now() FROM generate_series(2, 10000) AS n
		`)
		require.Nil(t, statusOf(ctx, t, tx, loop).OldestDueAge)

		rows.event(event{age: minute, key: "a", stream: stream})
		require.NotNil(t, statusOf(ctx, t, tx, loop).OldestDueAge)
	})
}
