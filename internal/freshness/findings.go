package freshness

import (
	"slices"
	"time"
)

// readyReasons are what is wrong at this tick, the most telling first.
func (state State) readyReasons(evidence Evidence, limits Limits) []Reason {
	var reasons []Reason
	add := func(reason Reason) { reasons = append(reasons, reason) }

	if evidence.Draining {
		add(newReason(CodeDraining, "this process is shutting down"))
	}
	if taken := evidence.Taken; taken != nil {
		add(newReason(CodeWorkerIDTaken, "%s", taken).
			observed("other_started_at", timeText(&taken.StartedAt)).
			observed("other_seen", taken.SeenAge).
			threshold("free_after", taken.FreeAfter))
	}
	if reason, wrong := evidence.DB.Schema.reason(); wrong {
		add(reason)
	}
	if evidence.DB.ReadOnly {
		add(newReason(CodeDBReadOnly, "the database takes no writes"))
	}
	if evidence.DB.NumFailed >= failedProbesTooMany {
		add(newReason(CodeDBUnreachable, "%d probes in a row got no answer: %s", evidence.DB.NumFailed, evidence.DB.Error).
			observed("failed_probes", evidence.DB.NumFailed).
			threshold("failed_probes", failedProbesTooMany))
	}
	stale := evidence.HasSnapshot && evidence.SnapshotAge > limits.SnapshotStale
	if stale {
		add(newReason(CodeSnapshotStale, "the loops were last read %s ago, so nothing is known of them", short(evidence.SnapshotAge)).
			observed("snapshot_age", evidence.SnapshotAge).
			threshold("snapshot_stale_after", limits.SnapshotStale))
	}
	reasons = append(reasons, brokerReasons(evidence)...)
	reasons = append(reasons, state.queueReasons(evidence, limits)...)
	if evidence.HasSnapshot && !stale {
		reasons = append(reasons, ownReasons(evidence, limits)...)
		reasons = append(reasons, loopReasons(evidence)...)
	}
	if (!state.proven || awaitsBroker(evidence)) && len(reasons) == 0 {
		add(newReason(CodeStarting, "%s", unproven(evidence)))
	}
	return reasons
}

func unproven(evidence Evidence) string {
	if !evidence.DB.Schema.Known || !evidence.HasSnapshot || !evidence.RiverStarted {
		return "waits for " + missing(evidence)
	}
	if awaitsBroker(evidence) {
		return "waits for the broker's first answer"
	}
	return "waits for the first success of a loop that this process works"
}

// reason says why this binary must not run on this schema, if that is so.
func (schema SchemaEvidence) reason() (Reason, bool) {
	var reason Reason
	switch {
	case !schema.Known:
		return reason, false
	case schema.Has < schema.Needs:
		reason = newReason(CodeSchemaMismatch, "the database has migration %d, this binary needs %d: run truegreen migrate up", schema.Has, schema.Needs)
	case schema.MinBinary > schema.Needs:
		reason = newReason(CodeSchemaMismatch, "the database wants a binary that knows migration %d, this one knows %d: deploy a newer one", schema.MinBinary, schema.Needs)
	default:
		return reason, false
	}
	return reason.
		observed("database_has", schema.Has).
		threshold("binary_needs", schema.Needs).
		threshold("database_wants", schema.MinBinary), true
}

// queueReasons are of queues that this process has not fetched from.
func (state State) queueReasons(evidence Evidence, limits Limits) []Reason {
	if !evidence.RiverStarted {
		return nil
	}
	var reasons []Reason
	for _, queue := range evidence.Queues {
		age := state.fetchAge(evidence, queue)
		switch {
		case age <= limits.FetchStalled || queue.saturated():
		case queue.stuck():
			reasons = append(reasons, stuckReason(queue, 0))
		default:
			reasons = append(reasons, fetchReason(queue, age, limits.FetchStalled))
		}
	}
	return reasons
}

