package natspublish

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxPending is how many messages may wait for their acknowledgement in one
// process: every shard of every stream at the largest batch size, and more.
const maxPending = 1 << 18

// Config are the settings of a [Publisher].
type Config struct {
	// AckTimeout is how long one message may wait for its acknowledgement before
	// it is given up on. Not below the relay's.
	AckTimeout time.Duration

	// URL is where the servers are: nats://host:port, several joined by commas.
	URL string
}

// Publisher is an outbox.Publisher for JetStream.
type Publisher struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	logger *slog.Logger
	opts   []jetstream.PublishOpt
}

// Connect returns a publisher. It does not need the broker to be there: it goes
// on trying, and events meet an infrastructure error meanwhile. It fails only on
// a URL that can't be right.
func Connect(logger *slog.Logger, config Config) (*Publisher, error) {
	if err := checkURL(config.URL); err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	conn, err := nats.Connect(config.URL,
		nats.Name("truegreen"),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		// Credentials may be mended while we wait, as anything else.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250*time.Millisecond),
		// What is buffered while disconnected may be sent after we gave up on it.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5*time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				logger.Warn("broker connection lost", slog.Any("error", err))
			}
		}),
		nats.ConnectHandler(func(conn *nats.Conn) {
			logger.Info("broker connected", slog.String("broker", conn.ConnectedAddr()))
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			logger.Info("broker connected again", slog.String("broker", conn.ConnectedAddr()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logger.Warn("broker connection error", slog.Any("error", err))
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	js, err := jetstream.New(conn,
		jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(config.AckTimeout),
	)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Publisher{
		conn:   conn,
		js:     js,
		logger: logger,
		// The client's own retries would let later events of a key pass by.
		opts: []jetstream.PublishOpt{jetstream.WithRetryAttempts(0), jetstream.WithStallWait(config.AckTimeout)},
	}, nil
}

// Close ends the connection. Events in flight become ambiguous.
func (publisher *Publisher) Close() { publisher.conn.Close() }

func checkURL(servers string) error {
	if servers == "" {
		return errors.New("no URL given; it looks like nats://host:4222")
	}
	for server := range strings.SplitSeq(servers, ",") {
		parsed, err := url.Parse(strings.TrimSpace(server))
		if err != nil {
			return errors.New("the URL cannot be read; it looks like nats://host:4222")
		}
		if parsed.Scheme != "nats" && parsed.Scheme != "tls" || parsed.Host == "" {
			return fmt.Errorf("the URL looks like nats://host:4222 or tls://host:4222, got %s", parsed.Redacted())
		}
	}
	return nil
}
