package anomaly_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/audit"
	"truegreen/internal/dbtest"
	"truegreen/internal/dbtest/anomaly"
)

// whole is set by make proof: every statement is disturbed in every way. Without
// it, each statement fails once in each context, each commit loses its answer once
// in each, and one connection of each case is cut and one context cancelled.
var whole = os.Getenv("TRUEGREEN_PROOF") != ""

// operation is one thing that the system does.
type operation struct {
	// name is unique.
	name string

	// answersOnly says that another case has the statements.
	answersOnly bool

	// before makes the broker ready for a trial; may be nil.
	before func(ctx context.Context, t *testing.T)

	// answers is how many of the broker's answers get lost in turn, without make
	// proof; there all do.
	answers int

	// covers are the kinds of jobs, commands and probes that it is a case of.
	covers []string

	// desk is a database that several operations start from. Nil for one of its own.
	desk *world

	// setup makes what there is to do, on a new database.
	setup func(ctx context.Context, t *testing.T, db *dbtest.DB)

	// link leads to a real broker; nil for an operation that asks none.
	link *link

	// run does it once, through the proxy.
	run func(ctx context.Context, t *testing.T, trial *trial) outcome

	// state is the effect, in words that are the same whenever it is complete. Nil
	// for an operation that only reads: its output is its effect.
	state func(ctx context.Context, t *testing.T, trial *trial) string

	// finish runs what is left undisturbed, until the work is done. Nil for run
	// itself.
	finish func(ctx context.Context, t *testing.T, trial *trial)

	// check, if not nil, looks at what is peculiar to the operation after a
	// disturbed run.
	check func(ctx context.Context, t *testing.T, trial *trial, got outcome)
}

// trial is one run of an operation with at most one disturbance.
type trial struct {
	broker *broker
	cancel context.CancelFunc // of the operation, for [anomaly.Cancel]
	db     *dbtest.DB         // past the proxy
	fault  anomaly.Fault
	link   *link // to a real broker; nil for none
	proxy  *anomaly.Proxy
}

// Kinds of disturbances of the link to the broker.
const (
	loseAnswer anomaly.Kind = "lose_answer"
	cutAnswer  anomaly.Kind = "cut_answer"
)

// hit is what was disturbed; empty for nothing.
func (trial *trial) hit() string {
	if trial.fault.Kind != loseAnswer && trial.fault.Kind != cutAnswer {
		return trial.proxy.Hit()
	}
	if trial.link.answered() < trial.fault.Nth {
		return ""
	}
	return fmt.Sprintf("answer %d of the broker", trial.fault.Nth)
}

// outcome is what an operation says of itself.
type outcome struct {
	err       string // empty for none
	output    string // without what differs from run to run
	succeeded bool   // the loop of a job has recorded a success
	// unfinished says that a job was left to another attempt, without an error: it
	// was told to stop.
	unfinished bool
}

// undisturbed is how an operation goes when nothing is wrong.
type undisturbed struct {
	finished   string // the state in the end
	outcome    outcome
	ran        string // the state after one run
	started    string // the state before
	numAnswers int    // of the broker
	statements []anomaly.Statement
	world      *world
}

// loop disturbs an operation at one statement after the other.
func loop(t *testing.T, op *operation, done family) {
	ctx := t.Context()
	plain := &undisturbed{world: op.desk}
	if plain.world == nil {
		plain.world = newWorld(ctx, t, op.setup)
	}
	inOrder(t, "undisturbed", func(t *testing.T) {
		plain.learn(t, op)
	})
	if t.Failed() {
		return
	}
	for _, fault := range append(done.faults(op, plain.statements), plain.answerFaults(op)...) {
		name := fmt.Sprintf("%s_%s_%d", fault.Kind, strings.ReplaceAll(fault.Only, " ", "-"), fault.Nth)
		if fault.SQLState != "" {
			name += "_" + fault.SQLState
		}
		inOrder(t, name, func(t *testing.T) {
			ctx := t.Context()
			disturb(ctx, t, op, plain, newTrialOf(ctx, t, op, plain.world.give(ctx, t), fault))
		})
	}
}

func newTrial(ctx context.Context, t *testing.T, db *dbtest.DB, fault anomaly.Fault) *trial {
	t.Helper()
	return &trial{broker: newBroker(), db: db, fault: fault, proxy: anomaly.Start(t, db.URL)}
}

