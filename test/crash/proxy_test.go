package crash_test

import (
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// acknowledgement is where the broker says it has put a message.
type acknowledgement struct {
	sequence uint64
	stream   string // of JetStream
}

// acknowledged finds an acknowledgement in what the broker sends.
var acknowledged = regexp.MustCompile(`"stream":"(TRUEGREEN_[A-Z]+)",\s*"seq":([1-9][0-9]*)[,}]`)

// tail is how much of what was forwarded may belong to an acknowledgement that
// comes in two pieces.
const tail = 256

// proxy stands between the processes and the broker.
type proxy struct {
	listener net.Listener
	mu       sync.Mutex
	target   string
	withhold func(acknowledgement) // nil: forward everything
}

func newProxy(t *testing.T, brokerURL string) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, target: strings.TrimPrefix(brokerURL, "nats://")}
	t.Cleanup(func() { _ = listener.Close() })
	go p.serve(context.WithoutCancel(t.Context()))
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

// arm has the next acknowledgement withheld, and all that follows it on its
// connection; it is told to withheld. Nil: no more.
func (p *proxy) arm(withheld func(acknowledgement)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.withhold = withheld
}

func (p *proxy) serve(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		broker, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		go forward(broker, client, func([]byte) bool { return true })
		go forward(client, broker, p.passes())
	}
}

// passes returns a function that is shown all that goes to one client, and says
// whether that may have it.
func (p *proxy) passes() func(data []byte) bool {
	var before []byte
	isHeld := false
	return func(data []byte) bool {
		if isHeld {
			return false
		}
		seen := append(before, data...)
		before = append([]byte(nil), seen[max(0, len(seen)-tail):]...)
		p.mu.Lock()
		withheld := p.withhold
		p.mu.Unlock()
		if withheld == nil {
			return true
		}
		// What ends before data was forwarded before.
		for _, at := range acknowledged.FindAllSubmatchIndex(seen, -1) {
			if at[1] <= len(seen)-len(data) {
				continue
			}
			sequence, err := strconv.ParseUint(string(seen[at[4]:at[5]]), 10, 64)
			if err != nil {
				continue
			}
			isHeld = true
			withheld(acknowledgement{sequence: sequence, stream: string(seen[at[2]:at[3]])})
			return false
		}
		return true
	}
}

func forward(to, from net.Conn, passes func([]byte) bool) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		num, err := from.Read(buffer)
		if num > 0 && passes(buffer[:num]) {
			if _, err := to.Write(buffer[:num]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			_ = from.Close()
			return
		}
	}
}
