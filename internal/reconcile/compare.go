package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
)

// comparison is of one stream.
type comparison struct {
	compared    bool // findings and result are whole, but for what was adopted
	conn        *pgx.Conn
	findings    []Finding
	mendable    []bool         // of findings, which can be adopted
	numMendable map[Kind]int64 // of all, told or not
	options     Options
	result      StreamResult
	stream      *dbsqlc.ReconcileStreamListRow
	unadopted   map[uuid.UUID]bool // could be adopted when compared, and no more when it came to that
}

// run compares and, if told to, adopts.
func (comparison *comparison) run(ctx context.Context, source Source) error {
	comparison.numMendable = make(map[Kind]int64)
	comparison.unadopted = make(map[uuid.UUID]bool)
	comparison.result = StreamResult{Counts: make(map[Kind]Count), Stream: comparison.stream.Stream}
	// For each stream: what is adopted of the one before is planned otherwise.
	if err := dbsqlc.New().ReconcilePlanScans(ctx, comparison.conn); err != nil {
		return fmt.Errorf("set up planner: %w", err)
	}
	if _, err := comparison.conn.Exec(ctx, emptyTables); err != nil {
		return fmt.Errorf("empty temporary tables: %w", err)
	}
	// Before the broker is asked for its end: what is published later by this clock
	// may lie behind that end, and what is published earlier may not.
	startedAt, err := dbsqlc.New().ClockNow(ctx, comparison.conn)
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	reader := &reader{conn: comparison.conn}
	extent, err := reader.read(ctx, source, comparison.stream.Stream)
	if err != nil {
		return err
	}
	comparison.result.Extent, comparison.result.NumMessages = extent, reader.numMessages

	if err := comparison.keepScope(ctx, startedAt); err != nil {
		return err
	}
	if err := comparison.prepare(ctx); err != nil {
		return err
	}
	if err := comparison.count(ctx); err != nil {
		return err
	}
	for _, check := range checks() {
		if err := comparison.find(ctx, check); err != nil {
			return err
		}
	}
	comparison.compared = true
	if !comparison.options.Adopt {
		return nil
	}
	return comparison.adopt(ctx)
}

// keepScope stores what all statements need to know, once the broker was read.
func (comparison *comparison) keepScope(ctx context.Context, startedAt time.Time) error {
	extent, stream := comparison.result.Extent, comparison.stream
	var unmarkedBefore *time.Time // nil: whatever its age
	if comparison.options.Grace > 0 {
		before := startedAt.Add(-comparison.options.Grace)
		unmarkedBefore = &before
	}
	var keptFor *time.Duration // nil: for ever, or not even for a moment
	if extent.Retention.MaxAge > 0 && !extent.Retention.AnyAge {
		keptFor = &extent.Retention.MaxAge
	}
	_, err := comparison.conn.Exec(ctx, insertScope, int64(extent.First), stream.JobKind, stream.KeySeqSource, int64(extent.Last), extent.Name,
		stream.NumShards, stream.ParkPolicy, startedAt, stream.Stream, unmarkedBefore, extent.Retention.AnyAge, keptFor)
	if err != nil {
		return fmt.Errorf("store what is compared: %w", err)
	}
	return nil
}

// prepare fills the tables in which the checks look, with the rows and the jobs as
// they were at one instant after the broker was read.
func (comparison *comparison) prepare(ctx context.Context) error {
	if err := execAll(ctx, comparison.conn, readSteps()); err != nil {
		return err
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead}
	err := pgx.BeginTxFunc(ctx, comparison.conn, options, func(tx pgx.Tx) error { return execAll(ctx, tx, snapshotSteps()) })
	if err != nil {
		return fmt.Errorf("take the database's snapshot: %w", err)
	}
	return execAll(ctx, comparison.conn, compareSteps())
}

// step is a statement and what it does.
type step struct{ act, sql string }

func execAll(ctx context.Context, db dbsqlc.DBTX, steps []step) error {
	for _, step := range steps {
		if _, err := db.Exec(ctx, step.sql); err != nil {
			return fmt.Errorf("%s: %w", step.act, err)
		}
	}
	return nil
}

func (comparison *comparison) count(ctx context.Context) error {
	result := &comparison.result
	err := comparison.conn.QueryRow(ctx, countAll).Scan(
		&result.NumExpired,
		&result.NumForgot,
		&result.NumInFlight,
		&result.NumRecent,
		&result.NumRepeats,
		&result.NumRows.Discarded,
		&result.NumRows.Parked,
		&result.NumRows.Published,
		&result.NumRows.Undelivered,
	)
	if err != nil {
		return fmt.Errorf("count both sides: %w", err)
	}
	return nil
}

// check is one kind of finding and the query for it: key, event_id, sequence,
// detail and whether it can be adopted, NULL for what it does not have.
type check struct {
	kind Kind
	sql  string
}

// find runs one check, and keeps its first findings and the number of all.
func (comparison *comparison) find(ctx context.Context, check check) error {
	rows, err := comparison.conn.Query(ctx, fmt.Sprintf(countedFindings, check.sql), comparison.options.MaxFindings)
	if err != nil {
		return fmt.Errorf("look for %s: %w", check.kind, err)
	}
	finding := Finding{Kind: check.kind, Stream: comparison.stream.Stream}
	var isMendable bool
	var numMendable, sequence, total int64
	scans := []any{&finding.Key, &finding.EventID, &sequence, &finding.Detail, &isMendable, &numMendable, &total}
	_, err = pgx.ForEachRow(rows, scans, func() error {
		finding.Sequence = uint64(sequence)
		comparison.findings = append(comparison.findings, finding)
		comparison.mendable = append(comparison.mendable, isMendable)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for %s: %w", check.kind, err)
	}
	if total > 0 {
		comparison.numMendable[check.kind] = numMendable
		comparison.result.Counts[check.kind] = Count{Total: total}
	}
	return nil
}
