package anomaly

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Types of messages, as Postgres's protocol has them.
const (
	msgBind          = 'B'
	msgCopyDone      = 'c'
	msgCopyFail      = 'f'
	msgErrorResponse = 'E' // from the server
	msgExecute       = 'E' // from the client
	msgParse         = 'P'
	msgQuery         = 'Q'
	msgReady         = 'Z'
	msgTerminate     = 'X'
)

// endTimeout bounds how long the server may take to end a connection.
const endTimeout = 10 * time.Second

// session is one connection through the proxy.
type session struct {
	client net.Conn
	proxy  *Proxy
	server net.Conn

	// Of the client's side alone.
	portals    map[string]string // name → text
	statements map[string]string // name → text

	mu       sync.Mutex
	loses    bool   // the answers from here on get lost, and then the connection
	sqlState string // of the failure that stands in for an unknown portal
	status   byte   // of the transaction, as the server last said
}

func newSession(proxy *Proxy, client, server net.Conn) *session {
	return &session{
		client: client, portals: make(map[string]string), proxy: proxy, server: server,
		statements: make(map[string]string), status: 'I',
	}
}

// run forwards messages until either side ends the connection, and returns when
// the server has ended what was open in it.
func (s *session) run(reader *bufio.Reader) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.answers()
		_ = s.client.Close()
	}()
	s.asks(reader, answered)
	_ = s.client.Close()
	_ = s.server.SetDeadline(time.Now().Add(endTimeout))
	_, _ = s.server.Write(frame(msgTerminate, nil))
	<-answered
	_, _ = io.Copy(io.Discard, s.server)
}

// asks forwards what the client says.
func (s *session) asks(reader *bufio.Reader, answered <-chan struct{}) {
	writer := bufio.NewWriter(s.server)
	for {
		message, err := readMessage(reader)
		if err != nil {
			return
		}
		statement, counts := s.note(message)
		if counts {
			fault := s.proxy.next(statement)
			switch fault.Kind {
			case Fail:
				message = s.failing(message, fault.SQLState)
			case Lose:
				s.mu.Lock()
				s.loses = true
				s.mu.Unlock()
			case Cancel:
				fault.Cancel()
			case Cut:
				s.mu.Lock()
				s.loses = true
				s.mu.Unlock()
				_, _ = writer.Write(frame(msgTerminate, nil))
				_ = writer.Flush()
				// The server has rolled back once it closes the connection.
				<-answered
				return
			}
		}
		if _, err := writer.Write(message); err != nil {
			return
		}
		if reader.Buffered() == 0 && writer.Flush() != nil {
			return
		}
	}
}

// note keeps what names stand for, and says whether the message is a statement
// that counts. What ends a failed transaction does not: it cannot fail in a way
// that matters.
func (s *session) note(message []byte) (Statement, bool) {
	body := message[5:]
	var text string
	switch message[0] {
	case msgParse:
		name, rest := cutString(body)
		s.statements[name], _ = cutString(rest)
		return Statement{}, false
	case msgBind:
		portal, rest := cutString(body)
		name, _ := cutString(rest)
		s.portals[portal] = s.statements[name]
		return Statement{}, false
	case msgExecute:
		portal, _ := cutString(body)
		text = s.portals[portal]
	case msgQuery:
		text, _ = cutString(body)
	case msgCopyDone:
		text = "end of copy"
	default:
		return Statement{}, false
	}
	named := label(text)
	if strings.HasPrefix(named, "rollback") || strings.HasPrefix(named, "deallocate") {
		return Statement{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Statement{Commits: named == "commit" || (s.status == 'I' && !strings.HasPrefix(named, "begin")), Label: named}, true
}

// failing is the message in whose place the server fails.
func (s *session) failing(message []byte, sqlState string) []byte {
	switch message[0] {
	case msgExecute:
		s.mu.Lock()
		s.sqlState = sqlState
		s.mu.Unlock()
		return frame(msgExecute, append([]byte(noPortal), 0, 0, 0, 0, 0))
	case msgCopyDone:
		s.mu.Lock()
		s.sqlState = sqlState
		s.mu.Unlock()
		return frame(msgCopyFail, append([]byte(noPortal), 0))
	}
	text, _ := cutString(message[5:])
	raise := fmt.Sprintf("DO $anomaly$ BEGIN RAISE EXCEPTION USING ERRCODE = '%s', MESSAGE = '%s'; END $anomaly$", sqlState, Message)
	if label(text) == "commit" {
		raise = "ROLLBACK; " + raise
	}
	return frame(msgQuery, append([]byte(raise), 0))
}

// answers forwards what the server says.
func (s *session) answers() {
	reader, writer := bufio.NewReader(s.server), bufio.NewWriter(s.client)
	for {
		message, err := readMessage(reader)
		if err != nil {
			return
		}
		s.mu.Lock()
		loses, sqlState := s.loses, s.sqlState
		if message[0] == msgReady && len(message) > 5 {
			s.status = message[5]
		}
		s.mu.Unlock()
		if message[0] == msgErrorResponse && bytes.Contains(message, []byte(noPortal)) {
			message = errorResponse("ERROR", sqlState)
		}
		if loses {
			if message[0] == msgReady {
				return
			}
			continue
		}
		if _, err := writer.Write(message); err != nil {
			return
		}
		if reader.Buffered() == 0 && writer.Flush() != nil {
			return
		}
	}
}

func readMessage(reader io.Reader) ([]byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(reader, header[:]); err != nil {
		return nil, fmt.Errorf("read type and length: %w", err)
	}
	size := binary.BigEndian.Uint32(header[1:])
	message := make([]byte, size+1)
	copy(message, header[:])
	if _, err := io.ReadFull(reader, message[5:]); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return message, nil
}

func frame(kind byte, body []byte) []byte {
	message := make([]byte, 5, 5+len(body))
	message[0] = kind
	binary.BigEndian.PutUint32(message[1:], uint32(len(body)+4))
	return append(message, body...)
}

// cutString takes a string that ends with a zero off the front of body.
func cutString(body []byte) (string, []byte) {
	text, rest, _ := bytes.Cut(body, []byte{0})
	return string(text), rest
}

func errorResponse(severity, sqlState string) []byte {
	var body bytes.Buffer
	for _, field := range []string{"S" + severity, "V" + severity, "C" + sqlState, "M" + Message} {
		body.WriteString(field)
		body.WriteByte(0)
	}
	body.WriteByte(0)
	return frame(msgErrorResponse, body.Bytes())
}