func stuckReason(queue QueueEvidence, overrun time.Duration) Reason {
	return newReason(CodeSlotsStuck, "all %d slots of queue %s hold jobs past their timeout, the oldest for %s",
		queue.MaxWorkers, queue.Name, short(queue.OldestAge)).
		ofQueue(queue.Name).
		observed("least_overrun", queue.LeastOverrun).
		observed("num_in_flight", queue.NumInFlight).
		observed("oldest_age", queue.OldestAge).
		threshold("overrun", overrun).
		threshold("timeout", queue.Timeout)
}

func fetchReason(queue QueueEvidence, age, limit time.Duration) Reason {
	return newReason(CodeFetchStalled, "queue %s was last fetched from %s ago", queue.Name, short(age)).
		ofQueue(queue.Name).
		observed("fetch_age", age).
		observed("num_in_flight", queue.NumInFlight).
		threshold("fetch_stalled_after", limit)
}

// isOver says that failures in a row say nothing more about the process, though it had no
// pass to succeed in since: passes go to whoever asks first.
func (own OwnProgress) isOver(evidence Evidence, limits Limits, loop LoopStatus) bool {
	if own.IsShared && own.FailureAge > loop.LateAfter {
		return true
	}
	if !own.FailedByBroker {
		return false // the broker answers for nothing else
	}
	broker, known := evidence.brokerOf(loop.Loop)
	return known && broker.isGood() && own.FailureAge > limits.OwnFailures && broker.AnswerAge < own.FailureAge
}

// ownReasons are of loops that fail here, whatever other processes achieve.
func ownReasons(evidence Evidence, limits Limits) []Reason {
	var reasons []Reason
	for _, loop := range evidence.required() {
		for _, own := range evidence.Own {
			recent := own.HasSucceeded && own.SuccessAge <= loop.LateAfter
			if own.Loop != loop.Loop || own.ConsecutiveFailures < failedPassesTooMany || recent || own.isOver(evidence, limits, loop) {
				continue
			}
			reasons = append(reasons, newReason(CodeOwnFailures, "%s: %d passes of this process failed in a row: %s",
				loop.Loop, own.ConsecutiveFailures, own.LastError).
				ofLoop(loop.Loop).
				observed("own_failures", own.ConsecutiveFailures).
				threshold("late_after", loop.LateAfter).
				threshold("own_failures", failedPassesTooMany))
		}
	}
	return reasons
}

// loopReasons are of required loops that are red, and of queues that no loop is
// registered for.
func loopReasons(evidence Evidence) []Reason {
	var reasons []Reason
	for _, queue := range evidence.Queues {
		if !slices.ContainsFunc(evidence.Loops, func(loop LoopStatus) bool { return loop.Queue == queue.Name }) {
			reasons = append(reasons, newReason(CodeLoopStalled, "no loop is registered for queue %s", queue.Name).ofQueue(queue.Name))
		}
	}
	for _, loop := range evidence.required() {
		if loop.Verdict.Red() {
			reasons = append(reasons, loop.reason())
		}
	}
	return reasons
}

func timeText(at *time.Time) string {
	if at == nil {
		return "never"
	}
	return at.UTC().Format(time.RFC3339)
}

// info is what is worth knowing of the loops that this process works, and of the
// process itself. None of it makes it unready.
func info(evidence Evidence) []Reason {
	var reasons []Reason
	for _, loop := range evidence.Loops {
		if evidence.works(loop.Queue) {
			reasons = append(reasons, loop.info()...)
		}
	}
	for _, pool := range evidence.SaturatedPools {
		reasons = append(reasons, newReason(CodePoolSaturated, "every connection of pool %s is in use", pool).observed("pool", pool))
	}
	if skew := evidence.ClockSkew.Abs(); skew > maxClockSkew {
		reasons = append(reasons, newReason(CodeClockSkew, "the clocks of this process and the database are %s apart", short(skew)).
			observed("process_ahead_by", evidence.ClockSkew).
			threshold("skew", maxClockSkew))
	}
	return reasons
}
