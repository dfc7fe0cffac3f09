package freshness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river/rivertype"
)

// ProcessQueue is a queue that this process works.
type ProcessQueue struct {
	MaxWorkers int           // jobs at once, above 0
	Name       string        // not empty
	Timeout    time.Duration // of one job, above 0
}

// ProcessConfig are the settings of a [Process].
type ProcessConfig struct {
	// Queues are the queues that this process works, each once. None is allowed:
	// such a process answers for its database alone.
	Queues []ProcessQueue
}

func (config ProcessConfig) validate() error {
	var errs []error
	seen := make(map[string]bool)
	for _, queue := range config.Queues {
		if queue.Name == "" || seen[queue.Name] {
			errs = append(errs, fmt.Errorf("Queues must have names of their own, got %q twice or empty", queue.Name))
		}
		seen[queue.Name] = true
		if queue.MaxWorkers < 1 || queue.Timeout <= 0 {
			errs = append(errs, fmt.Errorf("queue %s: MaxWorkers and Timeout must be above 0, got %d and %s", queue.Name, queue.MaxWorkers, queue.Timeout))
		}
	}
	return errors.Join(errs...)
}

// Process watches the queues of this process from inside River: when each was
// last fetched from, and what is in flight. It lives in memory and by the
// monotonic clock, so neither a database nor a wall clock can deceive it.
//
// Put it among the Plugins of River's client, and call [Process.RiverStarted]
// once the client runs. It may be used from many goroutines.
type Process struct {
	mu           sync.Mutex
	nextID       uint64
	queues       map[string]*queueWatch
	riverStarted bool
}

type queueWatch struct {
	ProcessQueue

	fetchedAt time.Time
	inFlight  map[uint64]time.Time // starts by an id of our own
}

// These are what River asks of its plugins.
var (
	_ rivertype.HookMetricEmit   = (*Process)(nil)
	_ rivertype.Plugin           = (*Process)(nil)
	_ rivertype.WorkerMiddleware = (*Process)(nil)
)

// NewProcess returns a process that has fetched nothing yet, or says what is out
// of bounds.
func NewProcess(config ProcessConfig) (*Process, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure process: %w", err)
	}
	process := &Process{queues: make(map[string]*queueWatch)}
	for _, queue := range config.Queues {
		process.queues[queue.Name] = &queueWatch{
			ProcessQueue: queue,
			fetchedAt:    time.Now(),
			inFlight:     make(map[uint64]time.Time),
		}
	}
	return process, nil
}

// IsHook marks a hook for River.
func (*Process) IsHook() bool { return true }

// IsMiddleware marks a middleware for River.
func (*Process) IsMiddleware() bool { return true }

// IsPlugin marks a plugin for River.
func (*Process) IsPlugin() bool { return true }

// MetricEmit notes a fetch. River reports each one that succeeded, also those
// that found nothing, and none while a queue is paused or all its slots are busy.
func (process *Process) MetricEmit(_ context.Context, params *rivertype.HookMetricEmitParams) {
	metric, ok := params.Metric.(*rivertype.JobGetAvailableCountMetric)
	if !ok {
		return
	}
	process.mu.Lock()
	defer process.mu.Unlock()
	if queue := process.queues[metric.Queue]; queue != nil {
		queue.fetchedAt = time.Now()
	}
}

// Work runs a job and counts it as in flight until it returns or panics.
func (process *Process) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) error {
	defer process.begin(job.Queue)()
	return doInner(ctx)
}

// begin counts a job as in flight and returns what ends that.
func (process *Process) begin(name string) func() {
	process.mu.Lock()
	defer process.mu.Unlock()
	queue := process.queues[name]
	if queue == nil {
		return func() {}
	}
	process.nextID++
	id := process.nextID
	queue.inFlight[id] = time.Now()
	return func() {
		process.mu.Lock()
		defer process.mu.Unlock()
		delete(queue.inFlight, id)
	}
}

// RiverStarted says that River's client runs. The ages of fetches count from here.
func (process *Process) RiverStarted() {
	process.mu.Lock()
	defer process.mu.Unlock()
	process.riverStarted = true
	for _, queue := range process.queues {
		queue.fetchedAt = time.Now()
	}
}

// QueueNames returns the names of the queues that this process works, sorted.
func (process *Process) QueueNames() []string {
	names := make([]string, 0, len(process.queues))
	for name := range process.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// QueueEvidence is what a process knows of one of its queues.
type QueueEvidence struct {
	// FetchAge is the time since the last fetch that succeeded.
	FetchAge time.Duration
	// LeastOverrun is how long the job that is least so is past its timeout: above
	// 0 only when every job in flight is.
	LeastOverrun time.Duration
	MaxWorkers   int
	Name         string
	NumInFlight  int
	// OldestAge is how long the oldest job in flight has run.
	OldestAge time.Duration
	Timeout   time.Duration
}

// stuck says that every slot is held by a job that should have ended.
func (queue QueueEvidence) stuck() bool {
	return queue.NumInFlight >= queue.MaxWorkers && queue.LeastOverrun > 0
}

// saturated says that every slot is busy, and not all of them beyond their time.
func (queue QueueEvidence) saturated() bool {
	return queue.NumInFlight >= queue.MaxWorkers && queue.LeastOverrun <= 0
}

// evidence returns what is known of each queue, by name, and whether River runs.
func (process *Process) evidence() (queues []QueueEvidence, riverStarted bool) {
	process.mu.Lock()
	defer process.mu.Unlock()
	now := time.Now()
	for _, queue := range process.queues {
		found := QueueEvidence{
			FetchAge:    now.Sub(queue.fetchedAt),
			MaxWorkers:  queue.MaxWorkers,
			Name:        queue.Name,
			NumInFlight: len(queue.inFlight),
			Timeout:     queue.Timeout,
		}
		youngest := time.Duration(-1)
		for _, startedAt := range queue.inFlight {
			age := now.Sub(startedAt)
			found.OldestAge = max(found.OldestAge, age)
			if youngest < 0 || age < youngest {
				youngest = age
			}
		}
		if youngest >= 0 {
			found.LeastOverrun = youngest - queue.Timeout
		}
		queues = append(queues, found)
	}
	slices.SortFunc(queues, func(a, b QueueEvidence) int { return strings.Compare(a.Name, b.Name) })
	return queues, process.riverStarted
}
