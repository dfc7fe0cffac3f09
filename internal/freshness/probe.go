package freshness

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgconnect"
	"truegreen/internal/pgtx"
	"truegreen/migrations"
)

// prober asks the database, on one connection of its own. Used by one goroutine
// at a time.
type prober struct {
	begunAt   time.Time // this worker's start by the database's clock
	config    MonitorConfig
	conn      *pgx.Conn
	fetchFrom []string          // queues of which to find out whether a fetch is possible
	idStale   time.Duration     // how long a process must be silent for its id to be free
	pausedBy  map[string]string // loop → who, as last read
	queues    []string
	retiredAt time.Time // by the monotonic clock
	unkept    error     // why the database did not keep the last heartbeat
}

// probeResult is what one probe found.
type probeResult struct {
	at          time.Time // when it ended
	clockSkew   time.Duration
	err         error // no answer at all
	fetchErr    error // why nothing can be fetched from the queues that were asked for
	loops       []LoopStatus
	own         []OwnProgress
	pinned      bool // read-only, where a new connection is not
	readOnly    bool
	schema      SchemaEvidence
	slow        bool
	snapshotErr error // an answer, but the loops could not be read
}

// newProber returns a prober that has not connected yet.
func newProber(config MonitorConfig, queues []string) *prober {
	return &prober{config: config, idStale: LimitsOf(config.Tick, config.FetchPoll).EvaluatorDead, queues: queues}
}

// connect opens a connection, whose statements have less time than others'.
func (prober *prober) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := prober.config.Database.Connect(ctx, pgconnect.Options{
		Defaults: map[string]string{"jit": "off"},
		Fixed:    map[string]string{"statement_timeout": fmt.Sprint(prober.config.StatementTimeout.Milliseconds())},
		Name:     "truegreen monitor " + prober.config.WorkerID,
	})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// probe asks whether the server takes writes, whether its schema fits, and how
// the loops are; and whether a job can be fetched from the queues of fetchFrom. It takes
// no longer than ProbeTimeout.
func (prober *prober) probe(ctx context.Context, fetchFrom []string) probeResult {
	ctx, cancel := context.WithTimeout(ctx, prober.config.ProbeTimeout)
	defer cancel()
	startedAt := time.Now()
	prober.fetchFrom = fetchFrom
	var result probeResult

	if err := prober.ask(ctx, &result); err != nil {
		prober.disconnect()
		result.err = err
	}
	result.at = time.Now()
	result.slow = result.at.Sub(startedAt) > prober.config.StatementTimeout/2
	return result
}

func (prober *prober) ask(ctx context.Context, result *probeResult) error {
	if err := prober.reconnect(ctx); err != nil {
		return err
	}
	askedAt := time.Now()
	now, readOnly, err := askServer(ctx, prober.conn)
	if err != nil {
		return err
	}
	result.readOnly = readOnly
	result.clockSkew = askedAt.Add(time.Since(askedAt) / 2).Round(0).Sub(now)

	result.snapshotErr = prober.snapshot(ctx, result)
	if readOnly {
		result.pinned = prober.replaceConnection(ctx)
	}
	switch {
	case len(prober.fetchFrom) == 0:
	case prober.conn.IsClosed():
		result.fetchErr = result.snapshotErr // which took all the time
	default:
		result.fetchErr = prober.tryFetch(ctx)
	}
	return nil
}

// tryFetch does what River's fetch does, and takes it back: whether the database would let
// it. It waits for no lock, so that time is left for the rest of the tick.
func (prober *prober) tryFetch(ctx context.Context) error {
	tx, err := prober.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("try to fetch a job: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+fetchLockTimeout+"'"); err != nil {
		return fmt.Errorf("try to fetch a job: %w", err)
	}
	_, err = queries.RiverJobFetchTry(ctx, tx, &dbsqlc.RiverJobFetchTryParams{Queues: prober.fetchFrom})
	if err != nil {
		return fmt.Errorf("try to fetch a job: %w", err)
	}
	return nil
}

// reconnect opens the prober's own connection where there is none.
func (prober *prober) reconnect(ctx context.Context) error {
	if prober.conn != nil && !prober.conn.IsClosed() {
		return nil
	}
	conn, err := prober.connect(ctx)
	if err != nil {
		return err
	}
	prober.conn = conn
	return nil
}

