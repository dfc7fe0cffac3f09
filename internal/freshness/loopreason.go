package freshness

import (
	"fmt"
	"strings"
)

// reason says why a red loop is red.
func (loop LoopStatus) reason() Reason {
	var reason Reason
	switch loop.Verdict {
	case VerdictUnknown:
		return newReason(CodeSnapshotStale, "%s: could not be read, so nothing is known of it: %s", loop.Loop, value(loop.LastError)).
			ofLoop(loop.Loop)
	case VerdictSilentNoop:
		reason = newReason(CodeSilentNoop, "%s: jobs complete, but no pass has proven anything for %s", loop.Loop, short(loop.Age)).
			observed("last_completed_job_at", timeText(loop.LastCompletedJobAt)).
			threshold("late_after", loop.LateAfter)
	case VerdictFailing:
		reason = loop.failingReason()
	default:
		reason = loop.stalledReason()
	}
	reason = reason.ofLoop(loop.Loop).
		observed("age", loop.Age).
		observed("consecutive_failures", loop.ConsecutiveFailures).
		observed("last_success_at", timeText(loop.LastSuccessAt)).
		threshold("red_after", loop.RedAfter)
	if loop.OldestDueAge != nil {
		reason = reason.observed("oldest_due_age", *loop.OldestDueAge)
	}
	return reason
}

// failingReason says which of the rules for failing holds: the passes fail, or they ended
// what they had to do without doing it.
func (loop LoopStatus) failingReason() Reason {
	passesFail := loop.ConsecutiveFailures >= failedPassesTooMany && (loop.Age > loop.LateAfter || loop.onlyFailed())
	if !passesFail {
		return newReason(CodeLoopFailing, "%s: %s paid nobody or ended aborted, without an acknowledgement: truegreen status",
			loop.Loop, numOf(loop.NumFailed, "run")).
			observed("num_failed", loop.NumFailed)
	}
	return newReason(CodeLoopFailing, "%s: %s, and the last %d passes failed: %s",
		loop.Loop, loop.noSuccess(), loop.ConsecutiveFailures, value(loop.LastError)).
		threshold("late_after", loop.LateAfter).
		threshold("failures", failedPassesTooMany)
}

// onlyFailed says that the loop owes its first success; a scheduled one does only while
// something is due.
func (loop LoopStatus) onlyFailed() bool {
	return loop.LastSuccessAt == nil && (!loop.Scheduled || loop.OldestDueAge != nil)
}

func (loop LoopStatus) stalledReason() Reason {
	if loop.Age <= loop.RedAfter && loop.StuckPart != nil {
		return newReason(CodeLagNoProgress, "%s: shard %s has had an event due for %s, and none was acknowledged in that time",
			loop.Loop, *loop.StuckPart, short(value(loop.OldestDueAge))).
			observed("stuck_part", *loop.StuckPart).
			threshold("item_red_after", value(loop.ItemRedAfter))
	}
	return newReason(CodeLoopStalled, "%s: %s, red after %s", loop.Loop, loop.noSuccess(), short(loop.RedAfter))
}

// noSuccess says what the loop's age counts from.
func (loop LoopStatus) noSuccess() string {
	switch {
	case loop.Scheduled: // only while a run is due, its age is not 0
		return fmt.Sprintf("its oldest due run has waited %s", short(loop.Age))
	case loop.LastSuccessAt == nil:
		return fmt.Sprintf("no success since it was created or resumed %s ago", short(loop.Age))
	default:
		return fmt.Sprintf("no success for %s", short(loop.Age))
	}
}

// info is what is worth knowing of a loop: also why it is red, if it is advisory.
func (loop LoopStatus) info() []Reason {
	if loop.Paused {
		return []Reason{loop.pausedReason()}
	}
	if loop.Verdict.Red() {
		if loop.Required {
			return nil
		}
		return []Reason{loop.reason()}
	}

	var reasons []Reason
	if loop.OldestDueAge != nil && loop.ItemRedAfter != nil && *loop.OldestDueAge > *loop.ItemRedAfter {
		reasons = append(reasons, newReason(CodeBehind, "%s: the oldest due event is %s old, behind after %s", loop.Loop, short(*loop.OldestDueAge), short(*loop.ItemRedAfter)).
			ofLoop(loop.Loop).
			observed("oldest_due_age", *loop.OldestDueAge).
			threshold("item_red_after", *loop.ItemRedAfter))
	}
	if loop.NumFailing+loop.NumParked > 0 {
		reasons = append(reasons, newReason(CodeDegraded, "%s: %s", loop.Loop, loop.degraded()).
			ofLoop(loop.Loop).
			observed("num_failing", loop.NumFailing).
			observed("num_parked", loop.NumParked))
	}
	if loop.Age > loop.LateAfter {
		reasons = append(reasons, newReason(CodeLate, "%s: %s, late after %s", loop.Loop, loop.noSuccess(), short(loop.LateAfter)).
			ofLoop(loop.Loop).
			observed("age", loop.Age).
			threshold("late_after", loop.LateAfter))
	}
	return reasons
}

// degraded says what failed: a settlement's runs are counted as if they were parked.
func (loop LoopStatus) degraded() string {
	if loop.Scheduled {
		return numOf(loop.NumParked, "run") + " left players unpaid, without an acknowledgement: truegreen status"
	}
	var parts []string
	if loop.NumFailing > 0 {
		parts = append(parts, numOf(loop.NumFailing, "event")+" failed and will be retried")
	}
	if loop.NumParked > 0 {
		parts = append(parts, numOf(loop.NumParked, "event")+" parked until an operator redrives or discards: truegreen outbox parked")
	}
	return strings.Join(parts, ", ")
}

func (loop LoopStatus) pausedReason() Reason {
	by := fmt.Sprintf("paused by %s: %s", value(loop.PausedBy), value(loop.PauseReason))
	if value(loop.PausedBy) == pausedByUnknown {
		by = "its queue was paused in River, by whom is not recorded"
	}
	return newReason(CodePaused, "%s: %s", loop.Loop, by).
		ofLoop(loop.Loop).
		observed("paused_at", timeText(loop.PausedAt)).
		observed("paused_by", value(loop.PausedBy))
}

func numOf(num int, noun string) string {
	if num == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", num, noun)
}
