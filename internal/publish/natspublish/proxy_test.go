package natspublish_test

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxy stands between a client and a server, and can do what happens to
// connections.
type proxy struct {
	cutBefore string        // ends the connection before these bytes of the client
	delay     atomic.Int64  // of each of the server's answers, in nanoseconds
	frozen    chan struct{} // once closed: nothing more is read from clients
	muted     chan struct{} // once closed: nothing more gets to clients
	url       string

	connections []net.Conn
	mu          sync.Mutex
}

// startProxy starts a proxy in front of a server; change may set what it does.
func startProxy(t *testing.T, serverURL string, change func(*proxy)) *proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{frozen: make(chan struct{}), muted: make(chan struct{}), url: "nats://" + listener.Addr().String()}
	if change != nil {
		change(p)
	}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	target := strings.TrimPrefix(serverURL, "nats://")
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target) //nolint:noctx // ends with the proxy
			if err != nil {
				_ = client.Close()
				continue
			}
			p.add(client, server)
			go p.toServer(client, server)
			go p.toClient(client, server)
		}
	}()
	return p
}

func (p *proxy) add(connections ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connections = append(p.connections, connections...)
}

// cut ends all connections; new ones are welcome.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.connections {
		_ = conn.Close()
	}
	p.connections = nil
}

func (p *proxy) mute()   { close(p.muted) }
func (p *proxy) freeze() { close(p.frozen) }

func (p *proxy) toServer(client, server net.Conn) {
	defer func() { _, _ = client.Close(), server.Close() }()
	buffer := make([]byte, 32<<10)
	var seen []byte // the end of what went before, since the bytes may come in two parts
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-p.frozen:
			select {}
		default:
		}
		data := buffer[:n]
		if p.cutBefore != "" {
			window := append(bytes.Clone(seen), data...)
			if bytes.Contains(window, []byte(p.cutBefore)) {
				return
			}
			seen = bytes.Clone(window[max(0, len(window)-len(p.cutBefore)):])
		}
		if _, err := server.Write(data); err != nil {
			return
		}
	}
}

func (p *proxy) toClient(client, server net.Conn) {
	defer func() { _, _ = client.Close(), server.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		if delay := time.Duration(p.delay.Load()); delay > 0 {
			<-time.After(delay)
		}
		select {
		case <-p.muted:
			continue
		default:
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
