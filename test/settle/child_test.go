package settle_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/settlement"
	"truegreen/jobs"
	"truegreen/workers"
)

// child is a process that settles until it dies as ordered, or its standard input
// ends.
type child struct {
	commands  chan string
	continued chan os.Signal
	frozenJob atomic.Int64 // whose statement it was frozen at; 0 until it goes on
	logger    *slog.Logger
	mu        sync.Mutex // of output
	numComing atomic.Int64
	order     order
	output    *json.Encoder
}

func runChild(text string) error {
	c := &child{
		commands:  make(chan string, 8),
		continued: make(chan os.Signal, 1),
		logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
		output:    json.NewEncoder(os.Stdout),
	}
	if err := json.Unmarshal([]byte(text), &c.order); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	signal.Notify(c.continued, syscall.SIGCONT)
	return c.run(context.Background())
}

func (c *child) run(ctx context.Context) error {
	pool, err := c.openPool(ctx, 12, &tracer{child: c, holding: make(map[*pgx.Conn]bool)})
	if err != nil {
		return err
	}
	riverPool, err := c.openPool(ctx, 6, nil)
	if err != nil {
		return err
	}
	service, err := c.makeService(pool)
	if err != nil {
		return err
	}
	client, err := c.makeClient(ctx, pool, riverPool, service)
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("start queue client: %w", err)
	}
	c.report(report{Kind: reportReady})

	ended := make(chan struct{})
	go c.listen(ended)
	if err := c.ask(ctx, pool, service); err != nil {
		return err
	}
	<-ended
	stopCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Jobs are let come to their own ends: a process that was thought dead shall
	// have time to do what it can.
	if err := client.Stop(stopCtx); err != nil {
		return fmt.Errorf("stop queue client: %w", err)
	}
	return nil
}

func (c *child) openPool(ctx context.Context, size int32, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(c.order.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	config.MaxConns = size
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = idleInTransaction
	if tracer != nil {
		config.ConnConfig.Tracer = tracer
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return pool, nil
}

// listen takes commands until the standard input ends.
func (c *child) listen(ended chan<- struct{}) {
	defer close(ended)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		c.commands <- commands.Text()
	}
}

// makeService makes what people ask for settlements, and workers work with.
func (c *child) makeService(pool *pgxpool.Pool) (*settlement.Service, error) {
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: c.logger})
	if err != nil {
		return nil, fmt.Errorf("make inserter: %w", err)
	}
	config := settlement.Config{
		Backoff: 20 * time.Millisecond, ChunkSize: c.order.ChunkSize, LockTimeout: 10 * time.Second, MaxBackoff: 200 * time.Millisecond,
	}
	if c.order.IsSliced {
		config.Slice = time.Nanosecond
	}
	return settlement.New(pool, inserter, config)
}

// makeClient wires what a worker process has for settlements.
func (c *child) makeClient(
	ctx context.Context, pool, riverPool *pgxpool.Pool, service *settlement.Service,
) (*river.Client[pgx.Tx], error) {
	recorder, err := freshness.NewRecorder(c.order.WorkerID)
	if err != nil {
		return nil, err
	}
	streams, err := outbox.Streams(ctx, pool)
	if err != nil {
		return nil, err
	}
	registered, err := workers.Register(workers.Services{
		Recorder: recorder, Runner: settlement.NewRunner(service, recorder, c.logger), Streams: streams, TickBudget: 10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	queues := workers.Queues(streams, []string{
		jobs.QueueSettlementCashback, jobs.QueueSettlementLossback, jobs.QueueSettlementRebate, jobs.QueueSettlementTick,
	})
	if c.order.OneTick {
		queues[jobs.QueueSettlementTick] = river.QueueConfig{MaxWorkers: 1}
	}
	client, err := river.NewClient(riverpgxv5.New(riverPool), &river.Config{
		DiscardedJobRetentionPeriod: -1,
		FetchCooldown:               5 * time.Millisecond,
		FetchPollInterval:           50 * time.Millisecond,
		ID:                          c.order.WorkerID,
		Logger:                      slog.New(slog.DiscardHandler),
		Middleware:                  []rivertype.Middleware{river.WorkerMiddlewareFunc(withJob)},
		Queues:                      queues,
		RescueStuckJobsAfter:        rescue,
		Workers:                     registered,
	})
	if err != nil {
		return nil, fmt.Errorf("make queue client: %w", err)
	}
	return client, nil
}

func (c *child) report(said report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.output.Encode(said); err != nil {
		c.logger.Warn("nobody listens", slog.Any("error", err))
	}
}

// arrive does what is ordered, the one time that the order means. address is that
// of the connection that came there.
func (c *child) arrive(ctx context.Context, address string) {
	if c.numComing.Add(1) != int64(c.order.Nth) {
		return
	}
	if c.order.Place.Moment == momentOnItsWay {
		c.report(report{Address: address, Kind: reportArm})
		for command := range c.commands {
			if command == commandArmed {
				return
			}
		}
	}
	switch c.order.Act {
	case actDie:
		c.report(report{Kind: reportDying})
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case actFreeze:
		c.report(report{Kind: reportFrozen})
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-c.continued
		c.frozenJob.Store(jobOf(ctx))
	}
}
