package freshness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// fetchLockTimeout is how long a try to fetch waits for a lock.
	fetchLockTimeout = "200ms"

	// pausedByUnknown is who paused a loop in River alone.
	pausedByUnknown = "unknown"

	// probeGrace is what a probe may take beyond its own deadline before it is
	// left to itself.
	probeGrace = 250 * time.Millisecond

	// retireInterval is how often each process forgets workers that are gone.
	retireInterval = time.Minute
)

// Monitor judges this process once per tick, and answers from memory.
//
// [Monitor.Live], [Monitor.Ready] and [Monitor.Startup] take the same short time
// whatever the database does.
type Monitor struct {
	cached    atomic.Pointer[judged]
	config    MonitorConfig
	draining  atomic.Bool
	evidence  Evidence // of the last tick
	limits    Limits
	pinnedAt  time.Time // zero: not pinned
	probing   atomic.Bool
	process   *Process
	prober    *prober
	resetAt   time.Time            // when the pools were last reset
	readAt    map[string]time.Time // when each loop was last read
	runningAt atomic.Pointer[time.Time]
	startedAt time.Time
	state     State
	takenAt   time.Time // the last snapshot; zero: none yet
}

// judged is a judgement and when it was made.
type judged struct {
	Judgement

	at      time.Time
	takenAt time.Time
}

// NewMonitor returns a monitor of process, or says which settings are out of
// bounds. It connects only when it runs.
func NewMonitor(process *Process, config MonitorConfig) (*Monitor, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure monitor: %w", err)
	}
	return &Monitor{
		config:    config,
		limits:    LimitsOf(config.Tick, config.FetchPoll),
		process:   process,
		prober:    newProber(config, process.QueueNames()),
		readAt:    make(map[string]time.Time),
		startedAt: time.Now(),
	}, nil
}

// Drain makes the process unready for good, at once. Call it when a shutdown
// begins, while [Monitor.Run] goes on.
func (monitor *Monitor) Drain() { monitor.draining.Store(true) }

// Run judges the process at once and then at every tick, until ctx is done. It
// may be called once.
func (monitor *Monitor) Run(ctx context.Context) {
	now := time.Now()
	monitor.runningAt.Store(&now)
	ticker := time.NewTicker(monitor.config.Tick)
	defer ticker.Stop()
	for {
		monitor.tick(ctx)
		select {
		case <-ctx.Done():
			monitor.stop(context.WithoutCancel(ctx))
			return
		case <-ticker.C:
		}
	}
}

// stop stores the last heartbeat, so that nobody takes the process for a live one.
func (monitor *Monitor) stop(ctx context.Context) {
	monitor.bounded(func() {
		if err := monitor.prober.stop(ctx); err != nil {
			monitor.config.Logger.WarnContext(ctx, "last heartbeat not stored", slog.Any("error", err))
		}
		monitor.prober.disconnect()
	})
}

// tick probes, judges, answers and beats, in bounded time.
func (monitor *Monitor) tick(ctx context.Context) {
	result := make(chan probeResult, 1)
	overdue := monitor.overdueQueues()
	if monitor.bounded(func() { result <- monitor.prober.probe(ctx, overdue) }) {
		monitor.learn(<-result)
	} else {
		monitor.learn(probeResult{at: time.Now(), err: errors.New("the probe did not end in time")})
	}
	if ctx.Err() != nil {
		// The probe was cut short by the shutdown: that says nothing.
		return
	}
	before := monitor.state.ready
	monitor.judge()
	monitor.logChange(ctx, before)

	ready := monitor.state.ready
	reasons := make([]string, 0, len(ready.Reasons))
	for _, reason := range ready.Reasons {
		if !slices.Contains(reasons, string(reason.Code)) {
			reasons = append(reasons, string(reason.Code))
		}
	}
	if monitor.evidence.DB.NumFailed > 0 || monitor.evidence.DB.ReadOnly {
		return
	}
	failure := make(chan error, 1)
	if monitor.bounded(func() { failure <- monitor.prober.beat(ctx, ready.OK, reasons) }) {
		err := <-failure
		monitor.learnTaken(err)
		if err != nil && ctx.Err() == nil {
			monitor.config.Logger.WarnContext(ctx, "heartbeat not stored", slog.Any("error", err))
		}
	}
}

// learnTaken notes whether another process has this one's id. A beat that failed for
// another reason says nothing about it.
func (monitor *Monitor) learnTaken(err error) {
	var taken *TakenError
	if errors.As(err, &taken) || err == nil {
		monitor.evidence.Taken = taken
	}
}

