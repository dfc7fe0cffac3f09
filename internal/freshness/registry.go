package freshness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

var queries = dbsqlc.New()

// Registry knows all loops, whichever of them this process works.
type Registry struct {
	loops []Loop
}

// New returns a registry, or says of every loop what is out of bounds.
func New(config Config) (*Registry, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure loops: %w", err)
	}
	return &Registry{loops: config.Loops}, nil
}

// Loops returns all loops with their thresholds, in the order in which they are
// shown.
func (registry *Registry) Loops() []Loop { return slices.Clone(registry.loops) }

// Register stores in tx what is expected of every loop. Done again it changes
// only what differs; the instant from which a loop's age counts, and its pause,
// stay. Loops that this binary does not know are left alone, since a newer one
// may be running.
func (registry *Registry) Register(ctx context.Context, tx pgx.Tx) error {
	for i, loop := range registry.loops {
		err := queries.LoopContractRegister(ctx, pgtx.Exactly(tx, 1), &dbsqlc.LoopContractRegisterParams{
			Budget:         loop.Budget,
			GatesReadiness: loop.GatesReadiness,
			ItemRedAfter:   nilIfZero(loop.ItemRedAfter),
			JobKind:        loop.JobKind,
			LateAfter:      loop.LateAfter,
			Loop:           loop.Name,
			PassInterval:   loop.Interval,
			Queue:          loop.Queue,
			RedAfter:       loop.RedAfter,
			Scheduled:      loop.Scheduled,
			SortOrder:      int32(i + 1),
		})
		if err != nil {
			return fmt.Errorf("register loop %s: %w", loop.Name, err)
		}
	}
	return nil
}

func nilIfZero(duration time.Duration) *time.Duration {
	if duration == 0 {
		return nil
	}
	return &duration
}

// QueueControl pauses and resumes River's queues; every River client does it,
// insert-only ones too.
type QueueControl interface {
	QueuePauseTx(ctx context.Context, tx pgx.Tx, name string, opts *river.QueuePauseOpts) error
	QueueResumeTx(ctx context.Context, tx pgx.Tx, name string, opts *river.QueuePauseOpts) error
}

// Decision is what a person decided about a loop.
type Decision struct {
	By     string // who; not empty
	Loop   string
	Reason string // not empty for a pause, not stored for a resume
}

// Pause stops the work of a loop until [Resume], in our table and in River's
// queue at once; what is in flight goes on. A loop that is paused already keeps
// its instant and takes the new name and reason.
//
// Fails with [fault.KindInvalid] without a name or a reason, and with
// [fault.KindNotFound] when there is no such loop.
func Pause(ctx context.Context, tx pgx.Tx, queues QueueControl, decision Decision) error {
	if decision.By == "" || decision.Reason == "" {
		return fault.Invalid("pause loop %s: a name and a reason are required", decision.Loop)
	}
	queue, err := queries.LoopContractPause(ctx, tx, &dbsqlc.LoopContractPauseParams{
		Loop:        decision.Loop,
		PauseReason: decision.Reason,
		PausedBy:    decision.By,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return noLoop(ctx, tx, "pause", decision.Loop)
	}
	if err != nil {
		return fmt.Errorf("pause loop %s: %w", decision.Loop, err)
	}

	// River refuses to pause a queue that nobody has worked yet.
	if err := queries.LoopContractEnsureQueue(ctx, tx, &dbsqlc.LoopContractEnsureQueueParams{Name: queue}); err != nil {
		return fmt.Errorf("pause loop %s: store queue %s: %w", decision.Loop, queue, err)
	}
	if err := queues.QueuePauseTx(ctx, tx, queue, nil); err != nil {
		return fmt.Errorf("pause loop %s: pause queue %s: %w", decision.Loop, queue, err)
	}
	return nil
}

// Resume ends a loop's pause, whoever paused it, and lets its age count from now.
// A loop that is not paused stays as it is.
//
// Fails with [fault.KindInvalid] without a name, and with [fault.KindNotFound]
// when there is no such loop.
func Resume(ctx context.Context, tx pgx.Tx, queues QueueControl, decision Decision) error {
	if decision.By == "" {
		return fault.Invalid("resume loop %s: a name is required", decision.Loop)
	}
	queue, err := queries.LoopContractResume(ctx, tx, &dbsqlc.LoopContractResumeParams{Loop: decision.Loop})
	if errors.Is(err, pgx.ErrNoRows) {
		return noLoop(ctx, tx, "resume", decision.Loop)
	}
	if err != nil {
		return fmt.Errorf("resume loop %s: %w", decision.Loop, err)
	}

	if err := queries.LoopContractEnsureQueue(ctx, tx, &dbsqlc.LoopContractEnsureQueueParams{Name: queue}); err != nil {
		return fmt.Errorf("resume loop %s: store queue %s: %w", decision.Loop, queue, err)
	}
	if err := queues.QueueResumeTx(ctx, tx, queue, nil); err != nil {
		return fmt.Errorf("resume loop %s: resume queue %s: %w", decision.Loop, queue, err)
	}
	return nil
}

// noLoop refuses a name that no loop has, and names those that exist.
func noLoop(ctx context.Context, tx pgx.Tx, act, loop string) error {
	names, err := queries.LoopContractNames(ctx, tx)
	switch {
	case err != nil:
		return fmt.Errorf("%s loop %s: list loops: %w", act, loop, err)
	case len(names) == 0:
		return fault.NotFound("%s loop %s: no loop is registered yet: the first worker that starts registers them", act, loop)
	}
	if slices.Contains(names, loop) {
		return fmt.Errorf("%s loop %s: %w", act, loop, pgtx.ErrRowCount)
	}
	return fault.NotFound("%s loop %s: there is no such loop; there are %s", act, loop, strings.Join(names, ", "))
}