func newTrialOf(ctx context.Context, t *testing.T, op *operation, db *dbtest.DB, fault anomaly.Fault) *trial {
	t.Helper()
	trial := newTrial(ctx, t, db, fault)
	trial.link = op.link
	if op.before != nil {
		op.before(ctx, t)
	}
	return trial
}

// learn runs the operation undisturbed.
func (plain *undisturbed) learn(t *testing.T, op *operation) {
	ctx := t.Context()
	trial := newTrialOf(ctx, t, op, plain.world.give(ctx, t), anomaly.Fault{})
	plain.started = op.stateOf(ctx, t, trial)
	plain.outcome = trial.run(ctx, t, op)
	plain.statements = trial.proxy.Statements()
	if op.link != nil {
		plain.numAnswers = op.link.answered()
		require.Positive(t, plain.numAnswers, "nothing passed the link")
	}
	require.NotEmpty(t, plain.statements, "nothing passed the proxy")
	plain.ran = op.stateOf(ctx, t, trial)
	if op.finish != nil {
		op.finish(ctx, t, trial)
	}
	plain.finished = op.stateOf(ctx, t, trial)
	if op.state != nil {
		require.NotEqual(t, plain.started, plain.finished, "the operation has no effect that could be seen")
	}
	requireTrueBooks(ctx, t, trial.db)
}

// disturb runs the operation with one fault, and then again without.
func disturb(ctx context.Context, t *testing.T, op *operation, plain *undisturbed, trial *trial) {
	got := trial.run(ctx, t, op)
	if trial.hit() == "" {
		// It did not come so far this time: how often it polls is a matter of time.
		trial.fault = anomaly.Fault{}
	}
	state := op.stateOf(ctx, t, trial)
	complete := state == plain.ran && got.output == plain.outcome.output
	switch {
	case trial.fault.Kind == "":
		require.Equal(t, plain.outcome, got, "undisturbed, it went otherwise")
	case got.err == plain.outcome.err && !got.unfinished:
		require.Equal(t, plain.ran, state, "%s failed and nobody said so; the effect is not complete", trial.hit())
		require.Equal(t, plain.outcome.output, got.output, "%s failed and nobody said so; the output is not complete", trial.hit())
		require.Equal(t, plain.outcome.succeeded, got.succeeded, "%s failed, nobody said so, and the loop has not recorded its pass", trial.hit())
	case trial.fault.Kind == anomaly.Fail:
		require.Contains(t, got.err, anomaly.Message, "%s failed, and the error does not say why", trial.hit())
		requireNamesStep(t, got.err)
	case trial.fault.Kind != anomaly.Cancel && !complete:
		requireNamesStep(t, got.err)
	}
	if op.check != nil {
		op.check(ctx, t, trial, got)
	}
	if got.succeeded && state == plain.started {
		require.Equal(t, plain.ran, state, "%s failed, nothing moved, and the loop says that it succeeded", trial.hit())
	}
	if op.state == nil {
		return
	}
	requireTrueBooks(ctx, t, trial.db)

	trial.fault = anomaly.Fault{}
	switch {
	case op.finish != nil:
		op.finish(ctx, t, trial)
	case state != plain.finished:
		again := trial.run(ctx, t, op)
		require.Equal(t, plain.outcome.err, again.err, "the second run")
	}
	require.Equal(t, plain.finished, op.stateOf(ctx, t, trial), "the second run did not finish the work")
	requireTrueBooks(ctx, t, trial.db)
}

// run runs the operation once, with the trial's fault.
func (trial *trial) run(ctx context.Context, t *testing.T, op *operation) outcome {
	t.Helper()
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	trial.cancel = cancel
	fault := trial.fault
	fault.Cancel = func() { trial.cancel() }
	if trial.link != nil {
		trial.link.lose(0, false)
	}
	switch fault.Kind {
	case loseAnswer, cutAnswer:
		trial.link.lose(fault.Nth, fault.Kind == cutAnswer)
		trial.proxy.Arm(anomalyNone)
	default:
		trial.proxy.Arm(fault)
	}
	return op.run(runCtx, t, trial)
}

