package natspublish

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// defaultAckTimeout is the default of [Config.AckTimeout].
	defaultAckTimeout = 3 * time.Second

	// firstLookTimeout bounds the wait for the first connection, or the reason why
	// there is none.
	firstLookTimeout = 2 * time.Second
)

// Config are the settings of a [Publisher].
type Config struct {
	// AckTimeout is how long one call of [Publisher.Publish] may take if its context
	// does not say. Defaults to 3 s.
	AckTimeout time.Duration

	// MinDuplicates is what the duplicate window of streams must be longer than, for
	// [Publisher.Prove]. 0 for any.
	MinDuplicates time.Duration

	// URL is where the servers are: nats://host:port, several joined by commas. It
	// may hold credentials, which show up in no error and no log line.
	URL string
}

// Publisher is an outbox.Publisher for JetStream.
type Publisher struct {
	ackTimeout    time.Duration
	conn          *nats.Conn
	denied        atomic.Pointer[violation] // the last permission that was denied; nil for none
	inbox         *inbox
	js            jetstream.JetStream
	lastError     atomic.Pointer[error] // of connecting; nil while connected
	logger        *slog.Logger
	minDuplicates time.Duration
	pace          pace
	servers       string // as in the URL
	support       *support
	window        *window
}

// Connect returns a publisher. It does not need the broker to be there: it goes
// on trying, and events meet an infrastructure error meanwhile. It fails only on
// a URL that can't be right.
func Connect(logger *slog.Logger, config Config) (*Publisher, error) {
	if err := checkURL(config.URL); err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	if config.AckTimeout <= 0 {
		config.AckTimeout = defaultAckTimeout
	}
	publisher := &Publisher{
		ackTimeout:    config.AckTimeout,
		inbox:         newInbox(),
		logger:        logger,
		minDuplicates: config.MinDuplicates,
		servers:       config.URL,
		support:       newSupport(),
		window:        newWindow(),
	}
	looked := make(chan struct{}, 1)
	conn, err := nats.Connect(config.URL, publisher.options(looked)...)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", withoutURL(err))
	}
	publisher.conn = conn
	if !conn.IsConnected() {
		// Whether nobody is there or we are not let in is known in a moment.
		select {
		case <-looked:
		case <-time.After(firstLookTimeout):
		}
	}
	if err := publisher.inbox.subscribe(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	if publisher.js, err = jetstream.New(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return publisher, nil
}

// options are those of the connection. It fills looked after the first attempt.
func (publisher *Publisher) options(looked chan<- struct{}) []nats.Option {
	logger := publisher.logger
	tried := func(err *error) {
		publisher.lastError.Store(err)
		select {
		case looked <- struct{}{}:
		default:
		}
	}
	return []nats.Option{
		nats.Name("truegreen"),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		// Credentials may be mended while we wait, as anything else.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond),
		// What is buffered while disconnected may be sent after we gave up on it.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		// A server that reads nothing must not hold a call for much longer than its
		// time. What is left of a half-written message makes the connection useless.
		nats.FlusherTimeout(publisher.ackTimeout / 2),
		nats.ReconnectOnFlusherError(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { tried(&err) }),
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			publisher.loseAnswers(conn)
			if err != nil {
				logger.Warn("broker connection lost", slog.Any("error", withoutURL(err)))
			}
		}),
		nats.ConnectHandler(func(conn *nats.Conn) {
			tried(nil)
			logger.Info("broker connected", slog.String("broker", conn.ConnectedAddr()))
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			tried(nil)
			logger.Info("broker connected again", slog.String("broker", conn.ConnectedAddr()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				before := publisher.denied.Swap(newViolation(err))
				if before != nil && before.err.Error() == publisher.denied.Load().err.Error() {
					return // each proof meets it again, and says so
				}
			}
			logger.Warn("broker connection error", slog.Any("error", withoutURL(err)))
		}),
	}
}

// loseAnswers ends the wait for answers that can't come any more, once those that
// came are delivered. The next server may be another one.
func (publisher *Publisher) loseAnswers(conn *nats.Conn) {
	publisher.support.forget()
	if err := conn.Barrier(publisher.inbox.lose); err != nil {
		publisher.inbox.lose()
	}
}

// Close ends the connection. Events in flight become ambiguous.
func (publisher *Publisher) Close() {
	publisher.conn.Close()
	publisher.inbox.lose()
}

// checkURL never quotes what it refuses: it may hold a password anywhere.
func checkURL(servers string) error {
	if servers == "" {
		return errors.New("no URL given; it looks like nats://host:4222")
	}
	for server := range strings.SplitSeq(servers, ",") {
		parsed, err := url.Parse(strings.TrimSpace(server))
		if err != nil {
			return errors.New("the URL cannot be read; it looks like nats://host:4222")
		}
		if parsed.Scheme != "nats" && parsed.Scheme != "tls" || parsed.Hostname() == "" {
			return errors.New("the URL looks like nats://host:4222 or tls://host:4222, which this one does not")
		}
	}
	return nil
}

// withoutURL keeps the URL, and what is secret in it, out of an error's text.
func withoutURL(err error) error {
	var parseErr *url.Error
	if errors.As(err, &parseErr) {
		return errors.New("the URL cannot be read; it looks like nats://host:4222")
	}
	return err
}
