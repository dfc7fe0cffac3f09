package freshness

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/pgconnect"
)

// PoolStat is a connection pool: it shows how busy it is, and can replace its connections.
type PoolStat interface {
	Reset()
	Stat() *pgxpool.Stat
}

// MonitorConfig are the settings of a [Monitor].
type MonitorConfig struct {
	// Broker shows what this process knows of its broker. Nil for a process that needs
	// none.
	Broker BrokerWatch

	// Database is where the probe opens a connection of its own. Required.
	Database *pgconnect.Database

	// FetchPoll is River's FetchPollInterval. Defaults to 1 s.
	FetchPoll time.Duration

	// Logger gets a line for each change of readiness. Defaults to none.
	Logger *slog.Logger

	// Pools are this process's connection pools by name; a full one is worth
	// knowing. May be nil.
	Pools map[string]PoolStat

	// ProbeTimeout bounds one probe, connecting included. Below Tick from a tick of
	// 1 s on. Defaults to 2/5 of Tick, from 500 ms to 2 s.
	ProbeTimeout time.Duration

	// RetireAfter is how long a worker is remembered that was not seen. Defaults
	// to 1 h.
	RetireAfter time.Duration

	// SchemaVersion is the newest migration that this binary knows. Required.
	SchemaVersion int64

	// StatementTimeout bounds one statement of a probe. Defaults to half of
	// ProbeTimeout.
	StatementTimeout time.Duration

	// Tick is how often the process judges itself, from 50 ms to 1 min. Every
	// limit follows from it: see [LimitsOf]. Defaults to 5 s.
	Tick time.Duration

	// Version is this binary's, for the heartbeat.
	Version string

	// WorkerID names this process; no other living one has it. Required, 1 to 200
	// bytes.
	WorkerID string
}

// WithDefaults returns config with its zero fields set to their defaults.
func (config MonitorConfig) WithDefaults() MonitorConfig {
	setDefault(&config.FetchPoll, time.Second)
	setDefault(&config.RetireAfter, time.Hour)
	setDefault(&config.Tick, 5*time.Second)
	setDefault(&config.ProbeTimeout, min(max(2*config.Tick/5, 500*time.Millisecond), 2*time.Second))
	setDefault(&config.StatementTimeout, config.ProbeTimeout/2)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return config
}

func setDefault(field *time.Duration, value time.Duration) {
	if *field == 0 {
		*field = value
	}
}

// validate says which fields are out of bounds, all of them.
func (config MonitorConfig) validate() error {
	errs := []error{checkWorkerID(config.WorkerID)}
	if config.Database == nil {
		errs = append(errs, errors.New("Database is required"))
	}
	if config.SchemaVersion < 1 {
		errs = append(errs, fmt.Errorf("SchemaVersion must be above 0, got %d", config.SchemaVersion))
	}
	if config.Tick < 50*time.Millisecond || config.Tick > time.Minute {
		errs = append(errs, fmt.Errorf("Tick must be from 50ms to 1m, got %s", config.Tick))
	}
	if config.FetchPoll <= 0 || config.RetireAfter <= 0 {
		errs = append(errs, fmt.Errorf("FetchPoll and RetireAfter must be above 0, got %s and %s", config.FetchPoll, config.RetireAfter))
	}
	if config.StatementTimeout < time.Millisecond || config.StatementTimeout > config.ProbeTimeout {
		errs = append(errs, fmt.Errorf("StatementTimeout must be from 1ms to ProbeTimeout (%s), got %s", config.ProbeTimeout, config.StatementTimeout))
	}
	if config.Tick >= time.Second && config.ProbeTimeout >= config.Tick {
		errs = append(errs, fmt.Errorf("ProbeTimeout must be below Tick (%s), got %s", config.Tick, config.ProbeTimeout))
	}
	return errors.Join(errs...)
}
