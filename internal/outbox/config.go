package outbox

import (
	"errors"
	"fmt"
	"time"
)

// Config are the settings of a [Relay]. The zero value means the defaults.
type Config struct {
	// AckTimeout is how long the broker may take to answer for one batch. Defaults
	// to 3 s.
	AckTimeout time.Duration

	// BatchBytes is how many bytes of payload and headers are claimed and sent at once,
	// from 64 KiB to 256 MiB; a larger event goes alone. A slow link must carry so much
	// within half of AckTimeout. Defaults to 2 MiB.
	BatchBytes int

	// BatchSize is how many events are claimed and sent at once, from 1 to 10,000.
	// Defaults to 1,000.
	BatchSize int

	// LeaseTTL is how long a shard stays with a worker that went silent. Above
	// AckTimeout, below PassBudget. Defaults to 6 s.
	LeaseTTL time.Duration

	// Linger is how long a pass that found nothing more keeps looking before it
	// ends. Defaults to 150 ms.
	Linger time.Duration

	// MaxRetryDelay bounds how long an event waits after a failure of its own, and
	// a shard after an outage. Defaults to 5 s.
	MaxRetryDelay time.Duration

	// ParkAfter is how long an event must have failed by itself before it is parked,
	// however often that was. Defaults to 10 min.
	ParkAfter time.Duration

	// ParkAfterFailures is how many failures of its own an event must have before
	// it is parked, however long that took. Defaults to 10.
	ParkAfterFailures int

	// PassBudget is how long one pass may take, a slow broker included: the job's
	// timeout. Defaults to 10 s.
	PassBudget time.Duration

	// ProofInterval is how long an answer of the broker proves that it would take
	// events. Defaults to 5 s.
	ProofInterval time.Duration

	// WorkerID names this process in leases.
	WorkerID string
}

// WithDefaults returns config with every zero field set to its default.
func (config Config) WithDefaults() Config {
	setDefault(&config.AckTimeout, 3*time.Second)
	setDefault(&config.BatchBytes, 2<<20)
	setDefault(&config.BatchSize, 1000)
	setDefault(&config.LeaseTTL, 6*time.Second)
	setDefault(&config.Linger, 150*time.Millisecond)
	setDefault(&config.MaxRetryDelay, 5*time.Second)
	setDefault(&config.ParkAfter, 10*time.Minute)
	setDefault(&config.ParkAfterFailures, 10)
	setDefault(&config.PassBudget, 10*time.Second)
	setDefault(&config.ProofInterval, 5*time.Second)
	return config
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate says which fields are out of bounds, all of them.
func (config Config) validate() error {
	var errs []error
	if config.WorkerID == "" {
		errs = append(errs, errors.New("WorkerID is required"))
	}
	if config.BatchBytes < minClaimBytes || config.BatchBytes > 256<<20 {
		errs = append(errs, fmt.Errorf("BatchBytes must be from %d to %d, got %d", minClaimBytes, 256<<20, config.BatchBytes))
	}
	if config.BatchSize < 1 || config.BatchSize > 10_000 {
		errs = append(errs, fmt.Errorf("BatchSize must be from 1 to 10000, got %d", config.BatchSize))
	}
	if config.AckTimeout <= 0 || config.AckTimeout >= config.LeaseTTL {
		errs = append(errs, fmt.Errorf("AckTimeout must be above 0 and below LeaseTTL (%s), got %s", config.LeaseTTL, config.AckTimeout))
	}
	if config.drainTime() <= 0 {
		errs = append(errs, fmt.Errorf("AckTimeout must be below 4/5 of PassBudget (%s), so that a pass can do more than wait, got %s", config.PassBudget, config.AckTimeout))
	}
	if config.LeaseTTL >= config.PassBudget {
		errs = append(errs, fmt.Errorf("LeaseTTL must be below PassBudget (%s), got %s", config.PassBudget, config.LeaseTTL))
	}
	if config.MaxRetryDelay < time.Second || config.MaxRetryDelay > 15*time.Second {
		errs = append(errs, fmt.Errorf("MaxRetryDelay must be from 1s to 15s, got %s", config.MaxRetryDelay))
	}
	if config.ParkAfter <= 0 || config.ParkAfterFailures < 1 {
		errs = append(errs, fmt.Errorf("ParkAfter and ParkAfterFailures must be above 0, got %s and %d", config.ParkAfter, config.ParkAfterFailures))
	}
	return errors.Join(errs...)
}

// drainTime is how long a pass goes on claiming: so long that a last batch with
// a slow broker still ends within PassBudget.
func (config Config) drainTime() time.Duration {
	return config.PassBudget - config.AckTimeout - config.PassBudget/5
}

// readTimeout is how long reading a batch may take, so that a pass is not used up by it.
func (config Config) readTimeout() time.Duration { return config.PassBudget / 3 }

// retryDelay is how long after the given attempt of a job, counted from 1, its
// events and its shard rest: 1 s, then twice as long each time.
func (config Config) retryDelay(attempt int) time.Duration {
	delay := time.Second << min(max(attempt-1, 0), 10)
	return min(delay, config.MaxRetryDelay)
}
