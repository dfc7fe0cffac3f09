package bench_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// BenchmarkDrain publishes 200,000 pending wallet events of 10,000 keys, in order
// and with every acknowledgement stored, in turns with JetStream's own async
// limit: the same number of messages with ids, unordered and nothing stored.
func BenchmarkDrain(b *testing.B) {
	const (
		numEvents = 200_000
		numKeys   = 10_000
		rounds    = 3
	)
	ctx := b.Context()
	s := setup(ctx, b)
	var drains, limits, ratios []float64
	for b.Loop() {
		for round := range rounds {
			_, err := s.pool.Exec(ctx, `
				INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
				SELECT 'p-' || n % $1 || '/KRW', $2 + n / $1, $3::jsonb, outbox_shard_of('p-' || n % $1 || '/KRW', 4), 'wallet', 'wallet.staked.v1'
				FROM generate_series(0, $4 - 1) AS n`,
				numKeys, 1+round*numEvents/numKeys, string(payload()), numEvents)
			require.NoError(b, err)
			_, err = s.pool.Exec(ctx, `VACUUM ANALYZE outbox_event`)
			require.NoError(b, err)

			started := time.Now()
			stop := s.startWorker(ctx, b)
			s.waitDrained(ctx, b)
			drains = append(drains, numEvents/time.Since(started).Seconds())
			stop()

			limits = append(limits, s.asyncLimit(b, round, numEvents))
			ratios = append(ratios, drains[round]/limits[round])
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(drains), "drain_rows/s")
	b.ReportMetric(median(limits), "jetstream_msgs/s")
	b.ReportMetric(median(ratios), "ratio")
}

func (s *stack) asyncLimit(b *testing.B, round, numMessages int) float64 {
	b.Helper()
	ctx := b.Context()
	conn, err := nats.Connect(s.broker.URL())
	require.NoError(b, err)
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4000))
	require.NoError(b, err)
	name := fmt.Sprintf("LIMIT_%d", round)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Storage: jetstream.FileStorage, Subjects: []string{name + ".>"}})
	require.NoError(b, err)
	body := payload()

	started := time.Now()
	for range numMessages {
		_, err := js.PublishAsync(name+".wallet.staked.v1", body, jetstream.WithMsgID(uuid.NewString()), jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()
	elapsed := time.Since(started)
	stream, err := js.Stream(ctx, name)
	require.NoError(b, err)
	require.EqualValues(b, numMessages, stream.CachedInfo().State.Msgs)
	require.NoError(b, js.DeleteStream(ctx, name))
	return float64(numMessages) / elapsed.Seconds()
}
