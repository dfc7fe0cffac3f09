package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/pgtx"
)

const (
	// MaxDecided is how many events one decision may be about.
	MaxDecided = 100_000

	// numFirst is how many events a preview tells of.
	numFirst = 5

	// numSelections is how often a decision looks anew for what matches, where an
	// event stopped being parked between the look and the decision.
	numSelections = 3

	// decideTimeout bounds one decision: half a minute for a lease that may still
	// deliver an event, and time to write what was decided on every event.
	decideTimeout = "5min"
)

// SQLSTATEs of what the database refuses.
const (
	stateInvalidParameter = "22023"
	stateNotAvailable     = "55P03"
	stateNotParked        = "55000"
)

// Act is what an operator does with undelivered events.
type Act string

// The acts.
const (
	// ActDiscard gives events up for good, parked or not. A gap marker takes the place
	// of each.
	ActDiscard Act = "discard"
	// ActRedrive makes parked events due again, as if they had never failed.
	ActRedrive Act = "redrive"
)

// ParkedSelection is what a decision is about: EventIDs, or if there are none the parked
// events that Filter matches, which must restrict. All of EventIDs must be parked; for
// [ActDiscard] it is enough that they are not delivered.
type ParkedSelection struct {
	EventIDs []uuid.UUID
	Filter   ParkedFilter
}

// Decision is what an operator decides about undelivered events.
type Decision struct {
	Act       Act
	By        string // who decides, in 1 to 200 characters; recorded
	Reason    string // why, in 1 to 1000 characters; recorded
	Selection ParkedSelection
}

// Decided is what a decision was about, or would be.
type Decided struct {
	First     []ParkedEvent // the first few, told by a preview alone
	NumEvents int64
	Streams   []DecidedStream // in order of name, those without events left out
}

// DecidedStream is the part of one stream.
type DecidedStream struct {
	Name         string
	NumEvents    int64
	NumMarkers   int64 // of NumEvents: gap markers, which leave none behind
	ParkedBlocks bool  // later events of a key waited; if not, they went on
}

// PreviewDecision says what act would be about with this selection, and changes nothing.
// Nothing at all is no error. It fails as [Decide] does where that refuses the selection.
func PreviewDecision(ctx context.Context, db dbsqlc.DBTX, act Act, selection ParkedSelection) (Decided, error) {
	decided, err := preview(ctx, db, act, selection)
	if err != nil {
		return Decided{}, fmt.Errorf("preview decision: %w", err)
	}
	return decided, nil
}

func preview(ctx context.Context, db dbsqlc.DBTX, act Act, selection ParkedSelection) (Decided, error) {
	ids, err := selection.choose(ctx, db)
	if err != nil {
		return Decided{}, err
	}
	// What was selected by a filter is parked.
	unfit, err := queries.OutboxParkedUnfit(ctx, db, &dbsqlc.OutboxParkedUnfitParams{EventIds: selection.EventIDs, FitUnparked: act == ActDiscard})
	if err != nil {
		return Decided{}, fmt.Errorf("look at events: %w", err)
	}
	if len(unfit) > 0 {
		fit := "parked events can be redriven"
		if act == ActDiscard {
			fit = "undelivered events can be discarded"
		}
		return Decided{}, fault.Invalid("event %s is %s, and only %s", unfit[0].EventID, unfit[0].State, fit)
	}
	decided, err := countPerStream(ctx, db, ids)
	if err != nil {
		return Decided{}, err
	}
	decided.First, err = listParked(ctx, db, ids[:min(numFirst, len(ids))])
	return decided, err
}

