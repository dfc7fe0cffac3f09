package crash_test

import (
	"context"
	"regexp"
	"sync"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/outbox"
)

// hookedPublisher is the real publisher, in a process that may die around it.
type hookedPublisher struct {
	child *child
	inner outbox.Publisher
}

func (publisher *hookedPublisher) Prove(ctx context.Context, stream outbox.Stream) error {
	return publisher.inner.Prove(ctx, stream)
}

func (publisher *hookedPublisher) Publish(ctx context.Context, events []outbox.Event) []outbox.Outcome {
	c := publisher.child
	frozen := false
	switch c.order.Step {
	case stepAfterClaim:
		if c.comes() {
			c.die(idsOf(events))
		}
	case stepBeforeAcknowledgment:
		if c.comes() {
			c.arm(idsOf(events))
		}
	case stepFreezeBeforeSend, stepFreezeWithinSend:
		if frozen = c.comes(); frozen {
			c.freeze(idsOf(events))
		}
		if frozen && c.order.Step == stepFreezeWithinSend {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), c.order.tempo().ackTimeout)
			defer cancel()
		}
	case stepPoison:
		if holds(events, c.order.Poison) {
			c.die(idsOf(events))
		}
	default:
	}

	outcomes := publisher.inner.Publish(ctx, events)
	acknowledged := acknowledgedOf(events, outcomes)
	switch {
	case frozen:
		c.report(reportSent, acknowledged)
	case c.armed.Load():
		select {} // until an acknowledgement was withheld from somebody
	case len(acknowledged) == 0:
	case c.order.Step == stepAfterAcknowledgement && c.comes():
		c.die(acknowledged)
	case c.order.Step == stepFreezeAfterSend && c.comes():
		c.freeze(acknowledged)
		c.report(reportSent, acknowledged)
	}
	return outcomes
}

func idsOf(events []outbox.Event) []int64 {
	ids := make([]int64, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	return ids
}

func acknowledgedOf(events []outbox.Event, outcomes []outbox.Outcome) []int64 {
	var ids []int64
	for i := range outcomes {
		if outcomes[i].Class == outbox.ClassAcknowledged {
			ids = append(ids, events[i].ID)
		}
	}
	return ids
}

func holds(events []outbox.Event, eventID string) bool {
	for i := range events {
		if events[i].EventID.String() == eventID {
			return true
		}
	}
	return false
}

// tracer kills the process around a statement.
type tracer struct {
	child      *child
	committing map[*pgx.Conn][]int64 // the events of transactions that hold the statement
	mu         sync.Mutex
	place      place
}

type tracedKey struct{}

// traced is a statement on its way.
type traced struct {
	ids  []int64
	name string
}

var statementName = regexp.MustCompile(`^\s*-- name: (\w+)`)

// TraceQueryStart notes what is being done.
func (tracer *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	statement := traced{name: data.SQL}
	if match := statementName.FindStringSubmatch(data.SQL); match != nil {
		statement.name = match[1]
	}
	for _, arg := range data.Args {
		if ids, ok := arg.([]int64); ok {
			statement.ids = ids
			break
		}
	}
	if tracer.place == (place{momentBefore, statement.name}) && tracer.child.comes() {
		tracer.child.die(nil)
	}
	return context.WithValue(ctx, tracedKey{}, statement)
}

// TraceQueryEnd comes once the database has answered.
func (tracer *tracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	statement, ok := ctx.Value(tracedKey{}).(traced)
	if !ok || data.Err != nil {
		return
	}
	// A lease that was not to be had is none.
	hasDone := data.CommandTag.RowsAffected() > 0 || !data.CommandTag.Update()
	tracer.mu.Lock()
	ids, isCommitting := tracer.committing[conn]
	switch {
	case statement.name == "commit", statement.name == "rollback":
		delete(tracer.committing, conn)
	case tracer.place == (place{momentCommitted, statement.name}) && hasDone:
		tracer.committing[conn] = statement.ids
	}
	tracer.mu.Unlock()

	isAfter := tracer.place == (place{momentAfter, statement.name}) && hasDone
	switch {
	case isAfter && tracer.child.comes():
		tracer.child.die(statement.ids)
	case isCommitting && statement.name == "commit" && tracer.child.comes():
		tracer.child.die(ids)
	}
}
