package peers_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/pgtx"
)

const watermillGroup = "relay"

// Of watermill-sql's tables, how they keep what was published.
const (
	byOffset = "offset" // rows stay, a second table has how far the group is
	byMark   = "mark"   // rows stay and are marked
	byDelete = "delete" // rows go
)

// watermillConfig is how a relay of Watermill's parts is set up.
type watermillConfig struct {
	batchSize int

	// numTopics is how many tables, each with a subscriber of its own, the keys
	// are spread over.
	numTopics int

	// perMessage acknowledges each message to the subscriber when the broker has
	// acknowledged it, before the next one comes. Otherwise the broker's
	// acknowledgements of a batch are awaited together, right before the
	// subscriber stores how far it is.
	perMessage bool

	// progress is byOffset, byMark or byDelete.
	progress string

	// std goes through database/sql instead of pgx's own interface.
	std bool
}

func (c watermillConfig) String() string {
	driver, wait := "pgx", "batch"
	if c.std {
		driver = "std"
	}
	if c.perMessage {
		wait = "message"
	}
	return fmt.Sprintf("progress=%s/ack=%s/batch=%d/driver=%s/topics=%d", c.progress, wait, c.batchSize, driver, c.numTopics)
}

// watermillRelay is watermill-sql's Postgres subscribers, whose messages go to
// JetStream.
type watermillRelay struct {
	beginner  wmsql.Beginner
	config    watermillConfig
	js        jetstream.JetStream
	messageID []string
	name      string
	pool      *pgxpool.Pool
}

func newWatermill(ctx context.Context, b *testing.B, br *broker, name string, config watermillConfig) *watermillRelay {
	b.Helper()
	r := &watermillRelay{
		config: config,
		js:     connect(b, br.server.URL()),
		name:   name,
		pool:   openPool(ctx, b, int32(config.numTopics+4), freshPlans),
	}
	r.beginner = wmsql.BeginnerFromPgx(r.pool)
	if config.std {
		db := stdlib.OpenDBFromPool(r.pool)
		b.Cleanup(func() { _ = db.Close() })
		r.beginner = wmsql.BeginnerFromStdSQL(db)
	}
	for topic := range config.numTopics {
		subscriber, _ := r.newSubscriber(b)
		require.NoError(b, subscriber.SubscribeInitialize(topicName(topic)))
	}
	br.createStream(ctx, b, name)
	return r
}

func topicName(topic int) string { return "wallet_" + strconv.Itoa(topic) }

func (r *watermillRelay) stream() string { return r.name }

func (r *watermillRelay) database() *pgxpool.Pool { return r.pool }

func (r *watermillRelay) ids() []string { return r.messageID }

