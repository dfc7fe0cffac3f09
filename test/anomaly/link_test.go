package anomaly_test

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// link is the network to the broker. It loses the n-th answer that anything sent
// through it gets, or cuts the connection instead of it.
type link struct {
	target string
	url    string

	mu         sync.Mutex
	cuts       bool
	nth        int
	numAnswers int
}

func startLink(t *testing.T, brokerURL string) *link {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	l := &link{target: strings.TrimPrefix(brokerURL, "nats://"), url: "nats://" + listener.Addr().String()}
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

// lose has the nth answer from now on get lost; 0 for none.
func (l *link) lose(nth int, cuts bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts, l.nth, l.numAnswers = cuts, nth, 0
}

// answered is how many answers there were since the last lose.
func (l *link) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numAnswers
}

// fate says what becomes of the next answer.
func (l *link) fate() (lost, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numAnswers++
	lost = l.numAnswers == l.nth
	return lost, lost && l.cuts
}

func (l *link) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", l.target) //nolint:noctx // ends with the client's connection
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	l.answers(server, client)
}

// answers forwards what the broker says, in the lines of NATS's protocol.
func (l *link) answers(server io.Reader, client io.Writer) {
	reader := bufio.NewReader(server)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		fields := strings.Fields(line)
		frame := []byte(line)
		if len(fields) > 0 && (fields[0] == "MSG" || fields[0] == "HMSG") {
			numBytes, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return
			}
			body := make([]byte, numBytes+len("\r\n"))
			if _, err := io.ReadFull(reader, body); err != nil {
				return
			}
			lost, cut := l.fate()
			if cut {
				return
			}
			if lost {
				continue
			}
			frame = append(frame, body...)
		}
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}
