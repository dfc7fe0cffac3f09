package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
)

// restrictViolation is the SQLSTATE of what the schema's triggers refuse.
const restrictViolation = "23001"

func TestOutboxEvent(t *testing.T) {
	t.Parallel()

	const publish = `UPDATE outbox_event SET published_at = now(), broker_ref = 'S 1' WHERE event_id = $1`

	for name, change := range map[string]string{
		"IsNotUnpublished":          `UPDATE outbox_event SET published_at = NULL, broker_ref = NULL WHERE event_id = $1`,
		"KeepsItsAcknowledgement":   `UPDATE outbox_event SET broker_ref = 'S 2' WHERE event_id = $1`,
		"KeepsTheTimeOfPublication": `UPDATE outbox_event SET published_at = now() + interval '1 s' WHERE event_id = $1`,
		"KeepsItsID":                `UPDATE outbox_event SET event_id = gen_random_uuid() WHERE event_id = $1`,
		"KeepsItsKey":               `UPDATE outbox_event SET key = 'other' WHERE event_id = $1`,
		"KeepsItsSequence":          `UPDATE outbox_event SET key_seq = 99 WHERE event_id = $1`,
		"KeepsItsStream":            `UPDATE outbox_event SET stream = 'agent' WHERE event_id = $1`,
		"KeepsItsHeaders":           `UPDATE outbox_event SET headers = '{"a":"b"}' WHERE event_id = $1`,
		"KeepsItsPayload":           `UPDATE outbox_event SET payload = '{"amount":"2"}' WHERE event_id = $1`,
		"KeepsItsShard":             `UPDATE outbox_event SET shard = 3 - shard WHERE event_id = $1`,
		"KeepsTheTimeOfItsAppend":   `UPDATE outbox_event SET created_at = now() WHERE event_id = $1`,
		"KeepsItsType":              `UPDATE outbox_event SET type = 'other' WHERE event_id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			id := mustAppend(ctx, t, tx, supplied("facts-"+name, 1))
			_, err := tx.Exec(ctx, publish, id)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, change, id)
			requireState(t, err, restrictViolation, "are facts and do not change")
		})
	}

	t.Run("IsNotDeletedUndelivered", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("undelivered", 1))
		_, err := tx.Exec(ctx, `DELETE FROM outbox_event WHERE event_id = $1`, id)
		requireState(t, err, restrictViolation, "is undelivered and must not be deleted")
	})

	t.Run("AreNotTruncated", func(t *testing.T) {
		t.Parallel()

		tx := dbtest.Tx(t.Context(), t)
		_, err := tx.Exec(t.Context(), `TRUNCATE outbox_event`)
		requireState(t, err, restrictViolation, "TRUNCATE is refused")
	})

	t.Run("StaysDiscarded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("discarded", 1))
		_, err := tx.Exec(ctx, `UPDATE outbox_event SET discarded_at = now(), discarded_by = 'kim', discard_reason = 'x' WHERE event_id = $1`, id)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `UPDATE outbox_event SET discarded_at = NULL, discarded_by = NULL, discard_reason = NULL WHERE event_id = $1`, id)
		requireState(t, err, restrictViolation, "are facts and do not change")
	})

	t.Run("IsDeletedOnceDelivered", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("delivered", 1))
		_, err := tx.Exec(ctx, publish, id)
		require.NoError(t, err)
		tag, err := tx.Exec(ctx, `DELETE FROM outbox_event WHERE event_id = $1`, id)
		require.NoError(t, err)
		require.Equal(t, int64(1), tag.RowsAffected())
	})

	t.Run("IsPublishedWithAnAcknowledgementOnly", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("acknowledged", 1))
		_, err := tx.Exec(ctx, `UPDATE outbox_event SET published_at = now() WHERE event_id = $1`, id)
		requireState(t, err, "23514", "published_with_acknowledgement")
	})
}
