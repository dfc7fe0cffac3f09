package delivery_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// broker is a real server, which can be made to fail.
type broker struct {
	dir    string
	js     jetstream.JetStream // past the link
	link   *link
	server *devstack.NATS
}

func startBroker(t *testing.T, link *link) *broker {
	t.Helper()
	b := &broker{dir: t.TempDir(), link: link}
	b.start(t)
	t.Cleanup(func() { b.server.Stop() })
	return b
}

// start runs the server, with what an earlier one stored.
func (b *broker) start(t *testing.T) {
	t.Helper()
	var err error
	b.server, err = devstack.StartNATS(devstack.NATSConfig{StoreDir: b.dir})
	require.NoError(t, err)
	b.link.leadTo(b.server.URL())
	conn, err := nats.Connect(b.server.URL())
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	b.js, err = jetstream.New(conn)
	require.NoError(t, err)
}

// update changes the settings of a stream behind everybody's back.
func (b *broker) update(ctx context.Context, t *testing.T, stream outbox.Stream, change func(*jetstream.StreamConfig)) {
	t.Helper()
	found, err := b.js.Stream(ctx, natspublish.StreamName(stream.Name))
	require.NoError(t, err)
	config := found.CachedInfo().Config
	change(&config)
	_, err = b.js.UpdateStream(ctx, config)
	require.NoError(t, err)
}

// subjectsOf are the subjects of events of one kind.
func subjectsOf(stream outbox.Stream, kind string) string {
	return "truegreen." + stream.Name + "." + kind + ".>"
}

// silencePoison has the broker take events of the kind poison, and those alone,
// for a stream that stores none of them and never says so.
func (b *broker) silencePoison(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	b.update(ctx, t, stream, func(config *jetstream.StreamConfig) {
		config.Subjects = []string{subjectsOf(stream, "good"), subjectsOf(stream, "truegreen")}
	})
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{Name: "SILENT_" + stream.Name, NoAck: true, Subjects: []string{subjectsOf(stream, "poison")}})
	require.NoError(t, err)
}

// mend gives the stream its subjects back.
func (b *broker) mend(ctx context.Context, t *testing.T, stream outbox.Stream) {
	t.Helper()
	require.NoError(t, b.js.DeleteStream(ctx, "SILENT_"+stream.Name))
	b.update(ctx, t, stream, func(config *jetstream.StreamConfig) {
		config.Subjects = []string{"truegreen." + stream.Name + ".>"}
	})
}

// message is what the broker holds of an event.
type message struct {
	eventID string
	header  nats.Header
	key     string
	keySeq  int64
	ref     string // as broker_ref has it
	kind    string // the whole type
}

// messages reads the whole stream, from its first sequence.
func (b *broker) messages(ctx context.Context, t *testing.T, stream outbox.Stream) []message {
	t.Helper()
	name := natspublish.StreamName(stream.Name)
	found, err := b.js.Stream(ctx, name)
	require.NoError(t, err)
	num := int(found.CachedInfo().State.Msgs)
	if num == 0 {
		return nil
	}
	consumer, err := found.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	batch, err := consumer.Fetch(num, jetstream.FetchMaxWait(patience/2))
	require.NoError(t, err)
	messages := make([]message, 0, num)
	for one := range batch.Messages() {
		header := one.Headers()
		metadata, err := one.Metadata()
		require.NoError(t, err)
		keySeq, err := strconv.ParseInt(header.Get("ce-keysequence"), 10, 64)
		require.NoError(t, err)
		require.Equal(t, header.Get("Nats-Msg-Id"), header.Get("ce-id"))
		messages = append(messages, message{
			eventID: header.Get("ce-id"),
			header:  header,
			key:     header.Get("ce-subject"),
			keySeq:  keySeq,
			kind:    header.Get("ce-type"),
			ref:     name + "/" + strconv.FormatUint(metadata.Sequence.Stream, 10),
		})
	}
	require.NoError(t, batch.Error())
	require.Len(t, messages, num)
	return messages
}

// numStored is how many messages the broker holds.
func (b *broker) numStored(ctx context.Context, t *testing.T, stream outbox.Stream) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := b.js.Stream(ctx, natspublish.StreamName(stream.Name))
	require.NoError(t, err)
	return int(found.CachedInfo().State.Msgs)
}
