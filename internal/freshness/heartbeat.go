package freshness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// TakenError says that another live process has this process's worker id.
type TakenError struct {
	FreeAfter time.Duration // how long the other must be silent for its id to be free
	SeenAge   time.Duration // since the other was seen
	StartedAt time.Time     // of the other
	WorkerID  string
}

// Error says whose the id is, and when it is free.
func (e *TakenError) Error() string {
	return fmt.Sprintf("worker id %q belongs to another process, which started at %s and was seen %s ago: "+
		"give each process an id of its own; this one is free once the other process has stopped, or was not seen for %s",
		e.WorkerID, e.StartedAt.UTC().Format(time.RFC3339), short(e.SeenAge), short(e.FreeAfter))
}

// Begin stores this process's first heartbeat, before [Monitor.Run]. It fails with a
// [TakenError] if another process with the same id has not stopped and was seen lately.
// Without Begin, Run stores it, and the process is unready while that fails.
func (monitor *Monitor) Begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, monitor.config.ProbeTimeout)
	defer cancel()
	if err := monitor.prober.reconnect(ctx); err != nil {
		return err
	}
	return monitor.prober.begin(ctx)
}

func (prober *prober) begin(ctx context.Context) error {
	begunAt, err := queries.WorkerHeartbeatBegin(ctx, prober.conn, &dbsqlc.WorkerHeartbeatBeginParams{
		Queues:     prober.queues,
		StaleAfter: prober.idStale,
		Version:    prober.config.Version,
		WorkerID:   prober.config.WorkerID,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return prober.taken(ctx)
	}
	if err != nil {
		return fmt.Errorf("store first heartbeat: %w", err)
	}
	prober.begunAt = begunAt
	return nil
}

// taken is why a heartbeat was not stored: a [TakenError], unless something swallowed it.
func (prober *prober) taken(ctx context.Context) error {
	holder, err := queries.WorkerHeartbeatHolder(ctx, prober.conn, &dbsqlc.WorkerHeartbeatHolderParams{WorkerID: prober.config.WorkerID})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read whose heartbeat it is: %w", err)
	}
	if err != nil || holder.StartedAt.Equal(prober.begunAt) {
		return fmt.Errorf("the database stored no heartbeat of worker %s, and reported no error", prober.config.WorkerID)
	}
	return &TakenError{
		FreeAfter: prober.idStale, SeenAge: holder.SeenAge, StartedAt: holder.StartedAt, WorkerID: prober.config.WorkerID,
	}
}

// beat stores this process's heartbeat and, once a minute, forgets workers that
// are gone. Without a connection, or before the first probe, it does nothing. It fails
// with a [TakenError] if the row belongs to another live start.
func (prober *prober) beat(ctx context.Context, ready bool, reasons []string) error {
	if prober.conn == nil || prober.conn.IsClosed() || prober.begunAt.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prober.config.StatementTimeout)
	defer cancel()
	numRows, err := queries.WorkerHeartbeatBeat(ctx, prober.conn, &dbsqlc.WorkerHeartbeatBeatParams{
		Queues:     prober.queues,
		Ready:      ready,
		Reasons:    reasons,
		StaleAfter: prober.idStale,
		StartedAt:  prober.begunAt,
		Version:    prober.config.Version,
		WorkerID:   prober.config.WorkerID,
	})
	if err != nil {
		return fmt.Errorf("store heartbeat: %w", err)
	}
	prober.unkept = nil
	if numRows == 0 {
		err := prober.taken(ctx)
		if taken := (*TakenError)(nil); !errors.As(err, &taken) {
			prober.unkept = err // others would take this process for dead
		}
		return err
	}

	if time.Since(prober.retiredAt) < retireInterval {
		return nil
	}
	numKept, err := queries.WorkerHeartbeatRetire(ctx, prober.conn, &dbsqlc.WorkerHeartbeatRetireParams{
		RetireAfter: prober.config.RetireAfter,
	})
	if err == nil && numKept > 0 {
		err = fmt.Errorf("%d were not removed: %w", numKept, pgtx.ErrRowCount)
	}
	if err != nil {
		return fmt.Errorf("forget workers that are gone: %w", err)
	}
	prober.retiredAt = time.Now()
	return nil
}

// stop stores the last heartbeat of a process that stops cleanly. One that never began
// has none.
func (prober *prober) stop(ctx context.Context) error {
	if prober.begunAt.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prober.config.ProbeTimeout)
	defer cancel()
	if err := prober.reconnect(ctx); err != nil {
		return fmt.Errorf("store last heartbeat: %w", err)
	}
	numRows, err := queries.WorkerHeartbeatStop(ctx, prober.conn, &dbsqlc.WorkerHeartbeatStopParams{
		StartedAt: prober.begunAt, WorkerID: prober.config.WorkerID,
	})
	if err != nil {
		return fmt.Errorf("store last heartbeat: %w", err)
	}
	if numRows == 0 {
		// It may belong to another start, which goes on.
		if taken := (*TakenError)(nil); !errors.As(prober.taken(ctx), &taken) {
			return fmt.Errorf("store last heartbeat: %w", pgtx.ErrRowCount)
		}
	}
	return nil
}
