package delivery_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// fate is what becomes of the broker's answer to a message, which the broker has
// then.
type fate int

const (
	arrives fate = iota
	getsLost
	breaksConnection
)

// passing is an event on its way to the broker.
type passing struct {
	key   string
	kind  string // of the event's type, the version left out
	nth   int    // counted from the last decide or hold on, from 1
	opens bool   // an atomic batch, and asks whether the stream takes it
}

// link is the network between the publisher and the broker. It understands what
// passes, so that it can lose or hold back the answers to events, and nothing
// else.
type link struct {
	fates    map[string]fate // by the subject that the answer goes to
	gate     chan struct{}   // closed while answers may pass
	judge    func(passing) fate
	listener net.Listener
	mu       sync.Mutex
	numBack  int              // answers to events that passed to the publisher
	numSent  int              // events that passed towards the broker
	pace     <-chan time.Time // each answer to an event takes one; nil for no limit
	target   string
}

func startLink(t *testing.T) *link {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	l := &link{fates: make(map[string]fate), gate: make(chan struct{}), listener: listener}
	close(l.gate)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(client)
		}
	}()
	return l
}

func (l *link) url() string { return "nats://" + l.listener.Addr().String() }

// leadTo lets new connections go to the server of url.
func (l *link) leadTo(url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = strings.TrimPrefix(url, "nats://")
}

// decide sets the fate of the answers to what is sent from now on; nil: all
// arrive.
func (l *link) decide(judge func(passing) fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge, l.numSent = judge, 0
}

// limit lets one answer to an event pass per interval, until the test ends.
func (l *link) limit(t *testing.T, interval time.Duration) {
	t.Helper()
	ticker := time.NewTicker(interval)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pace = ticker.C
	t.Cleanup(ticker.Stop)
}

// answered is how many answers to events passed to the publisher.
func (l *link) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numBack
}

// hold keeps all answers to events back until the release that it returns.
func (l *link) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.gate, l.numSent = gate, 0
	return sync.OnceFunc(func() { close(gate) })
}

// sent is how many events passed since the last decide or hold.
func (l *link) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numSent
}

func (l *link) serve(client net.Conn) {
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	server, err := net.Dial("tcp", target) //nolint:noctx // ends with the client's connection
	if err != nil {
		_ = client.Close()
		return
	}
	closeBoth := func() { _ = client.Close(); _ = server.Close() }
	go func() { defer closeBoth(); pump(client, server, l.passOut) }()
	defer closeBoth()
	pump(server, client, l.passBack)
}

// passOut notes the events that go to the broker.
func (l *link) passOut(fields []string, body []byte) fate {
	if fields[0] != "HPUB" || !strings.HasPrefix(fields[1], "truegreen.") {
		return arrives
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numSent++
	if len(fields) < 5 {
		return arrives // it asks for no answer
	}
	event := passing{nth: l.numSent}
	if numBytes, err := strconv.Atoi(fields[3]); err == nil && numBytes <= len(body) {
		if header, err := nats.DecodeHeadersMsg(body[:numBytes]); err == nil {
			event.key = header.Get("ce-subject")
			event.kind, _, _ = strings.Cut(header.Get("ce-type"), ".")
			event.opens = header.Get("Nats-Batch-Sequence") == "1" && header.Get("Nats-Batch-Commit") == ""
		}
	}
	l.fates[fields[2]] = arrives
	if l.judge != nil {
		l.fates[fields[2]] = l.judge(event)
	}
	return arrives
}

// passBack does to answers what is their fate.
func (l *link) passBack(fields []string, _ []byte) fate {
	if fields[0] != "MSG" && fields[0] != "HMSG" {
		return arrives
	}
	l.mu.Lock()
	decided, isAnswer := l.fates[fields[1]]
	delete(l.fates, fields[1])
	gate, pace := l.gate, l.pace
	if isAnswer && decided == arrives {
		l.numBack++
	}
	l.mu.Unlock()
	if isAnswer {
		<-gate
	}
	if isAnswer && pace != nil {
		<-pace
	}
	return decided
}

// pump forwards what is read, unless pass decides otherwise, until either side is
// closed.
func pump(from io.Reader, to io.Writer, pass func(fields []string, body []byte) fate) {
	reader, writer := bufio.NewReaderSize(from, 64<<10), bufio.NewWriterSize(to, 64<<10)
	for {
		line, body, err := readFrame(reader)
		if err != nil {
			return
		}
		switch pass(strings.Fields(line), body) {
		case arrives:
			_, _ = writer.WriteString(line)
			_, _ = writer.Write(body)
		case getsLost:
		case breaksConnection:
			return
		}
		if reader.Buffered() == 0 && writer.Flush() != nil {
			return
		}
	}
}

// readFrame reads one line of NATS's protocol, and what it says is to follow.
func readFrame(reader *bufio.Reader) (line string, body []byte, err error) {
	line, err = reader.ReadString('\n')
	if err != nil {
		return "", nil, fmt.Errorf("read line: %w", err)
	}
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return readFrame(reader)
	}
	switch fields[0] {
	case "PUB", "HPUB", "MSG", "HMSG":
		numBytes, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return "", nil, fmt.Errorf("read size of %q: %w", line, err)
		}
		body = make([]byte, numBytes+len("\r\n"))
		if _, err := io.ReadFull(reader, body); err != nil {
			return "", nil, fmt.Errorf("read body: %w", err)
		}
	}
	return line, body, nil
}
