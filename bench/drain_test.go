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

// manyKeys is SQL for the key of the event that n numbers.
const manyKeys = `'p-' || n % 10000 || '/KRW'`

// BenchmarkDrain publishes pending wallet events, in order and with every
// acknowledgement stored, in turns with a naive loop over the same rows, and with
// JetStream's own async limit: as many messages with ids, unordered and nothing
// stored.
func BenchmarkDrain(b *testing.B) {
	const hot = `CASE WHEN n % 2 = 0 THEN 'hot/KRW' ELSE 'p-' || n % 10000 || '/KRW' END`
	for _, of := range []struct {
		name    string
		key     string
		workers int
	}{
		{"keys=10000/workers=1", manyKeys, 1},
		{"keys=10000/workers=2", manyKeys, 2},
		{"keys=10000/workers=4", manyKeys, 4},
		{"keys=hot/workers=1", hot, 1},
		{"keys=hot/workers=4", hot, 4},
	} {
		b.Run(of.name, func(b *testing.B) {
			const (
				numEvents = 200_000
				rounds    = 3
			)
			ctx := b.Context()
			s := setup(ctx, b)
			rates := make(map[string][]float64)
			measure := func(name string, run func()) {
				started := time.Now()
				run()
				rates[name] = append(rates[name], numEvents/time.Since(started).Seconds())
			}
			for b.Loop() {
				for round := range rounds {
					s.stage(ctx, b, of.key, 1+2*round*numEvents, numEvents)
					var stop func()
					s.emptyBroker(ctx, b)
					measure("drain", func() { stop = s.startWorkers(ctx, b, of.workers); s.waitDrained(ctx, b) })
					stop()

					s.stage(ctx, b, of.key, 1+(2*round+1)*numEvents, numEvents)
					s.emptyBroker(ctx, b)
					measure("naive", func() { s.naive(ctx, b, 4) })
					s.owed.Add(-numEvents)

					s.emptyBroker(ctx, b)
					measure("jetstream", func() { s.asyncLimit(b, round, numEvents) })
				}
			}
			b.ReportMetric(0, "ns/op")
			for name, values := range rates {
				b.ReportMetric(median(values), name+"_rows/s")
			}
			b.ReportMetric(median(rates["drain"])/median(rates["naive"]), "drain/naive")
			b.ReportMetric(median(rates["drain"])/median(rates["jetstream"]), "drain/jetstream")
		})
	}
}

func (s *stack) asyncLimit(b *testing.B, round, numMessages int) {
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
	for range numMessages {
		_, err := js.PublishAsync(name+".wallet.staked.v1", body, jetstream.WithMsgID(uuid.NewString()), jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()
	stream, err := js.Stream(ctx, name)
	require.NoError(b, err)
	require.EqualValues(b, numMessages, stream.CachedInfo().State.Msgs)
	require.NoError(b, js.DeleteStream(ctx, name))
}