func (r *watermillRelay) fill(ctx context.Context, b *testing.B, events []event) {
	b.Helper()
	r.messageID = newIDs(len(events))
	next := 0
	for batch := range slices.Chunk(events, fillBatch) {
		topics := make([][]*message.Message, r.config.numTopics)
		for _, event := range batch {
			stored := message.NewMessage(r.messageID[next], event.payload)
			stored.Metadata.Set(headerKey, event.key)
			stored.Metadata.Set(headerSeq, strconv.FormatInt(event.keySeq, 10))
			next++
			hash := fnv.New32a()
			_, _ = hash.Write([]byte(event.key))
			topic := hash.Sum32() % uint32(r.config.numTopics)
			topics[topic] = append(topics[topic], stored)
		}
		err := pgtx.Do(ctx, r.pool, func(tx pgx.Tx) error {
			publisher, err := wmsql.NewPublisher(wmsql.TxFromPgx(tx), wmsql.PublisherConfig{SchemaAdapter: r.schema()}, nil)
			if err != nil {
				return err
			}
			for topic, messages := range topics {
				if len(messages) == 0 {
					continue
				}
				if err := publisher.Publish(topicName(topic), messages...); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(b, err)
	}
	settle(ctx, b, r.pool)
}

func (r *watermillRelay) schema() wmsql.SchemaAdapter {
	if r.config.progress == byOffset {
		return wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: r.config.batchSize}
	}
	return wmsql.PostgreSQLQueueSchema{SubscribeBatchSize: r.config.batchSize}
}

func (r *watermillRelay) newOffsets() *flushingOffsets {
	if r.config.progress == byOffset {
		return &flushingOffsets{OffsetsAdapter: wmsql.DefaultPostgreSQLOffsetsAdapter{}}
	}
	return &flushingOffsets{OffsetsAdapter: wmsql.PostgreSQLQueueOffsetsAdapter{DeleteOnAck: r.config.progress == byDelete}}
}

func (r *watermillRelay) newSubscriber(b *testing.B) (*wmsql.Subscriber, *flushingOffsets) {
	b.Helper()
	offsets := r.newOffsets()
	group := watermillGroup
	if r.config.progress != byOffset {
		group = "" // these have none
	}
	subscriber, err := wmsql.NewSubscriber(r.beginner, wmsql.SubscriberConfig{
		BackoffManager: wmsql.NewDefaultBackoffManager(time.Millisecond, 10*time.Millisecond),
		ConsumerGroup:  group,
		OffsetsAdapter: offsets,
		SchemaAdapter:  r.schema(),
	}, nil)
	require.NoError(b, err)
	return subscriber, offsets
}

func (r *watermillRelay) start(ctx context.Context, b *testing.B) (stop func()) {
	b.Helper()
	var group sync.WaitGroup
	var subscribers []*wmsql.Subscriber
	for topic := range r.config.numTopics {
		subscriber, offsets := r.newSubscriber(b)
		subscribers = append(subscribers, subscriber)
		messages, err := subscriber.Subscribe(ctx, topicName(topic))
		require.NoError(b, err)
		group.Go(func() {
			for one := range messages {
				r.relay(one, offsets)
			}
		})
	}
	return func() {
		for _, subscriber := range subscribers {
			require.NoError(b, subscriber.Close())
		}
		group.Wait()
	}
}

// relay publishes one message.
func (r *watermillRelay) relay(one *message.Message, offsets *flushingOffsets) {
	future, err := publish(r.js, r.name, one.UUID, one.Metadata.Get(headerKey), one.Metadata.Get(headerSeq), one.Payload)
	if err != nil {
		one.Nack()
		return
	}
	if !r.config.perMessage {
		offsets.inFlight = append(offsets.inFlight, future)
		one.Ack()
		return
	}
	if err := await(future); err != nil {
		one.Nack()
		return
	}
	one.Ack()
}

// isDone looks at what each topic's subscriber has stored last.
func (r *watermillRelay) isDone(ctx context.Context, b *testing.B) bool {
	b.Helper()
	for topic := range r.config.numTopics {
		isDone := true
		table := wmsql.DefaultPostgreSQLSchema{}.MessagesTable(topicName(topic))
		query := fmt.Sprintf(`SELECT NOT EXISTS (SELECT FROM %s WHERE NOT acked)`, table)
		if r.config.progress == byOffset {
			query = fmt.Sprintf(`
				SELECT (m.transaction_id, m."offset") = (o.last_processed_transaction_id, o.offset_acked)
				FROM %s AS m, %s AS o WHERE o.consumer_group = '%s'
				ORDER BY m.transaction_id DESC, m."offset" DESC LIMIT 1`,
				table, wmsql.DefaultPostgreSQLOffsetsAdapter{}.MessagesOffsetsTable(topicName(topic)), watermillGroup)
		}
		err := r.pool.QueryRow(ctx, query).Scan(&isDone)
		if !errors.Is(err, pgx.ErrNoRows) { // a topic that has no keys
			require.NoError(b, err)
		}
		if !isDone {
			return false
		}
	}
	return true
}

// flushingOffsets stores how far a subscriber is only after the broker has
// acknowledged what was published of its batch; where that fails, the batch comes
// again. The subscriber hands out a message after the one before was dealt with,
// and asks for the query after the last one: nothing here runs at the same time.
type flushingOffsets struct {
	wmsql.OffsetsAdapter

	inFlight []jetstream.PubAckFuture
}

// AckMessageQuery returns the query that stores the progress of a batch.
func (o *flushingOffsets) AckMessageQuery(params wmsql.AckMessageQueryParams) (wmsql.Query, error) {
	var failed error
	for _, future := range o.inFlight {
		if err := await(future); err != nil {
			failed = err
		}
	}
	o.inFlight = o.inFlight[:0]
	if failed != nil {
		return wmsql.Query{}, fmt.Errorf("publish batch: %w", failed)
	}
	query, err := o.OffsetsAdapter.AckMessageQuery(params)
	if err != nil {
		return wmsql.Query{}, fmt.Errorf("make query of offsets: %w", err)
	}
	return query, nil
}

// await waits for the broker's acknowledgement.
func await(future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-time.After(10 * time.Second):
		return context.DeadlineExceeded
	}
}