// askServer returns the server's clock, and whether it takes no writes.
func askServer(ctx context.Context, conn *pgx.Conn) (now time.Time, readOnly bool, err error) {
	err = conn.QueryRow(ctx, `
		SELECT clock_timestamp(), pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
	`).Scan(&now, &readOnly)
	if err != nil {
		return now, false, fmt.Errorf("ask whether the server takes writes: %w", err)
	}
	return now, readOnly, nil
}

// replaceConnection puts a connection made now in the place of one to a server that takes
// no writes, if it leads to one that does.
func (prober *prober) replaceConnection(ctx context.Context) bool {
	conn, err := prober.connect(ctx)
	if err != nil {
		return false
	}
	_, readOnly, err := askServer(ctx, conn)
	if err != nil || readOnly {
		_ = conn.Close(ctx)
		return false
	}
	prober.disconnect()
	prober.conn = conn
	return true
}

// snapshot reads the schema's version and, where it fits, the loops.
func (prober *prober) snapshot(ctx context.Context, result *probeResult) error {
	schema, err := prober.readSchema(ctx)
	if err != nil {
		return err
	}
	result.schema = schema
	if _, wrong := schema.reason(); wrong {
		return nil
	}

	if prober.begunAt.IsZero() && !result.readOnly {
		if err := prober.begin(ctx); err != nil {
			return err
		}
	}
	if prober.unkept != nil {
		return prober.unkept
	}
	loops, err := ReadLoops(ctx, prober.conn)
	if err != nil {
		return err
	}
	own, err := prober.readOwn(ctx)
	if err != nil {
		return err
	}
	if !result.readOnly {
		if err := prober.rebase(ctx, loops); err != nil {
			return err
		}
	}
	result.loops, result.own = loops, own
	return nil
}

func (prober *prober) readSchema(ctx context.Context) (SchemaEvidence, error) {
	schema, err := migrations.ReadSchema(ctx, prober.conn)
	if err != nil {
		return SchemaEvidence{}, fmt.Errorf("look at the schema: %w", err)
	}
	return SchemaEvidence{Has: schema.Has, Known: true, MinBinary: schema.MinBinary, Needs: prober.config.SchemaVersion}, nil
}

func (prober *prober) readOwn(ctx context.Context) ([]OwnProgress, error) {
	if prober.begunAt.IsZero() {
		return nil, nil
	}
	rows, err := queries.LoopProgressListOwn(ctx, prober.conn, &dbsqlc.LoopProgressListOwnParams{
		Since:    prober.begunAt,
		WorkerID: prober.config.WorkerID,
	})
	if err != nil {
		return nil, fmt.Errorf("read own progress: %w", err)
	}
	own := make([]OwnProgress, len(rows))
	for i, row := range rows {
		own[i] = OwnProgress{
			ConsecutiveFailures: int(row.ConsecutiveFailures),
			FailedByBroker:      row.FailedByBroker,
			FailureAge:          row.FailureAge,
			HasSucceeded:        row.HasSucceeded,
			IsShared:            row.IsShared,
			LastError:           row.LastError,
			Loop:                row.Loop,
			SuccessAge:          row.SuccessAge,
		}
	}
	return own, nil
}

// rebase moves the baseline of each loop whose pause was made and ended in River
// alone, as [Resume] does for ours.
func (prober *prober) rebase(ctx context.Context, loops []LoopStatus) error {
	pausedBy := make(map[string]string)
	for _, loop := range loops {
		if loop.Paused {
			pausedBy[loop.Loop] = value(loop.PausedBy)
			continue
		}
		if prober.pausedBy[loop.Loop] != pausedByUnknown {
			continue
		}
		if err := queries.LoopContractRebase(ctx, pgtx.Exactly(prober.conn, 1), &dbsqlc.LoopContractRebaseParams{Loop: loop.Loop}); err != nil {
			return fmt.Errorf("move baseline of %s after its pause: %w", loop.Loop, err)
		}
	}
	prober.pausedBy = pausedBy
	return nil
}

// disconnect gives the connection up without waiting for the server.
func (prober *prober) disconnect() {
	if prober.conn == nil {
		return
	}
	conn := prober.conn
	prober.conn = nil
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), prober.config.StatementTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
}
