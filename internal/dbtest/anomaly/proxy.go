package anomaly

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Kind is how a statement is disturbed.
type Kind string

// The kinds.
const (
	// Fail has the server refuse the statement, as for a full disk. A commit that
	// fails rolls back.
	Fail Kind = "fail"
	// Lose lets the server carry the statement out, and cuts the connection before
	// the answer arrives. It is the fate of a commit that happened and that nobody
	// knows of.
	Lose Kind = "lose"
	// Cut cuts the connection before the statement arrives. By the time the client
	// notices, the server has rolled back.
	Cut Kind = "cut"
	// Cancel calls [Fault.Cancel] before the statement is passed on.
	Cancel Kind = "cancel"
)

const (
	// Message is what an injected failure says, for tests to find in errors.
	Message = "no space left on disk (injected)"

	// DiskFull is the SQLSTATE of injected failures, unless a fault has another.
	DiskFull = "53100"

	// noPortal is a portal that never exists: to execute it is an error, which
	// aborts the transaction.
	noPortal = "anomaly_no_such_portal"

	// Connect is the label of a connection's start, which counts as a statement.
	Connect = "connect"
)

// Codes of the first message of a connection.
const (
	codeCancel = 80877102
	codeGSS    = 80877104
	codeTLS    = 80877103
)

// Fault says which statement is disturbed, and how.
type Fault struct {
	// Cancel is called by a fault of kind [Cancel].
	Cancel func()

	// Kind is how. Empty disturbs nothing.
	Kind Kind

	// Nth is which statement that fits, counted from 1 over all connections.
	Nth int

	// Only, if not empty, is the label of the statements that count for Nth.
	Only string

	// SQLState is the code of a failure. Defaults to [DiskFull].
	SQLState string

	// Stays has every further statement with the label of the Nth disturbed too.
	Stays bool
}

// Proxy stands between the product and one database. It may be used from many
// goroutines.
type Proxy struct {
	listener net.Listener
	sessions sync.WaitGroup
	target   string
	url      string

	mu        sync.Mutex
	fault     Fault
	hit       string // label of the statement that was disturbed first
	numFit    int
	statement []Statement
}

// Statement is one statement that passed.
type Statement struct {
	// Commits says that the statement ends a transaction: a commit, or a statement
	// outside a transaction.
	Commits bool
	// Label names it: the name of a generated query, or the start of its text.
	Label string
}

// Start returns a proxy to the database at databaseURL, which disturbs nothing
// yet. It ends with the test, once the client has closed its connections and the
// server has rolled back what was open in them.
func Start(t testing.TB, databaseURL string) *Proxy {
	t.Helper()
	target, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatalf("read database URL: %v", err)
	}
	listener, err := new(net.ListenConfig).Listen(context.WithoutCancel(t.Context()), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	through := *target
	through.Host = listener.Addr().String()
	proxy := &Proxy{listener: listener, target: target.Host, url: through.String()}
	proxy.sessions.Go(proxy.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		proxy.sessions.Wait()
	})
	return proxy
}

// URL leads to the database through the proxy.
func (proxy *Proxy) URL() string { return proxy.url }

// Arm forgets what passed, and disturbs what passes from now on as fault says.
// The zero fault disturbs nothing.
func (proxy *Proxy) Arm(fault Fault) {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if fault.SQLState == "" {
		fault.SQLState = DiskFull
	}
	proxy.fault, proxy.hit, proxy.numFit, proxy.statement = fault, "", 0, nil
}

// Hit is the label of the statement that was disturbed first since the last
// [Proxy.Arm], and empty if none was.
func (proxy *Proxy) Hit() string {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	return proxy.hit
}

// Statements are what passed since the last [Proxy.Arm], in order.
func (proxy *Proxy) Statements() []Statement {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	return append([]Statement(nil), proxy.statement...)
}

// next counts a statement and returns the fault that it has; its Kind is empty
// for none.
func (proxy *Proxy) next(statement Statement) Fault {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	proxy.statement = append(proxy.statement, statement)
	if proxy.fault.Only != "" && proxy.fault.Only != statement.Label {
		return Fault{}
	}
	proxy.numFit++
	switch {
	case proxy.numFit == proxy.fault.Nth && proxy.fault.Kind != "":
		proxy.hit = statement.Label
		return proxy.fault
	case proxy.fault.Stays && proxy.hit == statement.Label && proxy.hit != "":
		return proxy.fault
	}
	return Fault{}
}

func (proxy *Proxy) accept() {
	for {
		client, err := proxy.listener.Accept()
		if err != nil {
			return
		}
		proxy.sessions.Go(func() { proxy.serve(client) })
	}
}

func (proxy *Proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", proxy.target) //nolint:noctx // ends with the client's connection
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	reader := bufio.NewReader(client)
	startup, err := readStartup(reader, client)
	if err != nil {
		return
	}
	if binary.BigEndian.Uint32(startup[4:]) == codeCancel {
		_, _ = server.Write(startup)
		_, _ = io.Copy(io.Discard, server)
		return
	}
	fault := proxy.next(Statement{Label: Connect})
	switch fault.Kind {
	case Fail:
		_, _ = client.Write(errorResponse("FATAL", fault.SQLState))
		return
	case Lose, Cut:
		return
	case Cancel:
		fault.Cancel()
	}
	if _, err := server.Write(startup); err != nil {
		return
	}
	newSession(proxy, client, server).run(reader)
}

// readStartup reads a connection's first message, and declines encryption.
func readStartup(reader io.Reader, client io.Writer) ([]byte, error) {
	for {
		var length [4]byte
		if _, err := io.ReadFull(reader, length[:]); err != nil {
			return nil, fmt.Errorf("read length: %w", err)
		}
		size := binary.BigEndian.Uint32(length[:])
		if size < 8 || size > 1<<20 {
			return nil, errors.New("no message begins a connection like this")
		}
		message := make([]byte, size)
		copy(message, length[:])
		if _, err := io.ReadFull(reader, message[4:]); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		switch binary.BigEndian.Uint32(message[4:]) {
		case codeTLS, codeGSS:
			if _, err := client.Write([]byte{'N'}); err != nil {
				return nil, fmt.Errorf("decline encryption: %w", err)
			}
		default:
			return message, nil
		}
	}
}

// label names a statement: a generated query by its name, any other by the start
// of its text.
func label(sql string) string {
	sql = strings.TrimSpace(sql)
	if rest, generated := strings.CutPrefix(sql, "-- name: "); generated {
		name, _, _ := strings.Cut(rest, " ")
		return name
	}
	words := strings.Fields(sql)
	return strings.ToLower(strings.Join(words[:min(len(words), 6)], " "))
}
