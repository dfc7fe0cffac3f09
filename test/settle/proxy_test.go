package settle_test

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// committed is how the database answers a commit, on the wire.
var committed = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

// proxy stands between the processes and the database. It knows plain connections
// only.
type proxy struct {
	address  string // of the client whose commit is not to be answered
	listener net.Listener
	mu       sync.Mutex
	target   string
	withheld func()
}

func newProxy(t *testing.T, databaseURL string) *proxy {
	t.Helper()
	database, err := url.Parse(databaseURL)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, target: database.Host}
	t.Cleanup(func() { _ = listener.Close() })
	go p.serve(context.WithoutCancel(t.Context()))
	return p
}

// url leads to a database through the proxy.
func (p *proxy) url(t *testing.T, databaseURL string) string {
	t.Helper()
	database, err := url.Parse(databaseURL)
	require.NoError(t, err)
	database.Host = p.listener.Addr().String()
	query := database.Query()
	query.Set("sslmode", "disable")
	database.RawQuery = query.Encode()
	return database.String()
}

// arm cuts the connection of a client when the database has answered its next
// commit, and before the client hears of it. withheld is told.
func (p *proxy) arm(address string, withheld func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address, p.withheld = address, withheld
}

func (p *proxy) serve(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		database, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		go forward(database, client, func([]byte) bool { return true })
		address := client.RemoteAddr().String()
		go forward(client, database, func(data []byte) bool { return p.passes(address, data) })
	}
}

func (p *proxy) passes(address string, data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address != address || !bytes.Contains(data, committed) {
		return true
	}
	p.address = ""
	p.withheld()
	return false
}

// forward copies until one side ends, or data may not pass.
func forward(to, from net.Conn, passes func([]byte) bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		num, err := from.Read(buffer)
		if num > 0 {
			if !passes(buffer[:num]) {
				return
			}
			if _, err := to.Write(buffer[:num]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
