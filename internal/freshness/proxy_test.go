package freshness_test

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a client and the database. Frozen, it takes connections
// and bytes, and forwards nothing: what a blackholed network looks like.
type proxy struct {
	frozen   bool
	listener net.Listener
	mu       sync.Mutex
	target   string
	thawed   *sync.Cond
}

// newProxy returns a proxy to the database of databaseURL, and the URL through it.
func newProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()
	parsed, err := url.Parse(databaseURL)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)

	proxy := &proxy{listener: listener, target: parsed.Host}
	proxy.thawed = sync.NewCond(&proxy.mu)
	t.Cleanup(func() {
		_ = listener.Close()
		proxy.freeze(false)
	})
	go proxy.serve(t.Context())
	parsed.Host = listener.Addr().String()
	return proxy, parsed.String()
}

func (proxy *proxy) freeze(frozen bool) {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	proxy.frozen = frozen
	proxy.thawed.Broadcast()
}

func (proxy *proxy) waitUntilThawed() {
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	for proxy.frozen {
		proxy.thawed.Wait()
	}
}

func (proxy *proxy) serve(ctx context.Context) {
	for {
		client, err := proxy.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(ctx, "tcp", proxy.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		go proxy.forward(client, server)
		go proxy.forward(server, client)
	}
}

func (proxy *proxy) forward(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		num, err := from.Read(buffer)
		proxy.waitUntilThawed()
		if num > 0 {
			if _, err := to.Write(buffer[:num]); err != nil {
				return
			}
		}
		if err != nil {
			_ = from.Close()
			return
		}
	}
}
