package crash_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
	"truegreen/workers"
)

// child is a process that drains the outbox until it dies as ordered, or its
// standard input ends.
type child struct {
	armed     atomic.Bool
	commands  chan string
	continued chan os.Signal
	logger    *slog.Logger
	mu        sync.Mutex // of output
	numComing atomic.Int64
	order     order
	output    *json.Encoder
	ready     atomic.Bool
}

func runChild(text string) error {
	c := &child{
		commands:  make(chan string, 8),
		continued: make(chan os.Signal, 1),
		logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		output:    json.NewEncoder(os.Stdout),
	}
	if err := json.Unmarshal([]byte(text), &c.order); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	signal.Notify(c.continued, syscall.SIGCONT)
	return c.run(context.Background())
}

func (c *child) run(ctx context.Context) error {
	pool, err := c.openPool(ctx, 12, &tracer{child: c, committing: make(map[*pgx.Conn][]int64), place: places()[c.order.Step]})
	if err != nil {
		return err
	}
	riverPool, err := c.openPool(ctx, 5, nil)
	if err != nil {
		return err
	}
	publisher, err := natspublish.Connect(c.logger, natspublish.Config{AckTimeout: c.order.tempo().ackTimeout, URL: c.order.BrokerURL})
	if err != nil {
		return err
	}
	client, err := c.makeClient(ctx, pool, riverPool, &hookedPublisher{child: c, inner: publisher})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("start queue client: %w", err)
	}
	sweepCtx, stopSweep := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() {
		outbox.NewSweeper(pool, c.logger, outbox.SweeperConfig{Interval: sweep}).Run(sweepCtx)
	})
	c.ready.Store(true)
	c.report(reportReady, nil)

	c.readCommands()
	stopSweep()
	background.Wait()
	stopCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := client.StopAndCancel(stopCtx); err != nil {
		return fmt.Errorf("stop queue client: %w", err)
	}
	publisher.Close()
	return nil
}

func (c *child) openPool(ctx context.Context, size int32, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(c.order.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	config.MaxConns = size
	// What a process that stops within a transaction has locked, nobody else gets:
	// its lease alone does not end that.
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

// makeClient wires what a worker process has for the outbox.
func (c *child) makeClient(ctx context.Context, pool, riverPool *pgxpool.Pool, publisher outbox.Publisher) (*river.Client[pgx.Tx], error) {
	recorder, err := freshness.NewRecorder(c.order.WorkerID)
	if err != nil {
		return nil, err
	}
	tempo := c.order.tempo()
	relay, err := outbox.NewRelay(pool, publisher, recorder, outbox.Config{
		AckTimeout: tempo.ackTimeout,
		BatchSize:  c.order.BatchSize,
		LeaseTTL:   tempo.leaseTTL,
		PassBudget: tempo.passBudget,
		WorkerID:   c.order.WorkerID,
	})
	if err != nil {
		return nil, err
	}
	streams, err := outbox.Streams(ctx, pool)
	if err != nil {
		return nil, err
	}
	registered, err := workers.Register(workers.Services{Recorder: recorder, Relay: relay, Streams: streams})
	if err != nil {
		return nil, err
	}
	queues := make([]string, 0, len(streams))
	for _, stream := range streams {
		queues = append(queues, stream.Queue)
	}
	client, err := river.NewClient(riverpgxv5.New(riverPool), &river.Config{
		FetchCooldown:        5 * time.Millisecond,
		FetchPollInterval:    sweep,
		ID:                   c.order.WorkerID,
		JobTimeout:           tempo.passBudget,
		Logger:               c.logger,
		Queues:               workers.Queues(streams, queues),
		RescueStuckJobsAfter: rescue,
		Workers:              registered,
	})
	if err != nil {
		return nil, fmt.Errorf("make queue client: %w", err)
	}
	return client, nil
}

// readCommands returns when there will be no more.
func (c *child) readCommands() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == commandWithheld {
			c.die(nil)
		}
		c.commands <- lines.Text()
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		c.logger.Warn("commands end", slog.Any("error", err))
	}
}

func (c *child) report(kind reportKind, ids []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.output.Encode(report{IDs: ids, Kind: kind}); err != nil {
		c.logger.Warn("nobody listens", slog.Any("error", err))
	}
}

// comes counts, and reports true the one time that the order means. A process that
// has not wholly started does not count: it is to live on, if it only stops.
func (c *child) comes() bool { return c.ready.Load() && c.numComing.Add(1) == int64(c.order.Nth) }

// die kills the process as a crash would, with ids in its hands.
func (c *child) die(ids []int64) {
	c.report(reportDying, ids)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// freeze stops the process until somebody lets it go on.
func (c *child) freeze(ids []int64) {
	c.report(reportFrozen, ids)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-c.continued
}

// arm has acknowledgements withheld from here on.
func (c *child) arm(ids []int64) {
	c.armed.Store(true)
	c.report(reportArm, ids)
	for command := range c.commands {
		if command == commandArmed {
			return
		}
	}
}
