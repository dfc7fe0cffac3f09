package freshness

import "time"

// Counts of the rules: probes, passes and ticks in a row.
const (
	failedPassesTooMany = 3
	failedProbesTooMany = 3
	failedProofsTooMany = 2
	ticksToGreen        = 2
	ticksToRed          = 2
)

// maxClockSkew is how far the clocks of process and database may be apart before
// that is worth saying. Nothing depends on it.
const maxClockSkew = 5 * time.Second

// What a busy machine may delay a process by; below that no limit goes, however
// short the tick.
const (
	leastEvaluatorDead = 2 * time.Second
	leastSnapshotStale = time.Second
)

// Limits are the times that [Evaluate] compares with. They follow from the tick,
// so that a shorter tick makes every rule faster in proportion.
type Limits struct {
	EvaluatorDead time.Duration // liveness: no tick for so long
	FetchStalled  time.Duration // readiness: no fetch from a queue for so long
	FetchWedged   time.Duration // liveness: the same, while the database answered
	LeastRed      time.Duration // how long red stays at least
	OwnFailures   time.Duration // how old own failures must be for a good broker to end them
	Pinned        time.Duration // liveness: held by a read-only server for so long
	SlotsStuck    time.Duration // liveness: every slot past its timeout by so much
	SnapshotStale time.Duration // readiness: no reading of the loops for so long
}

// LimitsOf returns the limits for a tick, and for River's fetch poll interval. At
// the default tick of 5 s they are 30 s, 30 s, 180 s, 15 s, 10 s, 120 s, 120 s, 15 s.
func LimitsOf(tick, fetchPoll time.Duration) Limits {
	return Limits{
		EvaluatorDead: max(6*tick, leastEvaluatorDead),
		FetchStalled:  max(10*fetchPoll, 6*tick),
		FetchWedged:   max(60*fetchPoll, 36*tick),
		LeastRed:      3 * tick,
		OwnFailures:   2 * tick,
		Pinned:        24 * tick,
		SlotsStuck:    24 * tick,
		SnapshotStale: max(3*tick, leastSnapshotStale),
	}
}

// Evidence is all that is known at one tick.
type Evidence struct {
	// At is the time since the process started, by its monotonic clock.
	At      time.Duration
	Brokers []BrokerEvidence // for each loop of this process that publishes
	// ClockSkew is how far the process's wall clock is ahead of the database's.
	ClockSkew time.Duration
	DB        DBEvidence
	Draining  bool
	// FetchError is why the database would let no fetch happen from the queues that one is
	// missed from; nil if it would, or none is missed.
	FetchError error
	// HasSnapshot says that the loops were read at least once.
	HasSnapshot bool
	Loops       []LoopStatus  // all loops, as last read
	Own         []OwnProgress // of this process, as last read
	Queues      []QueueEvidence
	// RiverStarted says that this process's River client runs.
	RiverStarted bool
	// SaturatedPools are the names of connection pools with no connection left.
	SaturatedPools []string
	SnapshotAge    time.Duration // since Loops and Own were read
	Taken          *TakenError   // another live process has this one's id; nil for none
}

// DBEvidence is what the probe's own connection shows.
type DBEvidence struct {
	Error     string        // of the last probe that failed
	NumFailed int           // probes in a row that got no answer
	PinnedFor time.Duration // held by a read-only server, where a new connection is not
	ReadOnly  bool          // the server takes no writes
	Schema    SchemaEvidence
	Slow      bool // the last answer took long
}

// SchemaEvidence is how the database's schema and this binary fit. The zero value
// is not known yet.
type SchemaEvidence struct {
	Has       int64 // newest migration of the database; 0 for none
	Known     bool
	MinBinary int64 // the oldest binary that the database lets in, by its newest migration
	Needs     int64 // newest migration of this binary
}

// OwnProgress is what this process, since its start, did on one loop.
type OwnProgress struct {
	ConsecutiveFailures int           // since its own last success
	FailedByBroker      bool          // the broker caused the last of them
	FailureAge          time.Duration // since the last failure
	HasSucceeded        bool
	IsShared            bool // the whole fleet failed with it, and has succeeded since
	LastError           string
	Loop                string
	SuccessAge          time.Duration // if HasSucceeded
}

// DBState is the database, as this process sees it.
type DBState string

// The states of the database. Slow is green.
const (
	DBOK          DBState = "ok"
	DBReadOnly    DBState = "read_only"
	DBSlow        DBState = "slow" // took long, or missed a probe or two
	DBUnknown     DBState = "unknown"
	DBUnreachable DBState = "unreachable"
)

func (db DBEvidence) state() DBState {
	switch {
	case db.NumFailed >= failedProbesTooMany:
		return DBUnreachable
	case db.ReadOnly:
		return DBReadOnly
	case db.NumFailed > 0 || db.Slow:
		return DBSlow
	case !db.Schema.Known:
		return DBUnknown
	default:
		return DBOK
	}
}
