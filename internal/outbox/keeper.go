package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/jobs"
)

const (
	// daysAhead is how many days' partitions stand ready, so that a loop that rests
	// for some days does no harm.
	daysAhead = 7

	// moveWindow is how many events one transaction looks at and moves.
	moveWindow = 5000

	// maxMoveLag is how much longer than meant delivered events may stay among the
	// undelivered ones before the loop fails.
	maxMoveLag = 6 * time.Hour

	// ddlLockTimeout is how long making or dropping a partition waits for readers,
	// who would queue up behind it.
	ddlLockTimeout = "2s"
)

// KeeperConfig are the settings of a [Keeper]. The zero value means the defaults.
type KeeperConfig struct {
	// Budget is how long one pass may take: the timeout of its job. Defaults to
	// 1 min.
	Budget time.Duration

	// Keep is how long delivered events are kept, above KeepLive. Defaults to 30
	// days. Undelivered ones are kept for ever.
	Keep time.Duration

	// KeepLive is how long delivered events stay among the undelivered ones, where
	// a key_seq that is used twice is refused. Defaults to 24 h.
	KeepLive time.Duration

	// Loop is the name of the loop that progress is recorded for.
	Loop string
}

// Keeper looks after the tables of events: it makes partitions ahead, moves
// delivered events into them, and drops those that are old enough.
type Keeper struct {
	config   KeeperConfig
	pool     *pgxpool.Pool
	recorder Recorder
}

// NewKeeper returns a keeper, or says which setting is out of bounds.
func NewKeeper(pool *pgxpool.Pool, recorder Recorder, config KeeperConfig) (*Keeper, error) {
	setDefault(&config.Budget, time.Minute)
	setDefault(&config.Keep, 30*24*time.Hour)
	setDefault(&config.KeepLive, 24*time.Hour)
	setDefault(&config.Loop, "maintenance")
	if config.KeepLive < 0 || config.Keep <= config.KeepLive {
		return nil, fmt.Errorf("configure outbox keeper: KeepLive must not be below 0, and Keep above it, got %s and %s", config.KeepLive, config.Keep)
	}
	return &Keeper{config: config, pool: pool, recorder: recorder}, nil
}

// Budget is how long a pass may take: the timeout of its job.
func (keeper *Keeper) Budget() time.Duration { return keeper.config.Budget }

// KeepResult counts what a pass did.
type KeepResult struct {
	NumMade   int64 `json:"num_made"`   // partitions
	NumMoved  int64 `json:"num_moved"`  // delivered events
	NumPruned int64 `json:"num_pruned"` // jobs that had failed for good
}

// Keep does one pass and completes its job. It fails, without completing it, if a
// partition that is old enough could not be dropped since it holds an undelivered
// event, and if an event is undelivered for longer than delivered ones are kept: a
// person must decide on those. Everything else is done all the same.
func (keeper *Keeper) Keep(ctx context.Context, complete freshness.Completion) (KeepResult, error) {
	var result KeepResult
	err := keeper.pass(ctx, &result)
	if err != nil {
		err = fmt.Errorf("keep outbox: %w", err)
		// Also of a pass whose time is over.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
		defer cancel()
		recordErr := pgtx.Do(ctx, keeper.pool, func(tx pgx.Tx) error {
			return keeper.recorder.Record(ctx, tx, freshness.Progress{Err: err, Kind: freshness.Failure, Loop: keeper.config.Loop})
		})
		return result, errors.Join(err, recordErr)
	}
	err = pgtx.Do(ctx, keeper.pool, func(tx pgx.Tx) error {
		return complete(ctx, tx, freshness.Progress{
			Kind: freshness.Success, Loop: keeper.config.Loop, NumItems: int(result.NumMoved), Result: result,
		})
	})
	if err != nil {
		return result, fmt.Errorf("keep outbox: %w", err)
	}
	return result, nil
}

