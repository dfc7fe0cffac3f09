package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"truegreen/internal/api"
	"truegreen/internal/appconfig"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/pgconnect"
	"truegreen/internal/pgtx"
	"truegreen/internal/publish/natspublish"
	"truegreen/internal/settlement"
	"truegreen/jobs"
	"truegreen/migrations"
	"truegreen/workers"
)

const (
	// idPoll is how often a start looks whether its worker id is free.
	idPoll = 500 * time.Millisecond

	// maxRiverID is the longest id that River takes.
	maxRiverID = 100

	// keep never lets River remove a job: one that failed for good is for a
	// person to see.
	keep = -1
)

// workerOptions are what a process is told besides its settings.
type workerOptions struct {
	brokerURL   string
	databaseURL string
	isDev       bool             // nobody's events depend on it
	onListening func(url string) // may be nil
	version     string
}

// worker is one running process: its parts, in the order in which they start.
type worker struct {
	config  *appconfig.Config
	logger  *slog.Logger
	options workerOptions

	broker    brokerWatch
	database  *pgconnect.Database
	listener  net.Listener
	pool      *pgxpool.Pool // of the services
	drainPool *pgxpool.Pool // of the outbox's relay and sweeps
	riverPool *pgxpool.Pool // of River alone: a starved one would lose the leadership first
	publisher *natspublish.Publisher
	monitor   *freshness.Monitor
	process   *freshness.Process
	river     *river.Client[pgx.Tx]
	server    *http.Server
	sweeper   *outbox.Sweeper
	watchdog  *settlement.Watchdog // nil: others look
}

// runWorker works until ctx is done, and ends well then: what is in flight is
// waited for and marked, and the rest is left to others.
func runWorker(ctx context.Context, logger *slog.Logger, config *appconfig.Config, options workerOptions) error {
	worker := &worker{config: config, logger: logger, options: options}
	defer worker.close()
	if err := worker.assemble(ctx); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return worker.run(ctx)
}

// assemble makes the parts, in the order in which they can fail.
func (worker *worker) assemble(ctx context.Context) error {
	var err error
	worker.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", worker.config.Listen)
	if err != nil {
		return fmt.Errorf("listen on TRUEGREEN_LISTEN: %w: give another address, or port 0 for a free one", err)
	}
	if worker.database, err = openDatabase(ctx, worker.options.databaseURL); err != nil {
		return err
	}
	if err := worker.database.CheckWrites(ctx); err != nil {
		return err
	}
	if worker.pool, err = openPool(ctx, worker.database, 12, "truegreen", nil); err != nil {
		return err
	}
	if err := checkSchema(ctx, worker.pool); err != nil {
		return err
	}
	if worker.drainPool, err = openPool(ctx, worker.database, 14, "truegreen outbox", drainDefaults); err != nil {
		return err
	}
	if worker.riverPool, err = openPool(ctx, worker.database, 12, "truegreen river", nil); err != nil {
		return err
	}
	streams, err := outbox.Streams(ctx, worker.pool)
	if err != nil {
		return err
	}
	if worker.publisher, err = connectBroker(worker.logger, worker.config, worker.options.brokerURL); err != nil {
		return err
	}
	level := slog.LevelInfo
	if worker.options.isDev {
		level = slog.LevelDebug // what a power cut would do to a newcomer's sample is no news
	}
	if err := checkBroker(ctx, worker.logger, worker.publisher, worker.config, streams, level); err != nil {
		return err
	}
	return worker.wire(ctx, streams)
}

// wire makes the services and connects them.
func (worker *worker) wire(ctx context.Context, streams []outbox.Stream) error {
	registry, err := freshness.New(freshness.Config{Loops: loops(worker.config)})
	if err != nil {
		return err
	}
	err = pgtx.Do(ctx, worker.pool, func(tx pgx.Tx) error { return registry.Register(ctx, tx) })
	if err != nil {
		return err
	}
	recorder, err := freshness.NewRecorder(worker.config.WorkerID)
	if err != nil {
		return err
	}
	relay, err := outbox.NewRelay(worker.drainPool, worker.publisher, recorder, outbox.Config{
		AckTimeout:        worker.config.Outbox.AckTimeout,
		BatchBytes:        worker.config.Outbox.BatchBytes,
		BatchSize:         worker.config.Outbox.Batch,
		LeaseTTL:          worker.config.Outbox.Lease,
		ParkAfter:         worker.config.Outbox.ParkAfter,
		ParkAfterFailures: worker.config.Outbox.ParkFailures,
		PassBudget:        worker.config.Outbox.Budget,
		ProofInterval:     worker.config.Outbox.Interval,
		WorkerID:          worker.config.WorkerID,
	})
	if err != nil {
		return err
	}
	worker.broker = brokerWatch{prover: relay.Prover()}
	for _, stream := range streams {
		if slices.Contains(worker.queueNames(registry), stream.Queue) {
			worker.broker.streams = append(worker.broker.streams, stream)
		}
	}
	keeper, err := outbox.NewKeeper(worker.pool, recorder, outbox.KeeperConfig{
		Budget: worker.config.Maintenance.Budget, Keep: worker.config.Outbox.Keep, KeepLive: worker.config.Outbox.KeepLive,
	})
	if err != nil {
		return err
	}
	settlements, err := newSettlement(worker.pool, worker.logger, worker.config)
	if err != nil {
		return err
	}
	runner := settlement.NewRunner(settlements, recorder, worker.logger)
	if slices.Contains(worker.queueNames(registry), jobs.QueueSettlementTick) {
		worker.watchdog = settlement.NewWatchdog(settlements, worker.logger, settlement.WatchdogConfig{})
	}
	registered, err := workers.Register(workers.Services{
		Keeper: keeper, Recorder: recorder, Relay: relay, Runner: runner, Streams: streams, TickBudget: worker.config.Settlement.TickBudget,
	})
	if err != nil {
		return err
	}
	queues := workers.Queues(streams, worker.queueNames(registry))
	worker.process, err = freshness.NewProcess(freshness.ProcessConfig{Queues: processQueues(queues, worker.config, runner)})
	if err != nil {
		return err
	}
	if err := worker.makeRiver(registered, queues); err != nil {
		return err
	}
	worker.sweeper = outbox.NewSweeper(worker.drainPool, worker.logger, outbox.SweeperConfig{
		Interval:      worker.config.Outbox.Sweep,
		ProofInterval: worker.config.Outbox.Interval,
	})
	return worker.watch(ctx)
}