// Decide does with all selected events what a person decided, or with none of them.
// A filter selects what matches at that moment, in the same transaction. What was
// done is recorded per event in outbox_intervention, and a job is assured for what
// became due by it. It waits, for up to half a minute, for a worker that may still
// deliver one of the events.
//
// Fails with [fault.KindInvalid] when an event is not parked, or to discard it when it is
// delivered or discarded already, when By or Reason are
// blank or too long, when the selection does not restrict, and above [MaxDecided]
// events; with [fault.KindNotFound] when nothing matches; with [fault.KindNotReady]
// when such a worker did not come to an end. Then nothing was changed.
func Decide(ctx context.Context, db pgtx.Beginner, decision Decision) (Decided, error) {
	if strings.TrimSpace(decision.By) == "" || strings.TrimSpace(decision.Reason) == "" {
		return Decided{}, fault.Invalid("%s events: it must be said who decides, and why", decision.Act)
	}
	for selections := 1; ; selections++ {
		var decided Decided
		err := pgtx.Do(ctx, db, func(tx pgx.Tx) error {
			var err error
			decided, err = decision.carryOut(ctx, tx)
			return err
		})
		if err == nil {
			return decided, nil
		}
		var refused *pgconn.PgError
		if !errors.As(err, &refused) {
			return Decided{}, fmt.Errorf("%s events: %w", decision.Act, err)
		}
		if refused.Code == stateNotParked && len(decision.Selection.EventIDs) == 0 && selections < numSelections {
			continue // it was published after all, or somebody else decided
		}
		// The database's text says which event, and begins with the act.
		switch refused.Code {
		case stateInvalidParameter, stateNotParked:
			return Decided{}, fault.Invalid("%s", refused.Message)
		case stateNotAvailable:
			return Decided{}, fault.NotReady("%s", refused.Message)
		}
		return Decided{}, fmt.Errorf("%s events: %w", decision.Act, err)
	}
}

func (decision *Decision) carryOut(ctx context.Context, tx pgx.Tx) (Decided, error) {
	if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '"+decideTimeout+"'"); err != nil {
		return Decided{}, fmt.Errorf("bound the decision: %w", err)
	}
	ids, err := decision.Selection.choose(ctx, tx)
	if err != nil {
		return Decided{}, err
	}
	if len(ids) == 0 {
		return Decided{}, fault.NotFound("no parked event matches; nothing was changed")
	}
	switch decision.Act {
	case ActDiscard:
		_, err = queries.OutboxParkedDiscard(ctx, tx, &dbsqlc.OutboxParkedDiscardParams{ByWhom: decision.By, EventIds: ids, Reason: decision.Reason})
	case ActRedrive:
		_, err = queries.OutboxParkedRedrive(ctx, tx, &dbsqlc.OutboxParkedRedriveParams{ByWhom: decision.By, EventIds: ids, Reason: decision.Reason})
	default:
		return Decided{}, fault.Invalid("there is no such act; there are %s and %s", ActDiscard, ActRedrive)
	}
	if err != nil {
		return Decided{}, fmt.Errorf("decide on %d events: %w", len(ids), err)
	}
	return countPerStream(ctx, tx, ids)
}

// choose returns the ids of what is selected.
func (selection *ParkedSelection) choose(ctx context.Context, db dbsqlc.DBTX) ([]uuid.UUID, error) {
	ids := selection.EventIDs
	if len(ids) == 0 {
		if selection.Filter == (ParkedFilter{}) {
			return nil, fault.Invalid("it must be said which events: name them, or what they have in common")
		}
		var err error
		if ids, _, err = selectParked(ctx, db, selection.Filter, MaxDecided+1); err != nil {
			return nil, err
		}
	}
	if len(ids) > MaxDecided {
		return nil, fault.Invalid("more than %d events match; take fewer at a time, for example by when they were parked", MaxDecided)
	}
	return ids, nil
}

func countPerStream(ctx context.Context, db dbsqlc.DBTX, ids []uuid.UUID) (Decided, error) {
	rows, err := queries.OutboxParkedPerStream(ctx, db, &dbsqlc.OutboxParkedPerStreamParams{EventIds: ids})
	if err != nil {
		return Decided{}, fmt.Errorf("count events per stream: %w", err)
	}
	var decided Decided
	for _, row := range rows {
		decided.NumEvents += row.NumEvents
		decided.Streams = append(decided.Streams, DecidedStream{
			Name:         row.Stream,
			NumEvents:    row.NumEvents,
			NumMarkers:   row.NumMarkers,
			ParkedBlocks: row.ParkPolicy == policyBlock,
		})
	}
	return decided, nil
}
