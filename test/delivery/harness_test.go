package delivery_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgtx"
	"truegreen/internal/publish/natspublish"
	"truegreen/jobs"
	"truegreen/workers"
)

const (
	// maxEventBytes is what the streams are first provisioned for.
	maxEventBytes = 512 << 10

	// patience bounds every wait. It is far above what anything here takes.
	patience = 60 * time.Second

	// poll is the time between two looks.
	poll = 50 * time.Millisecond

	// shard is where events are staged, unless a test says otherwise. Passes that
	// prove an idle stream are shard 0's, and so in nobody's way.
	shard = 1
)

// TestMain lets more tests wait side by side than there are processors: most of
// their time is the broker's, or a backoff's.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic("unreachable: the flag is go test's own: " + err.Error())
	}
	os.Exit(m.Run())
}

// patient are settings that bear a machine with much to do: only a broker that
// refuses fails anything soon.
func patient() outbox.Config {
	return outbox.Config{AckTimeout: 5 * time.Second, LeaseTTL: 10 * time.Second, MaxRetryDelay: time.Second, PassBudget: 30 * time.Second}
}

// quick are settings with which silence is noticed soon.
func quick() outbox.Config {
	return outbox.Config{AckTimeout: 1500 * time.Millisecond, LeaseTTL: 3 * time.Second, MaxRetryDelay: time.Second, PassBudget: 30 * time.Second}
}

// testBundle is a database, a broker and all that is between the two.
type testBundle struct {
	broker    *broker
	db        *dbtest.DB
	link      *link
	logs      *logBook
	publisher *natspublish.Publisher
	recorder  *freshness.Recorder
	relay     *outbox.Relay
	streams   []outbox.Stream
	versions  map[string]int64 // of the wallets' aggregates; one goroutine stages them
}

func setup(ctx context.Context, t *testing.T, config outbox.Config) *testBundle {
	t.Helper()
	bundle := &testBundle{db: dbtest.Database(ctx, t), link: startLink(t), logs: &logBook{}, versions: make(map[string]int64)}
	bundle.broker = startBroker(t, bundle.link)
	config = config.WithDefaults()
	config.WorkerID = "test"

	registry, err := freshness.New(freshness.Config{})
	require.NoError(t, err)
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
	bundle.recorder, err = freshness.NewRecorder(config.WorkerID)
	require.NoError(t, err)
	bundle.publisher, err = natspublish.Connect(slog.New(slog.DiscardHandler), natspublish.Config{AckTimeout: config.AckTimeout, URL: bundle.link.url()})
	require.NoError(t, err)
	t.Cleanup(bundle.publisher.Close)
	bundle.relay, err = outbox.NewRelay(bundle.db.Pool, bundle.publisher, bundle.recorder, config)
	require.NoError(t, err)
	bundle.streams, err = outbox.Streams(ctx, bundle.db.Pool)
	require.NoError(t, err)
	require.Len(t, bundle.streams, 3)
	for _, stream := range bundle.streams {
		bundle.provision(ctx, t, stream.Name)
	}
	return bundle
}

// provision does what 'truegreen broker provision' does. Streams that it makes know
// repeats for longer than a test may wait.
func (bundle *testBundle) provision(ctx context.Context, t *testing.T, stream string) (maxBytes int) {
	t.Helper()
	result, err := bundle.publisher.Provision(ctx, natspublish.StreamSpec{MaxEventBytes: maxEventBytes, MinDuplicates: 10 * patience, Stream: stream})
	require.NoError(t, err)
	require.NoError(t, outbox.Provision(ctx, bundle.db.Pool, stream, result.MaxEventBytes))
	return result.MaxEventBytes
}

