package settle_test

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"
)

// tracer acts around a statement.
type tracer struct {
	child   *child
	holding map[*pgx.Conn]bool // transactions that hold the statement
	mu      sync.Mutex
}

type tracedKey struct{}

var statementName = regexp.MustCompile(`^\s*-- name: (\w+)`)

func nameOf(sql string) string {
	if match := statementName.FindStringSubmatch(sql); match != nil {
		return match[1]
	}
	if strings.HasPrefix(strings.TrimSpace(sql), statementActivity) {
		return statementActivity
	}
	return sql
}

// TraceQueryStart notes what is being done.
func (tracer *tracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return tracer.start(ctx, conn, nameOf(data.SQL))
}

// TraceQueryEnd comes once the database has answered.
func (tracer *tracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	tracer.end(ctx, conn, data.Err)
}

// TraceCopyFromStart is TraceQueryStart for a copy.
func (tracer *tracer) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	return tracer.start(ctx, conn, "copy "+strings.Join(data.TableName, "."))
}

// TraceCopyFromEnd is TraceQueryEnd for a copy.
func (tracer *tracer) TraceCopyFromEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromEndData) {
	tracer.end(ctx, conn, data.Err)
}

func (tracer *tracer) start(ctx context.Context, conn *pgx.Conn, name string) context.Context {
	c := tracer.child
	job := jobOf(ctx)
	if job != 0 && strings.HasPrefix(name, "Settlement") && c.frozenJob.CompareAndSwap(job, 0) {
		c.report(report{Kind: reportTried, Statement: name})
	}
	if c.order.Place == (place{momentBefore, name}) {
		c.arrive(ctx, addressOf(conn))
	}
	if c.order.Place.Moment == momentOnItsWay && name == "commit" && tracer.takes(conn) {
		c.arrive(ctx, addressOf(conn))
	}
	return context.WithValue(ctx, tracedKey{}, name)
}

func (tracer *tracer) end(ctx context.Context, conn *pgx.Conn, err error) {
	name, ok := ctx.Value(tracedKey{}).(string)
	if !ok || err != nil {
		return
	}
	c := tracer.child
	switch {
	case name == "commit" && c.order.Place.Moment == momentCommitted:
		if tracer.takes(conn) {
			c.arrive(ctx, addressOf(conn))
		}
	case name == "rollback":
		tracer.takes(conn)
	case name != c.order.Place.Statement:
	case c.order.Place.Moment == momentAfter:
		c.arrive(ctx, addressOf(conn))
	default:
		tracer.mu.Lock()
		tracer.holding[conn] = true
		tracer.mu.Unlock()
	}
}

// takes reports whether a transaction that ends holds the statement.
func (tracer *tracer) takes(conn *pgx.Conn) bool {
	tracer.mu.Lock()
	defer tracer.mu.Unlock()
	isHolding := tracer.holding[conn]
	delete(tracer.holding, conn)
	return isHolding
}

// jobKey is of the id of the job on whose behalf a statement is.
type jobKey struct{}

func withJob(ctx context.Context, job *rivertype.JobRow, work func(context.Context) error) error {
	return work(context.WithValue(ctx, jobKey{}, job.ID))
}

// jobOf is 0 for who asks, and for River itself.
func jobOf(ctx context.Context) int64 {
	id, _ := ctx.Value(jobKey{}).(int64)
	return id
}

func addressOf(conn *pgx.Conn) string { return conn.PgConn().Conn().LocalAddr().String() }
