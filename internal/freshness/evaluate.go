package freshness

import (
	"maps"
	"slices"
	"time"
)

// State is what [Evaluate] remembers from tick to tick. The zero value is a
// process that has just started.
type State struct {
	badTicks   int
	begun      bool // has judged before
	fetchFrom  map[string]time.Duration
	goodTicks  int
	live       Finding
	lastBad    []Reason
	owedBy     map[string]time.Time // loops that must succeed once more, after this
	probedFrom time.Duration        // since then every probe could do what a fetch does
	probeGood  bool
	proven     bool
	ready      Finding
	startup    Finding
	wasReady   bool
}

// Finding is the answer to one of the three questions.
type Finding struct {
	OK      bool
	Reasons []Reason      // empty if OK, else at least one, the most telling first
	Since   time.Duration // when OK last changed, as [Evidence.At]
	Status  string
}

// Judgement is what one tick finds.
type Judgement struct {
	DB      DBState
	Info    []Reason // worth knowing, and no reason to be unready
	Live    Finding
	Ready   Finding
	Startup Finding
}

// Evaluate judges one tick. It has no clock and no memory but state, so the same
// ticks always end in the same answers.
//
// Ready turns red after two bad ticks, at once for what no further tick would
// change, and never for one failed probe. It turns green after two good ticks,
// not before [Limits.LeastRed], and only when every loop that was red succeeded
// once more.
func Evaluate(state State, evidence Evidence, limits Limits) (State, Judgement) {
	state = state.observe(evidence)
	state.startup = state.judgeStartup(evidence)
	state.live = state.judgeLive(evidence, limits)
	state = state.turnReady(evidence, limits, state.readyReasons(evidence, limits))
	state.begun = true
	return state, Judgement{
		DB:      evidence.DB.state(),
		Info:    info(evidence),
		Live:    state.live,
		Ready:   state.ready,
		Startup: state.startup,
	}
}

// observe notes since when fetches and probes may be missed.
func (state State) observe(evidence Evidence) State {
	state.fetchFrom = maps.Clone(state.fetchFrom)
	if state.fetchFrom == nil {
		state.fetchFrom = make(map[string]time.Duration)
	}
	state.owedBy = maps.Clone(state.owedBy)
	if state.owedBy == nil {
		state.owedBy = make(map[string]time.Time)
	}
	for _, loop := range evidence.Loops {
		if loop.Paused {
			state.fetchFrom[loop.Queue] = evidence.At
		}
	}

	good := evidence.DB.NumFailed == 0 && evidence.DB.Schema.Known && evidence.FetchError == nil
	if good && !state.probeGood {
		state.probedFrom = evidence.At
	}
	state.probeGood = good

	if !state.proven {
		state.proven = proven(evidence)
	}
	return state
}

// proven says that the loops that this process works are green, or that it has
// had a success of its own.
func proven(evidence Evidence) bool {
	if !evidence.HasSnapshot || !evidence.RiverStarted {
		return false
	}
	for _, own := range evidence.Own {
		if own.HasSucceeded {
			return true
		}
	}
	for _, loop := range evidence.required() {
		if loop.Verdict.Red() || loop.Verdict == VerdictStarting {
			return false
		}
	}
	return true
}

// works says that this process works the queue.
func (evidence Evidence) works(queue string) bool {
	return slices.ContainsFunc(evidence.Queues, func(own QueueEvidence) bool { return own.Name == queue })
}

// required are the loops that gate this process: required ones of its queues that
// nobody paused.
func (evidence Evidence) required() []LoopStatus {
	var loops []LoopStatus
	for _, loop := range evidence.Loops {
		if loop.Required && !loop.Paused && evidence.works(loop.Queue) {
			loops = append(loops, loop)
		}
	}
	return loops
}

// turnReady applies the hysteresis to what this tick found wrong.
func (state State) turnReady(evidence Evidence, limits Limits, reasons []Reason) State {
	if len(reasons) > 0 {
		state.badTicks++
		state.goodTicks = 0
	} else {
		state.badTicks = 0
		state.goodTicks++
	}
	if !state.begun {
		state.ready.Since = evidence.At
	}

	if state.ready.OK {
		immediate := slices.ContainsFunc(reasons, func(reason Reason) bool { return reason.Code.immediate() })
		if !immediate && state.badTicks < ticksToRed {
			return state
		}
		clear(state.owedBy)
		state.ready = Finding{Since: evidence.At}
	}

	if len(reasons) > 0 {
		state.lastBad = reasons
		state.oweSuccess(evidence, reasons)
	}
	// A process that never was ready has no red time to wait for.
	waited := !state.wasReady || evidence.At-state.ready.Since >= limits.LeastRed
	if state.goodTicks >= ticksToGreen && waited && state.paid(evidence) {
		state.wasReady = true
		state.ready = Finding{OK: true, Since: evidence.At, Status: "ready"}
		return state
	}

	state.ready.Reasons = state.lastBad
	if len(state.lastBad) == 0 {
		state.ready.Reasons = []Reason{newReason(CodeStarting, "good for one tick, ready after %d", ticksToGreen)}
	}
	switch {
	case state.ready.Reasons[0].Code == CodeStarting:
		state.ready.Status = "starting"
	case len(reasons) == 0:
		state.ready.Status = "recovering"
	default:
		state.ready.Status = "not_ready"
	}
	return state
}

