package natspublish_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// behindLink stands between a client and a server, and makes readers of a stream look
// as those do that read from a replica which is behind: they know of less than there
// is.
type behindLink struct {
	endsAt     uint64       // a reader says that nothing is pending behind this sequence
	numReaders atomic.Int64 // made so far
	numBehind  int64        // the first readers, which are behind
	url        string
}

func startBehindLink(t *testing.T, serverURL string, endsAt uint64, numBehind int64) *behindLink {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	link := &behindLink{endsAt: endsAt, numBehind: numBehind, url: "nats://" + listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(serverURL, "nats://")) //nolint:noctx // ends with its client
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				defer func() { _, _ = client.Close(), server.Close() }()
				_, _ = io.Copy(server, client)
			}()
			go func() {
				defer func() { _, _ = client.Close(), server.Close() }()
				_ = link.toClient(client, bufio.NewReader(server))
			}()
		}
	}()
	return link
}

// toClient passes on what the server says, message by message.
func (link *behindLink) toClient(client io.Writer, server *bufio.Reader) error {
	for {
		line, err := server.ReadString('\n')
		if err != nil {
			return err
		}
		fields := strings.Fields(line)
		var body []byte
		if len(fields) > 0 && (fields[0] == "MSG" || fields[0] == "HMSG") {
			size, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return err
			}
			body = make([]byte, size+len("\r\n"))
			if _, err := io.ReadFull(server, body); err != nil {
				return err
			}
		}
		line, body = link.changed(line, body)
		if _, err := client.Write(append([]byte(line), body...)); err != nil {
			return err
		}
	}
}

var (
	// delivery is the reply subject of a reader's message: behind the name of the
	// reader how often it was delivered, its places in the stream and for the reader,
	// the time, and how many are pending.
	delivery = regexp.MustCompile(`(\$JS\.ACK\.\w+\.truegreen-read-[\w-]+\.\d+\.(\d+)\.\d+\.\d+\.)\d+`)

	created = regexp.MustCompile(`"num_pending":(\d+)`)
)

func (link *behindLink) changed(line string, body []byte) (string, []byte) {
	if strings.Contains(string(body), `consumer_create_response`) && link.numReaders.Add(1) <= link.numBehind && link.endsAt == 0 {
		body = created.ReplaceAllFunc(body, func(found []byte) []byte {
			// JSON allows for spaces; the message keeps its length.
			return fmt.Appendf(nil, "%-*s", len(found), `"num_pending":0`)
		})
	}
	if link.numReaders.Load() > link.numBehind {
		return line, body
	}
	found := delivery.FindStringSubmatch(line)
	if found == nil || found[2] != fmt.Sprint(link.endsAt) {
		return line, body
	}
	return delivery.ReplaceAllString(line, "${1}0"), body
}

// TestPublisher_ReadStreamFromBehind shows that messages of which a reader does not
// know do not count as missing.
func TestPublisher_ReadStreamFromBehind(t *testing.T) {
	t.Parallel()

	read := func(ctx context.Context, t *testing.T, bundle *testBundle, link *behindLink) (numRead int, err error) {
		t.Helper()
		_, last, err := connect(t, link.url).ReadStream(ctx, outbox.StreamWallet, func(natspublish.StoredMessage) error {
			numRead++
			return nil
		})
		require.Equal(t, uint64(300), last)
		bundle.requireNoReaders(ctx, t)
		return numRead, err
	}

	t.Run("ReadsOnWhereAReaderCameToItsEndTooEarly", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		link := startBehindLink(t, bundle.server.URL(), 100, 1)
		numRead, err := read(ctx, t, bundle, link)
		require.NoError(t, err)
		require.Equal(t, 300, numRead)
		require.EqualValues(t, 2, link.numReaders.Load())
	})

	t.Run("ReadsOnWhereAReaderKnewOfNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		link := startBehindLink(t, bundle.server.URL(), 0, 1)
		numRead, err := read(ctx, t, bundle, link)
		require.NoError(t, err)
		require.Equal(t, 300, numRead)
		require.EqualValues(t, 2, link.numReaders.Load())
	})

	t.Run("FailsWhereReadersStayBehind", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		numRead, err := read(ctx, t, bundle, startBehindLink(t, bundle.server.URL(), 0, 100))
		require.EqualError(t, err, "read stream TRUEGREEN_WALLET from sequence 1: the reader came to its end before the end of the stream, which has a message at sequence 1")
		require.Zero(t, numRead)
	})

	t.Run("CountsWhatIsGoneInFrontOfTheEnd", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		mustPublish(ctx, t, bundle.publisher, many(300)...)
		stream, err := bundle.js.Stream(ctx, "TRUEGREEN_WALLET")
		require.NoError(t, err)
		for _, sequence := range []uint64{101, 102, 299, 300} {
			require.NoError(t, stream.DeleteMsg(ctx, sequence))
		}
		link := startBehindLink(t, bundle.server.URL(), 100, 1)
		numRead, err := read(ctx, t, bundle, link)
		require.EqualError(t, err, "stream TRUEGREEN_WALLET: messages are gone, 4 in all, at sequences 101 to 102, 299 to 300")
		require.Equal(t, 296, numRead)
	})
}
