package bench_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/pgtx"
)

// naive drains what is pending as one writes it on the first day: a loop for
// each shard, which locks a thousand rows, whichever they are, sends all of them at
// once, and marks them in the same transaction. It keeps no order, holds its transaction
// while it talks to the broker, and takes any error for all of them.
//
// The messages are the relay's, with all of their headers.
func (s *stack) naive(ctx context.Context, b *testing.B, numLoops int) {
	b.Helper()
	conn, err := nats.Connect(s.broker.URL())
	require.NoError(b, err)
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(1<<16))
	require.NoError(b, err)
	group, ctx := errgroup.WithContext(ctx)
	for shard := range numLoops {
		group.Go(func() error {
			for {
				var num int
				err := pgtx.Do(ctx, s.pool, func(tx pgx.Tx) error {
					var err error
					num, err = naiveBatch(ctx, tx, js, shard)
					return err
				})
				if err != nil || num == 0 {
					return err
				}
			}
		})
	}
	require.NoError(b, group.Wait())
}

func naiveBatch(ctx context.Context, tx pgx.Tx, js jetstream.JetStream, shard int) (int, error) {
	rows, err := tx.Query(ctx, `
		WITH claimed AS MATERIALIZED (
			SELECT id
			FROM outbox_delivery
			WHERE stream = 'wallet' AND shard = $1 AND published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL
			LIMIT 1000
			FOR UPDATE SKIP LOCKED
		)
		SELECT event.id, event.event_id, event.type, event.key, event.key_seq, event.created_at, event.payload
		FROM claimed
		JOIN outbox_event AS event ON event.id = claimed.id`, shard)
	if err != nil {
		return 0, err
	}
	var ids []int64
	var futures []jetstream.PubAckFuture
	for rows.Next() {
		var id, keySeq int64
		var eventID uuid.UUID
		var eventType, key string
		var createdAt time.Time
		var body []byte
		if err := rows.Scan(&id, &eventID, &eventType, &key, &keySeq, &createdAt, &body); err != nil {
			return 0, err
		}
		message := nats.NewMsg("truegreen.wallet." + eventType)
		message.Data = body
		message.Header = nats.Header{
			"ce-id": {eventID.String()}, "ce-partitionkey": {key}, "ce-keysequence": {strconv.FormatInt(keySeq, 10)},
			"ce-source": {"/truegreen/wallet"}, "ce-specversion": {"1.0"}, "ce-subject": {key}, "ce-time": {createdAt.UTC().Format(time.RFC3339Nano)},
			"ce-type": {eventType}, "content-type": {"application/json"}, "Nats-Expected-Stream": {"TRUEGREEN_WALLET"}, "Nats-Msg-Id": {eventID.String()},
		}
		future, err := js.PublishMsgAsync(message, jetstream.WithStallWait(time.Minute))
		if err != nil {
			return 0, err
		}
		ids = append(ids, id)
		futures = append(futures, future)
	}
	if err := rows.Err(); err != nil || len(ids) == 0 {
		return 0, err
	}
	refs := make([]string, len(ids))
	for i, future := range futures {
		select {
		case ack := <-future.Ok():
			refs[i] = fmt.Sprintf("%s/%d", ack.Stream, ack.Sequence)
		case err := <-future.Err():
			return 0, err
		}
	}
	_, err = tx.Exec(ctx, `
		UPDATE outbox_delivery AS delivery
		SET published_at = clock_timestamp(), broker_ref = marked.ref, attempts = attempts + 1
		FROM unnest($1::bigint[], $2::text[]) AS marked (id, ref)
		WHERE delivery.id = marked.id`, ids, refs)
	return len(ids), err
}