// oweSuccess notes the last success of each loop that is red: only a newer one
// makes it green.
func (state State) oweSuccess(evidence Evidence, reasons []Reason) {
	for _, reason := range reasons {
		for _, loop := range evidence.Loops {
			// Of a loop that could not be read it is not known that it was red.
			if reason.Loop != "" && loop.Loop == reason.Loop && loop.Verdict != VerdictUnknown {
				state.owedBy[loop.Loop] = value(loop.LastSuccessAt)
			}
		}
	}
}

// paid says that every loop that was red has succeeded since, or was paused.
func (state State) paid(evidence Evidence) bool {
	for _, loop := range evidence.required() {
		if owedSince, ok := state.owedBy[loop.Loop]; ok && !value(loop.LastSuccessAt).After(owedSince) {
			return false
		}
	}
	return true
}

// turn keeps the instant of the last change.
func (finding Finding) turn(state State, at time.Duration, reasons []Reason, good, bad string) Finding {
	next := Finding{OK: len(reasons) == 0, Reasons: reasons, Since: finding.Since, Status: good}
	if !next.OK {
		next.Status = bad
	}
	if !state.begun || next.OK != finding.OK {
		next.Since = at
	}
	return next
}

// judgeStartup is true for ever once it was: an outage must not bring it back.
func (state State) judgeStartup(evidence Evidence) Finding {
	if state.startup.OK {
		return state.startup
	}
	var reasons []Reason
	if reason, wrong := evidence.DB.Schema.reason(); wrong {
		reasons = append(reasons, reason)
	}
	if !evidence.DB.Schema.Known || !evidence.HasSnapshot || !evidence.RiverStarted {
		reasons = append(reasons, newReason(CodeStarting, "waits for %s", missing(evidence)).
			observed("schema_read", evidence.DB.Schema.Known).
			observed("loops_read", evidence.HasSnapshot).
			observed("river_started", evidence.RiverStarted))
	}
	return state.startup.turn(state, evidence.At, reasons, "started", "starting")
}

func missing(evidence Evidence) string {
	switch {
	case !evidence.DB.Schema.Known:
		return "the database to answer"
	case !evidence.HasSnapshot:
		return "the first reading of the loops"
	default:
		return "River's client to start"
	}
}

// judgeLive uses this process's own evidence alone: an outage of database or
// broker must not restart a fleet.
func (state State) judgeLive(evidence Evidence, limits Limits) Finding {
	var reasons []Reason
	if evidence.DB.PinnedFor > limits.Pinned {
		reasons = append(reasons, newReason(CodeDBReadOnly,
			"held by a read-only server for %s, where a new connection is not", short(evidence.DB.PinnedFor)).
			observed("pinned_for", evidence.DB.PinnedFor).
			threshold("pinned_after", limits.Pinned))
	}
	for _, queue := range evidence.Queues {
		if queue.stuck() && queue.LeastOverrun > limits.SlotsStuck {
			reasons = append(reasons, stuckReason(queue, limits.SlotsStuck))
		}
		// What the database refuses or delays is no evidence against this process. After
		// that fetches get the same time again.
		if !evidence.RiverStarted || !state.probeGood || queue.saturated() {
			continue
		}
		age := min(state.fetchAge(evidence, queue), evidence.At-state.probedFrom)
		if age > limits.FetchWedged && !queue.stuck() {
			reasons = append(reasons, fetchReason(queue, age, limits.FetchWedged))
		}
	}
	return state.live.turn(state, evidence.At, reasons, "live", "not_live")
}

// fetchAge is how long a fetch has been missed: not while the queue was paused.
func (state State) fetchAge(evidence Evidence, queue QueueEvidence) time.Duration {
	if from, ok := state.fetchFrom[queue.Name]; ok {
		return min(queue.FetchAge, evidence.At-from)
	}
	return queue.FetchAge
}
