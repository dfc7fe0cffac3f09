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

	// changesTables says that it makes or drops tables.
	changesTables bool

	// covers are the kinds of jobs, commands and probes that it is a case of.
	covers []string

	// setup makes what there is to do, on a new database.
	setup func(ctx context.Context, t *testing.T, db *dbtest.DB)

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
	proxy  *anomaly.Proxy
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
	statements []anomaly.Statement
	world      *world
}

// loop disturbs an operation at one statement after the other.
func loop(t *testing.T, op *operation, done family) {
	ctx := t.Context()
	plain := &undisturbed{world: newWorld(ctx, t, op)}
	t.Run("undisturbed", func(t *testing.T) { //nolint:paralleltest // what follows needs what it learns
		plain.learn(t, op)
	})
	if t.Failed() {
		return
	}
	for _, fault := range done.faults(op, plain.statements) {
		name := fmt.Sprintf("%s_%s_%d", fault.Kind, strings.ReplaceAll(fault.Only, " ", "-"), fault.Nth)
		if fault.SQLState != "" {
			name += "_" + fault.SQLState
		}
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // they share a database
			ctx := t.Context()
			disturb(ctx, t, op, plain, newTrial(ctx, t, plain.world.give(ctx, t), fault))
		})
	}
}

func newTrial(ctx context.Context, t *testing.T, db *dbtest.DB, fault anomaly.Fault) *trial {
	t.Helper()
	return &trial{broker: newBroker(), db: db, fault: fault, proxy: anomaly.Start(t, db.URL)}
}

// learn runs the operation undisturbed.
func (plain *undisturbed) learn(t *testing.T, op *operation) {
	ctx := t.Context()
	trial := newTrial(ctx, t, plain.world.give(ctx, t), anomaly.Fault{})
	plain.started = op.stateOf(ctx, t, trial)
	plain.outcome = trial.run(ctx, t, op)
	plain.statements = trial.proxy.Statements()
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
	if trial.proxy.Hit() == "" {
		// It did not come so far this time: how often it polls is a matter of time.
		trial.fault = anomaly.Fault{}
	}
	state := op.stateOf(ctx, t, trial)
	complete := state == plain.ran && got.output == plain.outcome.output
	switch {
	case trial.fault.Kind == "":
		require.Equal(t, plain.outcome, got, "undisturbed, it went otherwise")
	case got.err == plain.outcome.err && !got.unfinished:
		require.Equal(t, plain.ran, state, "%s failed and nobody said so; the effect is not complete", trial.proxy.Hit())
		require.Equal(t, plain.outcome.output, got.output, "%s failed and nobody said so; the output is not complete", trial.proxy.Hit())
	case trial.fault.Kind == anomaly.Fail:
		require.Contains(t, got.err, anomaly.Message, "%s failed, and the error does not say why", trial.proxy.Hit())
		requireNamesStep(t, got.err)
	case trial.fault.Kind != anomaly.Cancel && !complete:
		requireNamesStep(t, got.err)
	}
	if op.check != nil {
		op.check(ctx, t, trial, got)
	}
	if got.succeeded && state == plain.started {
		require.Equal(t, plain.ran, state, "%s failed, nothing moved, and the loop says that it succeeded", trial.proxy.Hit())
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
	trial.proxy.Arm(fault)
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
			if whole || (statement.Commits && op.state != nil) {
				add(anomaly.Lose, "")
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
		t.Run(op.name, func(t *testing.T) { //nolint:paralleltest // each leaves out what the one before has borne
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
