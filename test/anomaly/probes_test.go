package anomaly_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/dbtest/anomaly"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgconnect"
	"truegreen/internal/pgtx"
	"truegreen/migrations"
)

// withoutVerdict are the statements of the monitor that no verdict rests on: their
// failure is logged, and the process may be ready.
var withoutVerdict = []string{"LoopContractRebase", "WorkerHeartbeatBeat", "WorkerHeartbeatRetire"}

// logBook is a log that can be read while it is written.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (book *logBook) Write(data []byte) (int, error) {
	book.mu.Lock()
	defer book.mu.Unlock()
	return book.text.Write(data)
}

func (book *logBook) contains(text string) bool {
	book.mu.Lock()
	defer book.mu.Unlock()
	return strings.Contains(book.text.String(), text)
}

// monitored is a process that works nothing, and its monitor.
type monitored struct {
	logs    *logBook
	monitor *freshness.Monitor
}

// monitor runs a monitor through the proxy until the test ends.
func monitor(ctx context.Context, t *testing.T, proxy *anomaly.Proxy) *monitored {
	t.Helper()
	database, err := pgconnect.Parse(proxy.URL())
	require.NoError(t, err)
	latest, err := migrations.Latest()
	require.NoError(t, err)
	process, err := freshness.NewProcess(freshness.ProcessConfig{})
	require.NoError(t, err)
	watched := &monitored{logs: &logBook{}}
	watched.monitor, err = freshness.NewMonitor(process, freshness.MonitorConfig{
		Database: database, Logger: slog.New(slog.NewTextHandler(watched.logs, nil)), SchemaVersion: latest,
		Tick: 200 * time.Millisecond, WorkerID: t.Name(),
	})
	require.NoError(t, err)
	process.RiverStarted()
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watched.monitor.Run(runCtx)
	}()
	t.Cleanup(func() { stop(); <-ended })
	return watched
}

// says reports whether the monitor shows the injected failure, as a reason or in
// its log.
func (watched *monitored) says() bool {
	if watched.logs.contains(anomaly.Message) {
		return true
	}
	answer := watched.monitor.Ready()
	return slices.ContainsFunc(answer.Reasons, func(reason freshness.Reason) bool {
		return strings.Contains(fmt.Sprint(reason), anomaly.Message)
	})
}

// TestMonitor has each statement of the probe fail for as long as it lasts: the
// failure is shown, the process is not ready where a verdict rests on the
// statement, and it is once the failure has ended.
func TestMonitor(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := dbtest.Database(ctx, t)
	registerLoops(ctx, t, db)
	proxy := anomaly.Start(t, db.URL)
	proxy.Arm(anomalyNone)
	watched := monitor(ctx, t, proxy)
	require.Eventually(t, func() bool { return watched.monitor.Ready().OK && labelsOf(proxy)["WorkerHeartbeatRetire"] }, patience, 10*time.Millisecond)
	labels := labelsOf(proxy)
	for _, label := range []string{anomaly.Connect, "WorkerFreshnessList", "LoopProgressListOwn", "WorkerHeartbeatBegin", "WorkerHeartbeatBeat"} {
		require.True(t, labels[label], "%s is no statement of the monitor any more; it has %v", label, labels)
	}
	for label := range labels {
		t.Run(strings.ReplaceAll(label, " ", "-"), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			proxy := anomaly.Start(t, db.URL)
			proxy.Arm(anomaly.Fault{Kind: anomaly.Fail, Nth: 1, Only: label, Stays: true})
			watched := monitor(ctx, t, proxy)
			require.Eventually(t, watched.says, patience, 10*time.Millisecond, "%s fails, and nothing says so", label)
			if !slices.Contains(withoutVerdict, label) {
				require.False(t, watched.monitor.Ready().OK, "%s fails, and the process is ready", label)
			}
			proxy.Arm(anomalyNone)
			require.Eventually(t, func() bool { return watched.monitor.Ready().OK }, patience, 10*time.Millisecond, "once it works again")
		})
	}
}

// labelsOf are the labels of what has passed.
func labelsOf(proxy *anomaly.Proxy) map[string]bool {
	labels := make(map[string]bool)
	for _, statement := range proxy.Statements() {
		labels[statement.Label] = true
	}
	return labels
}

// registering stores the loops, as each process does at its start.
func registering() *operation {
	return &operation{
		name:  "register_loops",
		setup: func(context.Context, *testing.T, *dbtest.DB) {},
		run: func(ctx context.Context, t *testing.T, trial *trial) outcome {
			registry, err := freshness.New(freshness.Config{})
			require.NoError(t, err)
			return outcomeOf(pgtx.Do(ctx, throughProxy(ctx, t, trial), func(tx pgx.Tx) error { return registry.Register(ctx, tx) }))
		},
		state: func(ctx context.Context, t *testing.T, trial *trial) string {
			return scalar[string](ctx, t, trial.db, "SELECT coalesce(string_agg(concat_ws(' ', loop, queue, red_after), E'\n' ORDER BY loop), '') FROM loop_contract")
		},
	}
}

// proving asks the broker whether it would take events.
func proving(t *testing.T) *operation {
	t.Helper()
	b := startBroker(t)
	publisher := connect(t, b.link.url)
	b.clear(t.Context(), t)
	op := &operation{
		answers:     4,
		answersOnly: true,
		link:        b.link,
		name:        "prove_broker",
		setup:       func(context.Context, *testing.T, *dbtest.DB) {},
	}
	op.run = func(ctx context.Context, t *testing.T, trial *trial) outcome {
		pool := throughProxy(ctx, t, trial)
		recorder, err := freshness.NewRecorder("worker-1")
		require.NoError(t, err)
		relay, err := outbox.NewRelay(pool, publisher, recorder, outbox.Config{AckTimeout: quickly, WorkerID: "worker-1"})
		require.NoError(t, err)
		streams, err := outbox.Streams(ctx, pool)
		require.NoError(t, err)
		got := outcomeOf(relay.Prover().Prove(ctx, streams[0]))
		for _, evidence := range relay.Prover().Evidence(streams[:1]) {
			if got.err != "" && evidence.NumFailed == 0 {
				got.output = "the proof failed, and the evidence of " + evidence.Loop + " is good"
			}
		}
		return got
	}
	op.check = func(_ context.Context, t *testing.T, _ *trial, got outcome) { require.Empty(t, got.output) }
	return op
}

func TestStart(t *testing.T) {
	t.Parallel()
	loopAll(t, []*operation{registering()})
}