// bounded runs work, which uses the prober, and says whether it ended in time.
// Work that does not is left to itself; until it ends nothing else is begun, so a
// database that hangs holds one goroutine and never the tick.
func (monitor *Monitor) bounded(work func()) bool {
	if !monitor.probing.CompareAndSwap(false, true) {
		return false
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer monitor.probing.Store(false)
		work()
	}()
	timer := time.NewTimer(monitor.config.ProbeTimeout + probeGrace)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// learn adds a probe's result to the evidence. What a probe could not find out
// stays as it was last known.
func (monitor *Monitor) learn(result probeResult) {
	db := &monitor.evidence.DB
	if result.err != nil {
		db.NumFailed++
		db.Error = result.err.Error()
		return
	}
	db.NumFailed = 0
	db.ReadOnly = result.readOnly
	db.Slow = result.slow || result.snapshotErr != nil
	if result.schema.Known {
		db.Schema = result.schema
	}
	monitor.evidence.FetchError = result.fetchErr
	if result.pinned || result.fetchErr == nil && len(monitor.prober.fetchFrom) > 0 {
		monitor.resetPools()
	}
	switch {
	case !result.pinned:
		monitor.pinnedAt = time.Time{}
	case monitor.pinnedAt.IsZero():
		monitor.pinnedAt = result.at
	}
	monitor.evidence.ClockSkew = result.clockSkew
	if result.snapshotErr != nil {
		db.Error = result.snapshotErr.Error()
		monitor.learnTaken(result.snapshotErr)
		monitor.config.Logger.Warn("loops not read", slog.Any("error", result.snapshotErr))
		return
	}
	if result.loops != nil {
		monitor.evidence.HasSnapshot = true
		monitor.evidence.Loops, monitor.evidence.Own = monitor.remembered(result.loops, result.at), result.own
		monitor.takenAt = result.at
	}
}

// remembered keeps the last reading of each loop that could not be read this time, for as
// long as a whole snapshot would be kept.
func (monitor *Monitor) remembered(loops []LoopStatus, at time.Time) []LoopStatus {
	before := monitor.evidence.Loops
	for i, loop := range loops {
		if loop.Verdict != VerdictUnknown {
			monitor.readAt[loop.Loop] = at
			continue
		}
		monitor.evidence.DB.Slow = true
		monitor.evidence.DB.Error = value(loop.LastError)
		monitor.config.Logger.Warn("loop not read", slog.String("loop", loop.Loop), slog.String("error", value(loop.LastError)))
		known := slices.IndexFunc(before, func(old LoopStatus) bool { return old.Loop == loop.Loop })
		if known >= 0 && at.Sub(monitor.readAt[loop.Loop]) <= monitor.limits.SnapshotStale {
			loops[i] = before[known]
		}
	}
	return loops
}

// judge completes the evidence of this tick and publishes what follows from it.
func (monitor *Monitor) judge() {
	now := time.Now()
	evidence := &monitor.evidence
	evidence.At = now.Sub(monitor.startedAt)
	if monitor.config.Broker != nil {
		evidence.Brokers = monitor.config.Broker.Evidence()
	}
	evidence.Draining = monitor.draining.Load()
	evidence.Queues, evidence.RiverStarted = monitor.process.evidence()
	evidence.SaturatedPools = monitor.saturatedPools()
	if evidence.HasSnapshot {
		evidence.SnapshotAge = now.Sub(monitor.takenAt)
	}
	evidence.DB.PinnedFor = 0
	if !monitor.pinnedAt.IsZero() {
		evidence.DB.PinnedFor = now.Sub(monitor.pinnedAt)
	}

	var judgement Judgement
	monitor.state, judgement = Evaluate(monitor.state, *evidence, monitor.limits)
	monitor.cached.Store(&judged{Judgement: judgement, at: now, takenAt: monitor.takenAt})
}

// overdueQueues are those that a fetch has been missed from: for these the probe finds out
// whether the database would allow one.
func (monitor *Monitor) overdueQueues() []string {
	queues, riverStarted := monitor.process.evidence()
	var names []string
	for _, queue := range queues {
		if riverStarted && queue.FetchAge > monitor.limits.FetchStalled && !queue.saturated() {
			names = append(names, queue.Name)
		}
	}
	return names
}

// resetPools lets go of connections that lead nowhere good, while new ones would: what
// restarting the process would do for them.
func (monitor *Monitor) resetPools() {
	if time.Since(monitor.resetAt) < monitor.limits.FetchStalled {
		return
	}
	monitor.resetAt = time.Now()
	for _, pool := range monitor.config.Pools {
		pool.Reset()
	}
	monitor.config.Logger.Warn("connection pools reset", slog.Bool("pinned_to_read_only", !monitor.pinnedAt.IsZero()))
}

func (monitor *Monitor) saturatedPools() []string {
	var names []string
	for name, pool := range monitor.config.Pools {
		if stat := pool.Stat(); stat.AcquiredConns() >= stat.MaxConns() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (monitor *Monitor) logChange(ctx context.Context, before Finding) {
	after := monitor.state.ready
	if before.OK == after.OK && before.Status != "" {
		return
	}
	codes := make([]string, len(after.Reasons))
	for i, reason := range after.Reasons {
		codes[i] = string(reason.Code)
	}
	monitor.config.Logger.InfoContext(ctx, "readiness changed",
		slog.Bool("ready", after.OK),
		slog.Any("reasons", codes),
		slog.String("worker_id", monitor.config.WorkerID))
}
