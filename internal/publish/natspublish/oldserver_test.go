package natspublish_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// oldServer answers as a server before 2.12 does, which knows no atomic batches:
// it stores each message as it comes.
type oldServer struct {
	answer   string          // what it says to everything; empty for the truth
	batchAck string          // what it says to the commit of a batch, which it throws away
	ignored  map[string]bool // keys of events that get no answer
	strict   bool            // refuses settings that it does not know, rather than leave them out
	url      string

	byID     map[string]int
	mu       sync.Mutex
	received int
	stream   json.RawMessage // the settings of the stream; nil for none
}

func startOldServer(t *testing.T) *oldServer {
	t.Helper()
	url := startServer(t, "server_name: old")
	old := &oldServer{byID: make(map[string]int), url: url}
	conn, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	for subject, handle := range map[string]nats.MsgHandler{
		"$JS.API.>":          old.answerAPI,
		"truegreen.wallet.>": old.store,
	} {
		_, err := conn.Subscribe(subject, handle)
		require.NoError(t, err)
	}
	require.NoError(t, conn.Flush())
	return old
}

func (old *oldServer) store(msg *nats.Msg) {
	old.mu.Lock()
	defer old.mu.Unlock()
	old.received++
	if old.ignored[msg.Header.Get("ce-subject")] {
		return
	}
	if old.answer != "" {
		_ = msg.Respond([]byte(old.answer))
		return
	}
	if batch := msg.Header.Get("Nats-Batch-Id"); batch != "" && old.batchAck != "" {
		switch {
		case msg.Header.Get("Nats-Batch-Commit") != "":
			_ = msg.Respond(fmt.Appendf(nil, old.batchAck, batch))
		case msg.Reply != "":
			_ = msg.Respond(nil)
		}
		return
	}
	id := msg.Header.Get("Nats-Msg-Id")
	sequence, known := old.byID[id]
	suffix := `,"duplicate": true}`
	if !known {
		sequence = len(old.byID) + 1
		old.byID[id] = sequence
		suffix = "}"
	}
	if msg.Reply != "" {
		_ = msg.Respond(fmt.Appendf(nil, `{"stream":"TRUEGREEN_WALLET", "seq":%d%s`, sequence, suffix))
	}
}

func (old *oldServer) answerAPI(msg *nats.Msg) {
	old.mu.Lock()
	defer old.mu.Unlock()
	isPut := strings.HasPrefix(msg.Subject, "$JS.API.STREAM.CREATE.") || strings.HasPrefix(msg.Subject, "$JS.API.STREAM.UPDATE.")
	switch {
	case isPut && old.strict && strings.Contains(string(msg.Data), "allow_atomic"):
		_ = msg.Respond([]byte(`{"error":{"code":400,"err_code":10025,"description":"invalid JSON: unknown field \"allow_atomic\""}}`))
		return
	case isPut:
		var settings map[string]any
		if err := json.Unmarshal(msg.Data, &settings); err != nil {
			return
		}
		delete(settings, "allow_atomic")
		old.stream, _ = json.Marshal(settings)
	case old.stream == nil:
		_ = msg.Respond([]byte(`{"error":{"code":404,"err_code":10059,"description":"stream not found"}}`))
		return
	}
	_ = msg.Respond(fmt.Appendf(nil, `{"config":%s,"state":{}}`, old.stream))
}

// set changes one setting of the stream behind everybody's back.
func (old *oldServer) set(name string, value any) {
	old.mu.Lock()
	defer old.mu.Unlock()
	var settings map[string]any
	_ = json.Unmarshal(old.stream, &settings)
	settings[name] = value
	old.stream, _ = json.Marshal(settings)
}

func (old *oldServer) numReceived() int {
	old.mu.Lock()
	defer old.mu.Unlock()
	return old.received
}

func (old *oldServer) numStored() int {
	old.mu.Lock()
	defer old.mu.Unlock()
	return len(old.byID)
}

// startServer runs a server with a configuration of its own and returns its URL,
// without credentials.
func startServer(t *testing.T, config string) string {
	t.Helper()
	options := &server.Options{}
	require.NoError(t, options.ProcessConfigString(config))
	options.Host, options.Port, options.NoSigs = "127.0.0.1", server.RANDOM_PORT, true
	if options.JetStream {
		options.StoreDir = t.TempDir()
	}
	running, err := server.NewServer(options)
	require.NoError(t, err)
	go running.Start()
	t.Cleanup(func() {
		running.Shutdown()
		running.WaitForShutdown()
	})
	require.True(t, running.ReadyForConnections(deadline))
	return running.ClientURL()
}
