package pgtx

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// AnyRows is the number of rows for a [Pipeline.Step] that may affect any.
const AnyRows = -1

// ErrRowCount is the cause of an error of [Pipeline.Send] or [Exactly] when a statement
// affected another number of rows than it was to.
var ErrRowCount = errors.New("the rows are not as they should be")

var (
	errAskedNothing = errors.New("a question must make one query")
	errNotInStep    = errors.New("a step takes statements without results; use Ask")
	errRecorded     = errors.New("the statement waits in the pipeline")
)

// DB is what generated queries run on.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// Pipeline collects statements that need nothing from each other's results, and
// sends them in one round trip. They run in their order; each sees what those
// before it did. The zero value is ready. It is used once.
type Pipeline struct {
	batch pgx.Batch
	steps []*step
}

// step is one statement of a pipeline, and what is done with its results.
type step struct {
	act      string
	ask      func(db DB) error // nil for a statement without results
	pipeline *Pipeline
	wantRows int64
}

// Step returns the place of the next statement; it stands in for the database in
// one call of a generated :exec query. act says what the statement does, for the
// error; wantRows is how many rows it must affect, or [AnyRows].
func (pipeline *Pipeline) Step(act string, wantRows int) DB {
	return &step{act: act, pipeline: pipeline, wantRows: int64(wantRows)}
}

// Ask adds a statement with results. query makes one call of a generated :many
// query on the db that it is given and keeps what it returns. It is called
// twice: now, when its call fails and tells the pipeline what to send, and by
// [Pipeline.Send] with the results. So it must do nothing else before that call
// has succeeded.
func (pipeline *Pipeline) Ask(act string, query func(db DB) error) error {
	asked := &step{act: act, ask: query, pipeline: pipeline}
	err := query(asked)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", act, errAskedNothing)
	case !errors.Is(err, errRecorded):
		return fmt.Errorf("%s: put into pipeline: %w", act, err)
	}
	return nil
}

// Send runs the statements in tx. Fails with the first that fails or affects
// another number of rows than its step wants; tx must then be rolled back.
func (pipeline *Pipeline) Send(ctx context.Context, tx pgx.Tx) (err error) {
	if len(pipeline.steps) == 0 {
		return nil
	}
	results := tx.SendBatch(ctx, &pipeline.batch)
	defer func() {
		if closeErr := results.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("end pipeline: %w", closeErr)
		}
	}()
	for _, sent := range pipeline.steps {
		if sent.ask != nil {
			if err := sent.ask(answer{results}); err != nil {
				return fmt.Errorf("%s: %w", sent.act, err)
			}
			continue
		}
		tag, err := results.Exec()
		if err != nil {
			return fmt.Errorf("%s: %w", sent.act, err)
		}
		if sent.wantRows == AnyRows {
			continue
		}
		if err := checkRows(tag.RowsAffected(), sent.wantRows); err != nil {
			return fmt.Errorf("%s: %w", sent.act, err)
		}
	}
	return nil
}

func (s *step) queue(sql string, args []any) {
	s.pipeline.batch.Queue(sql, args...)
	s.pipeline.steps = append(s.pipeline.steps, s)
}

// Exec puts the statement into the pipeline. Its command tag is empty.
func (s *step) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	s.queue(sql, args)
	return pgconn.CommandTag{}, nil
}

// Query puts the statement into the pipeline and fails: there are no rows yet.
func (s *step) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	if s.ask == nil {
		return nil, fmt.Errorf("%s: %w", s.act, errNotInStep)
	}
	s.queue(sql, args)
	return nil, errRecorded
}

// QueryRow returns a row whose Scan fails: a missing row could not be told from
// one that is not there yet.
func (s *step) QueryRow(context.Context, string, ...any) pgx.Row {
	return failedRow{fmt.Errorf("%s: %w", s.act, errNotInStep)}
}

// CopyFrom fails: a copy is no statement of a pipeline.
func (s *step) CopyFrom(context.Context, pgx.Identifier, []string, pgx.CopyFromSource) (int64, error) {
	return 0, fmt.Errorf("%s: %w", s.act, errNotInStep)
}

type failedRow struct{ err error }

func (row failedRow) Scan(...any) error { return row.err }

// answer gives the next results to a query that was recorded before.
type answer struct{ results pgx.BatchResults }

func (a answer) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return a.results.Exec() //nolint:wrapcheck // stands in for the database
}

func (a answer) Query(context.Context, string, ...any) (pgx.Rows, error) {
	return a.results.Query() //nolint:wrapcheck // stands in for the database
}

func (a answer) QueryRow(context.Context, string, ...any) pgx.Row {
	return a.results.QueryRow()
}

func (a answer) CopyFrom(context.Context, pgx.Identifier, []string, pgx.CopyFromSource) (int64, error) {
	return 0, errNotInStep
}
