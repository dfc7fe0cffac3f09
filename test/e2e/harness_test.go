package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
	"truegreen/internal/dbtest"
	"truegreen/internal/devstack"
)

// patience bounds every wait. It is far above what anything here takes.
const (
	patience = 60 * time.Second
	poll     = 20 * time.Millisecond // between two looks
)

// binary is the program under test, built once.
var binary = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once for all tests
	dir, err := os.MkdirTemp("", "truegreen-e2e-")
	if err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	path := filepath.Join(dir, "truegreen")
	out, err := childproc.Command(context.Background(), "go", "build", "-o", path, "truegreen/cmd/server").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build truegreen: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// stack is a database, a broker and what runs on them.
type stack struct {
	broker    *devstack.NATS
	brokerDir string
	brokerURL string // what workers are told; a proxy's in some tests
	database  *dbtest.DB
	dbURL     string // what workers are told; a proxy's in some tests
}

func setup(ctx context.Context, t *testing.T) *stack {
	t.Helper()
	s := &stack{brokerDir: t.TempDir(), database: dbtest.Database(ctx, t)}
	broker, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: s.brokerDir})
	require.NoError(t, err)
	s.broker = broker
	t.Cleanup(func() { s.broker.Stop() })
	s.brokerURL = broker.URL()
	s.dbURL = s.database.URL
	_, err = s.run(ctx, t, "", "broker", "provision")
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.dump(t)
		}
	})
	return s
}

// dump shows what a failed test left in the database.
func (s *stack) dump(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, query := range []string{
		`SELECT id, state::text, kind, args, attempt, scheduled_at, attempted_at, attempted_by, metadata FROM river_job WHERE state <> 'completed' ORDER BY id LIMIT 30`,
		`SELECT * FROM outbox_shard WHERE lease_epoch > 0`,
		`SELECT stream, state, count(*), max(failures), max(not_before) FROM outbox_events GROUP BY 1, 2`,
		`SELECT loop, verdict, age, oldest_due_age, consecutive_failures, last_error FROM worker_freshness`,
		`SELECT clock_timestamp(), pid, state, left(query, 200), wait_event, xact_start FROM pg_stat_activity WHERE datname = current_database()`,
		`SELECT * FROM river_leader`,
	} {
		rows, err := s.database.Pool.Query(ctx, query)
		if err != nil {
			t.Logf("dump: %v", err)
			continue
		}
		for rows.Next() {
			values, err := rows.Values()
			t.Logf("%v %v", values, err)
		}
		rows.Close()
	}
}

// restartBroker brings the broker back where it was, with what it had.
func (s *stack) restartBroker(t *testing.T) {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.broker.URL(), "nats://"))
	require.NoError(t, err)
	var portNumber int
	_, err = fmt.Sscan(port, &portNumber)
	require.NoError(t, err)
	broker, err := devstack.StartNATS(devstack.NATSConfig{Port: portNumber, StoreDir: s.brokerDir})
	require.NoError(t, err)
	require.Equal(t, s.broker.URL(), broker.URL())
	s.broker = broker
}

// environment has short times, so that red and green come soon; how they relate
// is as in production.
func (s *stack) environment(more ...string) []string {
	return append([]string{
		"DATABASE_URL=" + s.dbURL,
		"HOME=" + os.Getenv("HOME"),
		"PATH=" + os.Getenv("PATH"),
		"TRUEGREEN_BROKER=" + s.brokerURL,
		"TRUEGREEN_LEADER_CHANGE=1s",
		"TRUEGREEN_LISTEN=127.0.0.1:0",
		"TRUEGREEN_OUTBOX_ACK_TIMEOUT=500ms",
		"TRUEGREEN_OUTBOX_BUDGET=2s",
		"TRUEGREEN_OUTBOX_INTERVAL=500ms",
		"TRUEGREEN_OUTBOX_ITEM_RED_AFTER=2s",
		"TRUEGREEN_OUTBOX_LEASE=1500ms",
		"TRUEGREEN_OUTBOX_SWEEP=200ms",
		"TRUEGREEN_TICK=200ms",
	}, more...)
}

// run executes one command to its end and returns its output.
func (s *stack) run(ctx context.Context, t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := childproc.Command(ctx, path, args...)
	command.Dir = t.TempDir()
	command.Env = s.environment()
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	return string(out), err
}

// process is a running truegreen.
type process struct {
	command *childproc.Cmd
	exited  chan struct{}
	logs    *logBuffer
	url     string
}

// start runs a long-lived command and waits until it says where it listens.
func (s *stack) start(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	p := &process{
		command: childproc.Command(context.Background(), path, args...),
		exited:  make(chan struct{}),
		logs:    &logBuffer{},
	}
	p.command.Dir = t.TempDir()
	p.command.Env = environment
	p.command.Stdout = p.logs
	p.command.Stderr = p.logs
	require.NoError(t, p.command.Start())
	go func() {
		_ = p.command.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("output of truegreen %s:\n%s", strings.Join(args, " "), p.logs.String())
		}
	})
	require.Eventually(t, func() bool {
		p.url = p.logs.find("listening", "url")
		return p.url != "" || p.hasExited()
	}, patience, 20*time.Millisecond)
	require.NotEmpty(t, p.url, "truegreen ended before it listened:\n%s", p.logs.String())
	return p
}