func (keeper *Keeper) pass(ctx context.Context, result *KeepResult) error {
	err := keeper.alone(ctx, func(tx pgx.Tx) error {
		var err error
		result.NumMade, err = queries.OutboxHistoryMake(ctx, tx, &dbsqlc.OutboxHistoryMakeParams{NumDays: daysAhead})
		return err
	})
	if err != nil {
		return fmt.Errorf("make partitions of delivered events: %w", err)
	}
	if err := keeper.move(ctx, result); err != nil {
		return fmt.Errorf("move delivered events: %w", err)
	}
	var kept []string
	err = keeper.alone(ctx, func(tx pgx.Tx) error {
		var err error
		kept, err = queries.OutboxHistoryDrop(ctx, tx, &dbsqlc.OutboxHistoryDropParams{Keep: keeper.config.Keep})
		return err
	})
	if err != nil {
		return fmt.Errorf("drop old partitions of delivered events: %w", err)
	}
	pruned, err := queries.OutboxJobPrune(ctx, keeper.pool, &dbsqlc.OutboxJobPruneParams{
		Keep: keeper.config.Keep, MaintenanceKind: jobs.MaintenanceArgs{}.Kind(),
	})
	if err == nil && pruned.NumRemoved < pruned.NumOld {
		err = fmt.Errorf("%d of %d were removed: %w", pruned.NumRemoved, pruned.NumOld, pgtx.ErrRowCount)
	}
	if err != nil {
		return fmt.Errorf("remove old failed jobs: %w", err)
	}
	result.NumPruned = pruned.NumRemoved
	if len(kept) > 0 {
		return fmt.Errorf("%s: old enough to be dropped, but undelivered events are in it; find them in outbox_events", strings.Join(kept, ", "))
	}
	return keeper.findOverdue(ctx)
}

// move leaves some of the pass's time to the rest of it. What it does not come to
// is the next pass's; it fails if that has been so for long.
func (keeper *Keeper) move(ctx context.Context, result *KeepResult) error {
	started := time.Now()
	var afterID int64
	for time.Since(started) < keeper.config.Budget/2 {
		var moved []int64
		err := keeper.alone(ctx, func(tx pgx.Tx) error {
			var err error
			moved, err = queries.OutboxHistoryMove(ctx, tx, &dbsqlc.OutboxHistoryMoveParams{
				AfterID: afterID, Keep: keeper.config.KeepLive, WindowSize: moveWindow,
			})
			return err
		})
		if err != nil {
			return err
		}
		if len(moved) != 3 {
			return nil // another keeper is at it
		}
		result.NumMoved += moved[0]
		if moved[1] == 0 {
			return nil
		}
		afterID = moved[2]
	}
	lag, err := queries.OutboxHistoryLag(ctx, keeper.pool)
	if err != nil {
		return fmt.Errorf("look for the oldest: %w", err)
	}
	if lag > keeper.config.KeepLive+maxMoveLag {
		return fmt.Errorf("the oldest was delivered %s ago and should have been moved after %s: more is delivered than %s of each pass can move",
			lag.Round(time.Minute), keeper.config.KeepLive, keeper.config.Budget/2)
	}
	return nil
}

// findOverdue fails if an event is undelivered for longer than any is kept.
func (keeper *Keeper) findOverdue(ctx context.Context) error {
	overdue, err := queries.OutboxOverdue(ctx, keeper.pool, &dbsqlc.OutboxOverdueParams{Keep: keeper.config.Keep})
	if err != nil {
		return fmt.Errorf("look for old undelivered events: %w", err)
	}
	if overdue.NumEvents > 0 {
		return fmt.Errorf("%d events are undelivered for more than %s, the first of them %d: see 'truegreen outbox status' and 'outbox parked'",
			overdue.NumEvents, keeper.config.Keep, overdue.FirstID)
	}
	return nil
}

// alone runs do in a transaction, unless another keeper is at work.
func (keeper *Keeper) alone(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgtx.Do(ctx, keeper.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+ddlLockTimeout+"'"); err != nil {
			return fmt.Errorf("bound waits for locks: %w", err)
		}
		locked, err := queries.OutboxHistoryLock(ctx, tx)
		if err != nil {
			return fmt.Errorf("lock out other keepers: %w", err)
		}
		if !locked {
			return nil
		}
		return do(tx)
	})
}