// makeRiver makes the client that works the queues.
func (worker *worker) makeRiver(registered *river.Workers, queues map[string]river.QueueConfig) error {
	var err error
	worker.river, err = river.NewClient(riverpgxv5.New(worker.riverPool), &river.Config{
		CancelledJobRetentionPeriod: keep,
		DiscardedJobRetentionPeriod: keep,
		FetchCooldown:               time.Millisecond,
		FetchOnlyKnownKinds:         true,
		FetchPollInterval:           time.Second,
		ID:                          worker.config.WorkerID[:min(len(worker.config.WorkerID), maxRiverID)],
		JobTimeout:                  worker.config.Outbox.Budget,
		Logger:                      slog.New(quietHandler{worker.logger.Handler()}),
		Middleware:                  []rivertype.Middleware{workers.NewLogMiddleware(worker.logger)},
		PeriodicJobs:                workers.PeriodicJobs(workers.Intervals{Maintenance: worker.config.Maintenance.Interval, SettlementTick: worker.config.Settlement.Interval}),
		Plugins:                     []rivertype.Plugin{worker.process},
		Queues:                      queues,
		RescueStuckJobsAfter:        worker.config.RescueAfter,
		Workers:                     registered,
	})
	if err != nil {
		return fmt.Errorf("make queue client: %w", err)
	}
	return nil
}

// watch makes what judges the process, and what shows the judgement.
func (worker *worker) watch(ctx context.Context) error {
	latest, err := migrations.Latest()
	if err != nil {
		return err
	}
	worker.monitor, err = freshness.NewMonitor(worker.process, freshness.MonitorConfig{
		Broker:        worker.broker,
		Database:      worker.database,
		Logger:        worker.logger,
		Pools:         map[string]freshness.PoolStat{"outbox": worker.drainPool, "river": worker.riverPool, "services": worker.pool},
		SchemaVersion: latest,
		Tick:          worker.config.Tick,
		Version:       worker.options.version,
		WorkerID:      worker.config.WorkerID,
	})
	if err != nil {
		return err
	}
	worker.server = api.NewServer(worker.config.Listen, api.NewProbes(worker.monitor), worker.logger)
	return worker.begin(ctx) // last: from here on the database has a process of this id
}

// begin stores the first heartbeat. A process that has the same id is refused if it
// beats. One that does not beat has died, as before a restart after a crash: its id is
// waited for, since a start that fails until then can be the last that a supervisor tries.
func (worker *worker) begin(ctx context.Context) error {
	var before *freshness.TakenError
	for {
		err := worker.monitor.Begin(ctx)
		var taken *freshness.TakenError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &taken):
			// The monitor tries again, and is unready until it succeeds.
			worker.logger.WarnContext(ctx, "first heartbeat not stored", slog.Any("error", err))
			return nil
		case before != nil && (taken.SeenAge < before.SeenAge || !taken.StartedAt.Equal(before.StartedAt)):
			return fmt.Errorf("TRUEGREEN_WORKER_ID: %w", err)
		case before == nil:
			worker.logger.WarnContext(ctx, "worker id taken, waiting until it is free or the other process beats", slog.Any("error", err))
		}
		before = taken
		select {
		case <-ctx.Done():
			return fmt.Errorf("TRUEGREEN_WORKER_ID: %w", err)
		case <-time.After(idPoll):
		}
	}
}