func (s *stack) startWorker(t *testing.T, more ...string) *process {
	t.Helper()
	return s.start(t, s.environment(append(more, "TRUEGREEN_LOG=json")...), "worker")
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stop sends a signal and waits for the end.
func (p *process) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	_ = p.command.Process.Signal(signal)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Errorf("truegreen did not end after %s:\n%s", signal, p.logs.String())
		_ = p.command.Process.Kill()
	}
}

// answer is what a probe says.
type answer struct {
	Code    int
	Reasons []struct {
		Code    string `json:"code"`
		Loop    string `json:"loop"`
		Message string `json:"message"`
		Runbook string `json:"runbook"`
	} `json:"reasons"`
	Status string `json:"status"`
}

func (a answer) has(code, loop string) bool {
	for _, reason := range a.Reasons {
		if reason.Code == code && reason.Loop == loop {
			return true
		}
	}
	return false
}

// probe asks once; a probe must answer soon, whatever else hangs.
func (p *process) probe(t *testing.T, path string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	a := answer{Code: response.StatusCode}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&a))
	return a
}

// waitFor asks until the answer is as wanted.
func (p *process) waitFor(t *testing.T, path, what string, wanted func(answer) bool) answer {
	t.Helper()
	var last answer
	require.Eventually(t, func() bool {
		last = p.probe(t, path)
		return wanted(last)
	}, patience, 50*time.Millisecond, "wait until %s is %s", path, what)
	return last
}

func (p *process) waitReady(t *testing.T) {
	t.Helper()
	p.waitFor(t, "/readyz", "ready", func(a answer) bool { return a.Code == http.StatusOK })
}

// appendEvent stores one event of a key, in a transaction of its own.
func (s *stack) appendEvent(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	_, err := s.database.Pool.Exec(ctx, `SELECT outbox_append('rolling', $1, 'rolling.accrued.v1', '{"amount":"1"}')`, key)
	require.NoError(t, err)
}

func (s *stack) count(ctx context.Context, t *testing.T, query string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, s.database.Pool.QueryRow(ctx, query, args...).Scan(&n))
	return n
}

// messages reads a stream of the broker from its first sequence.
func (s *stack) messages(ctx context.Context, t *testing.T, name string) []jetstream.Msg {
	t.Helper()
	conn, err := nats.Connect(s.broker.URL())
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, name)
	require.NoError(t, err)
	total := int(stream.CachedInfo().State.Msgs)
	var messages []jetstream.Msg
	if total == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	for len(messages) < total {
		batch, err := consumer.Fetch(min(total-len(messages), 5000))
		require.NoError(t, err)
		for message := range batch.Messages() {
			messages = append(messages, message)
		}
		require.NoError(t, batch.Error())
	}
	return messages
}

// keyOfShard returns a key of the rolling stream that falls into a shard.
func (s *stack) keyOfShard(ctx context.Context, t *testing.T, shard int) string {
	t.Helper()
	var key string
	err := s.database.Pool.QueryRow(ctx, `
		SELECT 'key-' || n FROM generate_series(1, 1000) AS n
		WHERE outbox_shard_of('key-' || n, (SELECT num_shards FROM outbox_stream WHERE stream = 'rolling')) = $1
		LIMIT 1`, shard).Scan(&key)
	require.NoError(t, err)
	return key
}

// logBuffer keeps what a process printed.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// find returns an attribute of the first JSON log line with a message.
func (b *logBuffer) find(message, attribute string) string {
	for line := range strings.Lines(b.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message {
			return fmt.Sprint(entry[attribute])
		}
	}
	return ""
}

// valve is a TCP proxy that can stop forwarding, in one direction or both, while
// its connections stay open.
type valve struct {
	addr string

	mu     sync.Mutex
	opened *sync.Cond
	shut   [2]bool // towards the server, towards the client
}

const (
	toServer = 0
	toClient = 1
)

func newValve(t *testing.T, target string) *valve {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	v := &valve{addr: listener.Addr().String()}
	v.opened = sync.NewCond(&v.mu)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go v.forward(client, target)
		}
	}()
	return v
}

func (v *valve) forward(client net.Conn, target string) {
	server, err := net.Dial("tcp", target) //nolint:noctx // ends with its connections
	if err != nil {
		_ = client.Close()
		return
	}
	go func() { v.copy(server, client, toServer); _ = server.Close() }()
	v.copy(client, server, toClient)
	_ = client.Close()
}

func (v *valve) copy(to io.Writer, from io.Reader, direction int) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		v.mu.Lock()
		for v.shut[direction] {
			v.opened.Wait()
		}
		v.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (v *valve) set(shut bool, directions ...int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, direction := range directions {
		v.shut[direction] = shut
	}
	v.opened.Broadcast()
}

// hostOf is the host and port of a URL.
func hostOf(t *testing.T, url string) string {
	t.Helper()
	if strings.HasPrefix(url, "postgres") {
		config, err := pgx.ParseConfig(url)
		require.NoError(t, err)
		return net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	}
	return strings.TrimPrefix(url, "nats://")
}