// start works the queues of all streams, as a process does, until the test ends
// or the client is stopped.
func (bundle *testBundle) start(ctx context.Context, t *testing.T, more ...rivertype.Middleware) *river.Client[pgx.Tx] {
	t.Helper()
	logger := slog.New(slog.NewJSONHandler(bundle.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	registered, err := workers.Register(workers.Services{Recorder: bundle.recorder, Relay: bundle.relay, Streams: bundle.streams})
	require.NoError(t, err)
	client, err := river.NewClient(riverpgxv5.New(bundle.db.Pool), &river.Config{
		FetchCooldown:        time.Millisecond,
		FetchPollInterval:    100 * time.Millisecond,
		JobTimeout:           bundle.relay.PassBudget(),
		Logger:               slog.New(slog.DiscardHandler),
		Middleware:           append([]rivertype.Middleware{workers.NewLogMiddleware(logger)}, more...),
		Queues:               workers.Queues(bundle.streams, []string{jobs.QueueOutboxAgent, jobs.QueueOutboxRolling, jobs.QueueOutboxWallet}),
		RescueStuckJobsAfter: 90 * time.Second,
		Workers:              registered,
	})
	require.NoError(t, err)
	require.NoError(t, client.Start(ctx))
	t.Cleanup(func() { require.NoError(t, client.StopAndCancel(context.WithoutCancel(ctx))) })
	return client
}

// sweep has the sweeper run until the test ends.
func (bundle *testBundle) sweep(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		outbox.NewSweeper(bundle.db.Pool, slog.New(slog.DiscardHandler), outbox.SweeperConfig{}).Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-done })
}

// fact is an event to be staged.
type fact struct {
	key      string
	kind     string // the type is this and a version; "good" if left out
	numBytes int    // of the payload; a few if left out
}

// stage appends events in one transaction, in their order.
func (bundle *testBundle) stage(ctx context.Context, t *testing.T, stream string, facts ...fact) []uuid.UUID {
	t.Helper()
	messages := make([]outbox.Message, len(facts))
	for i, one := range facts {
		if one.kind == "" {
			one.kind = "good"
		}
		payload := json.RawMessage(`{"note":"` + strings.Repeat("x", max(0, one.numBytes-len(`{"note": ""}`))) + `"}`)
		messages[i] = outbox.Message{Key: one.key, Payload: payload, Type: one.kind + ".v1"}
		if stream == outbox.StreamWallet {
			bundle.versions[one.key]++
			messages[i].KeySeq = bundle.versions[one.key]
		}
	}
	var ids []uuid.UUID
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		var err error
		ids, err = outbox.AppendMany(ctx, tx, stream, messages)
		return err
	}))
	return ids
}

// keys are keys of the shard that tests use.
func (bundle *testBundle) keys(ctx context.Context, t *testing.T, num int) []string {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT 'k-' || n FROM generate_series(1, 100 + 10 * $1) AS n WHERE outbox_shard_of('k-' || n, 4) = $2 ORDER BY n LIMIT $1`, num, shard)
	require.NoError(t, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, keys, num)
	return keys
}

// interleaved are num events, one of each key in turn.
func interleaved(keys []string, num int) []fact {
	facts := make([]fact, num)
	for i := range facts {
		facts[i].key = keys[i%len(keys)]
	}
	return facts
}

func (bundle *testBundle) exec(ctx context.Context, t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := bundle.db.Pool.Exec(ctx, sql, args...)
	require.NoError(t, err)
}

// await waits until a condition is true. Unlike require.Eventually it looks from
// the test's own goroutine, and tells what it found in the end.
func (bundle *testBundle) await(ctx context.Context, t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !isTrue() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited in vain until %s\n%s", what, bundle.describe(ctx, t))
		}
	}
}

func (bundle *testBundle) describe(ctx context.Context, t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, stream := range bundle.streams {
		for _, job := range bundle.jobs(ctx, t, stream) {
			fmt.Fprintf(&text, "%s job %+v\n", stream.Name, job)
		}
		rows := bundle.rows(ctx, t, stream)
		for _, row := range rows[:min(len(rows), 20)] {
			fmt.Fprintf(&text, "%s event %+v\n", stream.Name, row)
		}
	}
	return text.String()
}

// logBook is where the worker logs to.
type logBook struct {
	lines [][]byte
	mu    sync.Mutex
}

// Write takes one line.
func (book *logBook) Write(line []byte) (int, error) {
	book.mu.Lock()
	defer book.mu.Unlock()
	book.lines = append(book.lines, append([]byte(nil), line...))
	return len(line), nil
}

// entry is one line of the log.
type entry struct {
	Attempt   int    `json:"attempt"`
	Discarded bool   `json:"discarded"`
	Error     string `json:"error"`
	JobID     int64  `json:"job_id"`
	Level     string `json:"level"`
}

// of returns what was logged about a job.
func (book *logBook) of(t *testing.T, jobID int64) []entry {
	t.Helper()
	book.mu.Lock()
	defer book.mu.Unlock()
	var entries []entry
	for _, line := range book.lines {
		var one entry
		require.NoError(t, json.Unmarshal(line, &one))
		if one.JobID == jobID {
			entries = append(entries, one)
		}
	}
	return entries
}
