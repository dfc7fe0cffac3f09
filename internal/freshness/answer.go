package freshness

import "time"

// Answer is what /livez, /readyz and /startupz say.
type Answer struct {
	DB   DBState  `json:"db"`
	Info []Reason `json:"info"` // worth knowing, and no reason against OK
	// OK is the answer itself; HTTP says it by the status 200 or 503.
	OK      bool     `json:"-"`
	Reasons []Reason `json:"reasons"` // empty if OK, else the most telling first
	// Since is when OK last changed, by this process's wall clock.
	Since time.Time `json:"since"`
	// SnapshotAge is how long ago the loops were read, such as "2.1s"; nil for
	// never.
	SnapshotAge *string `json:"snapshot_age"`
	// Status is the answer in a word: ready, not_ready, recovering, starting; live,
	// not_live; started, starting.
	Status string `json:"status"`
	Worker string `json:"worker"`
}

// Ready says whether this process does its part and the loops that it works make
// progress.
func (monitor *Monitor) Ready() Answer {
	cached := monitor.cached.Load()
	if cached == nil {
		return monitor.unjudged("starting")
	}
	finding := cached.Ready
	if age := time.Since(cached.at); age > monitor.limits.SnapshotStale {
		finding = finding.refuse("not_ready", newReason(CodeSnapshotStale, "this process has not judged itself for %s", short(age)).
			observed("tick_age", age).
			threshold("tick_age", monitor.limits.SnapshotStale))
	}
	if monitor.draining.Load() && (finding.OK || finding.Reasons[0].Code != CodeDraining) {
		finding = finding.refuse("not_ready", newReason(CodeDraining, "this process is shutting down"))
	}
	return monitor.answer(cached, finding)
}

// Live says whether this process can still help itself; if not, a restart is
// wanted. Nothing outside the process makes it false.
func (monitor *Monitor) Live() Answer {
	runningAt := monitor.runningAt.Load()
	cached := monitor.cached.Load()
	if cached == nil {
		answer := monitor.unjudged("live")
		answer.OK = runningAt == nil || time.Since(*runningAt) <= monitor.limits.EvaluatorDead
		if answer.OK {
			answer.Reasons = []Reason{}
			return answer
		}
		answer.Status = "not_live"
		return answer
	}
	finding := cached.Live
	if age := time.Since(cached.at); age > monitor.limits.EvaluatorDead {
		finding = finding.refuse("not_live", newReason(CodeSnapshotStale, "this process has not judged itself for %s", short(age)).
			observed("tick_age", age).
			threshold("tick_age", monitor.limits.EvaluatorDead))
	}
	return monitor.answer(cached, finding)
}

// Startup says whether this process has started: the schema fits, River runs, the
// loops were read once. Once true it stays so.
func (monitor *Monitor) Startup() Answer {
	cached := monitor.cached.Load()
	if cached == nil {
		return monitor.unjudged("starting")
	}
	return monitor.answer(cached, cached.Startup)
}

// refuse puts a reason before all others.
func (finding Finding) refuse(status string, reason Reason) Finding {
	finding.OK = false
	finding.Reasons = append([]Reason{reason}, finding.Reasons...)
	finding.Status = status
	return finding
}

func (monitor *Monitor) answer(cached *judged, finding Finding) Answer {
	answer := Answer{
		DB:      cached.DB,
		Info:    cached.Info,
		OK:      finding.OK,
		Reasons: finding.Reasons,
		Since:   monitor.startedAt.Add(finding.Since).UTC().Truncate(time.Millisecond),
		Status:  finding.Status,
		Worker:  monitor.config.WorkerID,
	}
	if answer.Info == nil {
		answer.Info = []Reason{}
	}
	if answer.Reasons == nil {
		answer.Reasons = []Reason{}
	}
	if !cached.takenAt.IsZero() {
		age := short(time.Since(cached.takenAt)).String()
		answer.SnapshotAge = &age
	}
	return answer
}

// unjudged is the answer before the first tick.
func (monitor *Monitor) unjudged(status string) Answer {
	return Answer{
		DB:      DBUnknown,
		Info:    []Reason{},
		Reasons: []Reason{newReason(CodeStarting, "waits for the first tick")},
		Since:   monitor.startedAt.UTC().Truncate(time.Millisecond),
		Status:  status,
		Worker:  monitor.config.WorkerID,
	}
}
