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

	for name, change := range map[string]string{
		"KeepsItsID":              `UPDATE outbox_event SET event_id = gen_random_uuid() WHERE event_id = $1`,
		"KeepsItsKey":             `UPDATE outbox_event SET key = 'other' WHERE event_id = $1`,
		"KeepsItsSequence":        `UPDATE outbox_event SET key_seq = 99 WHERE event_id = $1`,
		"KeepsItsStream":          `UPDATE outbox_event SET stream = 'agent' WHERE event_id = $1`,
		"KeepsItsHeaders":         `UPDATE outbox_event SET headers = '{"a":"b"}' WHERE event_id = $1`,
		"KeepsItsPayload":         `UPDATE outbox_event SET payload = '{"amount":"2"}' WHERE event_id = $1`,
		"KeepsItsShard":           `UPDATE outbox_event SET shard = 3 - shard WHERE event_id = $1`,
		"KeepsTheTimeOfItsAppend": `UPDATE outbox_event SET created_at = now() WHERE event_id = $1`,
		"KeepsItsType":            `UPDATE outbox_event SET type = 'other' WHERE event_id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			id := mustAppend(ctx, t, tx, supplied("facts-"+name, 1))
			_, err := tx.Exec(ctx, change, id)
			requireState(t, err, restrictViolation, "is a fact and does not change")
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

	t.Run("IsNotDeletedWithoutItsDelivery", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("forgotten", 1))
		for _, statement := range []string{
			`ALTER TABLE outbox_delivery DISABLE TRIGGER outbox_delivery_undelivered_stay`,
			`DELETE FROM outbox_delivery`,
		} {
			_, err := tx.Exec(ctx, statement)
			require.NoError(t, err)
		}
		_, err := tx.Exec(ctx, `DELETE FROM outbox_event WHERE event_id = $1`, id)
		requireState(t, err, restrictViolation, "is undelivered and must not be deleted")
	})

	t.Run("AreNotTruncated", func(t *testing.T) {
		t.Parallel()

		tx := dbtest.Tx(t.Context(), t)
		_, err := tx.Exec(t.Context(), `TRUNCATE outbox_event`)
		requireState(t, err, restrictViolation, "TRUNCATE is refused")
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
}

const (
	ofEvent = ` WHERE id = (SELECT id FROM outbox_event WHERE event_id = $1)`
	publish = `UPDATE outbox_delivery SET published_at = now(), broker_ref = 'S/1'` + ofEvent
)

func TestOutboxDelivery(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]string{
		"IsNotUnpublished":          `UPDATE outbox_delivery SET published_at = NULL, broker_ref = NULL`,
		"KeepsItsAcknowledgement":   `UPDATE outbox_delivery SET broker_ref = 'S/2'`,
		"KeepsItsKey":               `UPDATE outbox_delivery SET key = 'other'`,
		"KeepsItsPlace":             `UPDATE outbox_delivery SET place = 1`,
		"KeepsTheTimeOfPublication": `UPDATE outbox_delivery SET published_at = now() + interval '1 s'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			id := mustAppend(ctx, t, tx, supplied("facts-"+name, 1))
			_, err := tx.Exec(ctx, publish, id)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, change+ofEvent, id)
			requireState(t, err, restrictViolation, "are facts and do not change")
		})
	}

	t.Run("IsNotForgottenUndelivered", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("undelivered", 1))
		_, err := tx.Exec(ctx, `DELETE FROM outbox_delivery`+ofEvent, id)
		requireState(t, err, restrictViolation, "is undelivered and must not be forgotten")
	})

	t.Run("AreNotTruncated", func(t *testing.T) {
		t.Parallel()

		tx := dbtest.Tx(t.Context(), t)
		_, err := tx.Exec(t.Context(), `TRUNCATE outbox_delivery`)
		requireState(t, err, restrictViolation, "TRUNCATE is refused")
	})

	t.Run("StaysDiscarded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("discarded", 1))
		_, err := tx.Exec(ctx, `UPDATE outbox_delivery SET discarded_at = now(), discarded_by = 'kim', discard_reason = 'x'`+ofEvent, id)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `UPDATE outbox_delivery SET discarded_at = NULL, discarded_by = NULL, discard_reason = NULL`+ofEvent, id)
		requireState(t, err, restrictViolation, "are facts and do not change")
	})

	t.Run("IsPublishedWithAnAcknowledgementOnly", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		tx := dbtest.Tx(ctx, t)
		id := mustAppend(ctx, t, tx, supplied("acknowledged", 1))
		_, err := tx.Exec(ctx, `UPDATE outbox_delivery SET published_at = now()`+ofEvent, id)
		requireState(t, err, "23514", "published_with_acknowledgement")
	})
}