func (op *operation) stateOf(ctx context.Context, t *testing.T, trial *trial) string {
	t.Helper()
	if op.state == nil {
		return ""
	}
	return op.state(ctx, t, trial)
}

// family is what similar operations share, which run one after the other: the
// faults that one has borne are left out of the next.
type family map[string]bool

// faults are those that an operation must bear. Each statement fails in each of
// its contexts, which are told apart by the statement before it.
func (done family) faults(op *operation, statements []anomaly.Statement) []anomaly.Fault {
	if op.answersOnly {
		return nil
	}
	hash := fnv.New32()
	_, _ = hash.Write([]byte(op.name))
	drawn := int(hash.Sum32()) % len(statements)
	numOf := make(map[string]int)
	before := "start"
	var found []anomaly.Fault
	for i, statement := range statements {
		numOf[statement.Label]++
		add := func(kind anomaly.Kind, sqlState string) {
			found = append(found, anomaly.Fault{Kind: kind, Nth: numOf[statement.Label], Only: statement.Label, SQLState: sqlState})
		}
		context := before + " > " + statement.Label
		if whole || !done[context] {
			add(anomaly.Fail, "")
			if whole {
				add(anomaly.Fail, "40001")
				add(anomaly.Fail, "57014")
			}
			if whole || (statement.Commits && op.state != nil && (statement.Label == "commit" || !done["answer to "+statement.Label])) {
				add(anomaly.Lose, "")
				done["answer to "+statement.Label] = true
			}
		}
		if whole || i == drawn {
			add(anomaly.Cut, "")
			add(anomaly.Cancel, "")
		}
		done[context] = true
		before = statement.Label
	}
	return found
}

// answerFaults lose the broker's answers, or cut the connection instead of them.
func (plain *undisturbed) answerFaults(op *operation) []anomaly.Fault {
	most := plain.numAnswers
	if !whole {
		most = min(most, op.answers)
	}
	var found []anomaly.Fault
	for i := range most {
		// Spread over all of them.
		nth := 1 + i*plain.numAnswers/most
		found = append(found, anomaly.Fault{Kind: loseAnswer, Nth: nth})
		if whole || i == most-1 {
			found = append(found, anomaly.Fault{Kind: cutAnswer, Nth: nth})
		}
	}
	return found
}

// requireNamesStep wants more than what the database or the network said.
func requireNamesStep(t *testing.T, text string) {
	t.Helper()
	require.NotEmpty(t, text, "the operation failed and said nothing")
	before, _, _ := strings.Cut(text, anomaly.Message)
	before, _, _ = strings.Cut(before, "ERROR:")
	step, _, named := strings.Cut(before, ": ")
	require.True(t, named && len(strings.Fields(step)) > 0, "the error names no step: %s", text)
}

func requireTrueBooks(ctx context.Context, t *testing.T, db *dbtest.DB) {
	t.Helper()
	report, err := audit.Run(ctx, db.Pool, 20)
	require.NoError(t, err)
	require.Positive(t, report.NumAudits)
	require.Empty(t, report.Findings)
}

func scalar[T any](ctx context.Context, t *testing.T, db *dbtest.DB, query string, args ...any) T {
	t.Helper()
	var value T
	require.NoError(t, db.Pool.QueryRow(ctx, query, args...).Scan(&value), query)
	return value
}

func exec(ctx context.Context, t *testing.T, db *dbtest.DB, query string, args ...any) {
	t.Helper()
	_, err := db.Pool.Exec(ctx, query, args...)
	require.NoError(t, err, query)
}

// loopAll disturbs operations that are similar, one after the other.
func loopAll(t *testing.T, operations []*operation) {
	done := make(family)
	for _, op := range operations {
		inOrder(t, op.name, func(t *testing.T) {
			loop(t, op, done)
		})
	}
}

// outcomeOf is what an operation says that returns nothing but an error.
func outcomeOf(err error) outcome {
	if err != nil {
		return outcome{err: err.Error()}
	}
	return outcome{}
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// inOrder runs a subtest that is parallel to none of its siblings: they share a
// database, and each leaves out what the ones before have borne.
func inOrder(t *testing.T, name string, subtest func(t *testing.T)) {
	t.Helper()
	t.Run(name, subtest)
}