// run works until ctx is done. Parts stop in the reverse order of their start:
// first the promise to be ready, last what the others use.
func (worker *worker) run(ctx context.Context) error {
	// Parts outlive ctx until each is told to stop.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()

	background.Go(func() { worker.broker.prover.Run(inner, worker.logger, worker.broker.streams) })
	background.Go(func() { worker.monitor.Run(inner) })
	failed := make(chan error, 1)
	go func() {
		if err := worker.server.Serve(worker.listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("answer by HTTP: %w", err)
		}
	}()
	if err := worker.river.Start(inner); err != nil {
		return fmt.Errorf("start queue client: %w", err)
	}
	worker.process.RiverStarted()
	lookCtx, stopLooking := context.WithCancel(inner)
	defer stopLooking()
	background.Go(func() { worker.sweeper.Run(lookCtx) })
	if worker.watchdog != nil {
		background.Go(func() { worker.watchdog.Run(lookCtx) })
	}

	address := "http://" + worker.listener.Addr().String()
	worker.logger.InfoContext(ctx, "listening", slog.String("url", address), slog.String("worker_id", worker.config.WorkerID), slog.Any("loops", worker.config.Loops))
	if worker.options.onListening != nil {
		worker.options.onListening(address)
	}

	var err error
	select {
	case <-ctx.Done():
		worker.logger.InfoContext(ctx, "stopping", slog.String("worker_id", worker.config.WorkerID))
	case err = <-failed:
	}
	worker.monitor.Drain()
	stopLooking()
	stopCtx, cancelStop := context.WithTimeout(inner, stopTimeout)
	defer cancelStop()
	// Passes end at their next batch when their contexts do, and give their shards
	// back; River makes their jobs available again.
	if stopErr := worker.river.StopAndCancel(stopCtx); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stop queue client: %w", stopErr))
	}
	_ = worker.server.Shutdown(stopCtx) // probes in flight are short
	return err
}

// close lets go of what assemble took.
func (worker *worker) close() {
	if worker.publisher != nil {
		worker.publisher.Close()
	}
	for _, pool := range []*pgxpool.Pool{worker.riverPool, worker.drainPool, worker.pool} {
		if pool != nil {
			pool.Close()
		}
	}
	if worker.listener != nil {
		_ = worker.listener.Close() // closed before, if it was served
	}
}

// queueNames are the queues of the loops that this process works.
func (worker *worker) queueNames(registry *freshness.Registry) []string {
	var names []string
	for _, loop := range registry.Loops() {
		if slices.Contains(worker.config.Loops, loop.Name) {
			names = append(names, loop.Queue)
		}
	}
	return names
}

// loops are all loops with the thresholds of the settings.
func loops(config *appconfig.Config) []freshness.Loop {
	all := freshness.DefaultLoops()
	for i := range all {
		loop := &all[i]
		loop.LateAfter, loop.RedAfter, loop.Slack = 0, 0, config.LeaderChange
		switch loop.Queue {
		case jobs.QueueMaintenance:
			loop.Budget, loop.Interval = config.Maintenance.Budget, config.Maintenance.Interval
		case jobs.QueueSettlementTick:
			loop.Budget, loop.Interval = config.Settlement.TickBudget, config.Settlement.Interval
		case jobs.QueueSettlementCashback, jobs.QueueSettlementLossback, jobs.QueueSettlementRebate:
			loop.Budget, loop.Interval = config.Settlement.Budget, config.Settlement.Interval
		default:
			loop.Budget, loop.Interval = config.Outbox.Budget, config.Outbox.Interval
			loop.ItemRedAfter, loop.RedAfter = config.Outbox.ItemRedAfter, config.Outbox.RedAfter
		}
	}
	return all
}

func processQueues(queues map[string]river.QueueConfig, config *appconfig.Config, runner *settlement.Runner) []freshness.ProcessQueue {
	var watched []freshness.ProcessQueue
	for name, queue := range queues {
		timeout := config.Outbox.Budget
		switch name {
		case jobs.QueueMaintenance:
			timeout = config.Maintenance.Budget
		case jobs.QueueSettlementTick:
			timeout = config.Settlement.TickBudget
		case jobs.QueueSettlementCashback, jobs.QueueSettlementLossback, jobs.QueueSettlementRebate:
			timeout = runner.JobTimeout()
		}
		watched = append(watched, freshness.ProcessQueue{MaxWorkers: queue.MaxWorkers, Name: name, Timeout: timeout})
	}
	return watched
}

// checkSchema refuses a database that this binary cannot work on.
func checkSchema(ctx context.Context, pool *pgxpool.Pool) error {
	latest, err := migrations.Latest()
	if err != nil {
		return err
	}
	if err := migrations.CheckRowSecurity(ctx, pool); err != nil {
		return err
	}
	schema, err := migrations.ReadSchema(ctx, pool)
	if err != nil {
		return err
	}
	return schema.Check(latest)
}

// quietHandler lets River's warnings and errors through: of what jobs do, our
// own middleware tells.
type quietHandler struct{ slog.Handler }

func (handler quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && handler.Handler.Enabled(ctx, level)
}

func (handler quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{handler.Handler.WithAttrs(attrs)}
}

func (handler quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{handler.Handler.WithGroup(name)}
}
