package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
	"truegreen/jobs"
)

const (
	// cursorMaxAge is how old a shard's cursor may grow: what failed meanwhile is read
	// again by each search.
	cursorMaxAge = 10 * time.Second

	// cursorMinPublished is how many deliveries a search may have to pass by before the
	// shard's cursor is noted again.
	cursorMinPublished = 100
)

// SweeperConfig are the settings of a [Sweeper]. The zero value means the
// defaults.
type SweeperConfig struct {
	// Interval is the time between two sweeps: the most that a lost wake-up may
	// cost. Defaults to 1 s.
	Interval time.Duration

	// ProofInterval is how old a stream's last success may grow before an idle
	// stream is asked to prove itself. Defaults to 5 s.
	ProofInterval time.Duration
}

// Sweeper inserts the publish jobs that nobody else did. One runs in every
// process, and needs neither River's leader nor a working queue.
type Sweeper struct {
	config SweeperConfig
	logger *slog.Logger
	pool   *pgxpool.Pool
}

// NewSweeper returns a sweeper.
func NewSweeper(pool *pgxpool.Pool, logger *slog.Logger, config SweeperConfig) *Sweeper {
	setDefault(&config.Interval, time.Second)
	setDefault(&config.ProofInterval, 5*time.Second)
	return &Sweeper{config: config, logger: logger, pool: pool}
}

// Run sweeps until ctx is done. A sweep that fails is logged at its first failure
// and at the first success after it: the next one comes in a second anyway, and
// readiness tells of a database that is away.
func (sweeper *Sweeper) Run(ctx context.Context) {
	ticker := time.NewTicker(sweeper.config.Interval)
	defer ticker.Stop()
	failing := false
	for {
		err := sweeper.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			sweeper.logger.WarnContext(ctx, "outbox sweep failing", slog.Any("error", err))
		case err == nil && failing:
			sweeper.logger.InfoContext(ctx, "outbox sweep works again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sweep inserts a job for each shard that needs one, once. It does nothing while
// another process sweeps.
func (sweeper *Sweeper) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*sweeper.config.Interval)
	defer cancel()
	var errCursor error
	err := pgtx.Do(ctx, sweeper.pool, func(tx pgx.Tx) error {
		locked, err := queries.OutboxSweepLock(ctx, tx)
		if err != nil {
			return fmt.Errorf("lock the outbox sweep: %w", err)
		}
		if !locked {
			return nil
		}
		errCursor = noteCursors(ctx, tx)
		_, err = queries.OutboxSweep(ctx, tx, &dbsqlc.OutboxSweepParams{
			MaxAttempts:   jobs.OutboxMaxAttempts,
			ProofInterval: sweeper.config.ProofInterval,
		})
		if err != nil {
			return fmt.Errorf("insert jobs for due shards: %w", err)
		}
		return nil
	})
	return errors.Join(err, errCursor)
}

// noteCursors does so in a savepoint: the cursors only make searches cheap, and jobs are
// inserted without them too.
func noteCursors(ctx context.Context, tx pgx.Tx) error {
	return pgtx.Do(ctx, tx, func(tx pgx.Tx) error {
		_, err := queries.OutboxCursorNote(ctx, tx, &dbsqlc.OutboxCursorNoteParams{
			MaxAge:       cursorMaxAge,
			MinPublished: cursorMinPublished,
		})
		if err != nil {
			return fmt.Errorf("note where searches for undelivered events begin: %w", err)
		}
		return nil
	})
}
