package settlement

import (
	"errors"
	"fmt"
	"time"
)

// Config are the settings of a [Service] and a [Runner]. The zero value means
// the defaults.
type Config struct {
	// Backoff is how long a run waits after its first pass that left something
	// undelivered; each further one doubles it. Defaults to 15 s.
	Backoff time.Duration

	// ChunkSize is how many credits share one transaction, from 1 to 10,000. It
	// bounds how long a wallet is locked, and so how long a bet may wait for it.
	// Defaults to 300.
	ChunkSize int

	// LockTimeout is how long a chunk waits for a wallet that somebody else has
	// locked. Defaults to 3 s.
	LockTimeout time.Duration

	// MaxBackoff bounds the doubling. Defaults to 10 min.
	MaxBackoff time.Duration

	// Slice is how long one job works on a run before it leaves the rest to a
	// successor, so that a job that died is noticed soon. At most 60 s, the
	// default.
	Slice time.Duration
}

const (
	maxChunkSize = 10_000
	maxSlice     = time.Minute

	// slack is what a slice may take longer than planned: the chunk, or the
	// calculation, that it was in when its time was over.
	slack = 15 * time.Second
)

// WithDefaults returns config with every zero field set to its default.
func (config Config) WithDefaults() Config {
	setDefault(&config.Backoff, 15*time.Second)
	setDefault(&config.ChunkSize, 300)
	setDefault(&config.LockTimeout, 3*time.Second)
	setDefault(&config.MaxBackoff, 10*time.Minute)
	setDefault(&config.Slice, maxSlice)
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
	if config.ChunkSize < 1 || config.ChunkSize > maxChunkSize {
		errs = append(errs, fmt.Errorf("ChunkSize must be from 1 to %d, got %d", maxChunkSize, config.ChunkSize))
	}
	if config.Backoff < 0 || config.MaxBackoff < config.Backoff {
		errs = append(errs, fmt.Errorf("Backoff must be from 0 to MaxBackoff (%s), got %s", config.MaxBackoff, config.Backoff))
	}
	if config.LockTimeout < time.Millisecond || config.LockTimeout > slack {
		errs = append(errs, fmt.Errorf("LockTimeout must be from 1ms to %s, got %s", slack, config.LockTimeout))
	}
	if config.Slice < 0 || config.Slice > maxSlice {
		errs = append(errs, fmt.Errorf("Slice must be from 0 to %s, got %s", maxSlice, config.Slice))
	}
	return errors.Join(errs...)
}

// retryDelay is how long to wait after an attempt, from 1.
func (config Config) retryDelay(attempt int) time.Duration {
	delay := config.Backoff
	for range attempt - 1 {
		if delay >= config.MaxBackoff/2 {
			return config.MaxBackoff
		}
		delay *= 2
	}
	return delay
}
