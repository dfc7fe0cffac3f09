package settle_test

// moment is when, around a statement, something happens to a process.
type moment string

const (
	momentBefore    moment = "before"
	momentAfter     moment = "after"      // and before the commit
	momentCommitted moment = "committed"  // after the commit of its transaction
	momentOnItsWay  moment = "on its way" // the commit is sent, or done, and not answered
)

// act is what happens then.
type act string

const (
	actCut    act = "cut"    // the connection alone is lost
	actDie    act = "die"    // the process kills itself
	actFreeze act = "freeze" // it stops until somebody lets it go on
)

// place is a statement, by its name in sql/queries, and the moment.
type place struct {
	Moment    moment
	Statement string
}

// The cursor of a calculation and its copy of items have no names in sql/queries.
const (
	statementActivity = "DECLARE settlement_activity"
	statementItems    = "copy settlement_item"
)

// runKind is a kind of runs that follow the regular one.
type runKind string

const (
	runAdjustment runKind = "adjustment"
	runRetry      runKind = "retry"
)

// order tells a process what to do. It travels as JSON.
type order struct {
	Act         act
	Ask         runKind // of which every programme is to have a run, asked for by a person
	ChunkSize   int
	DatabaseURL string
	IsSliced    bool // each job ends after one chunk
	Nth         int  // the time that it comes to its place when it acts, from 1
	OneTick     bool // at a time; two are let otherwise
	Period      string
	Place       place
	WorkerID    string
}

// reportKind says what a process reports.
type reportKind string

const (
	reportArm    reportKind = "arm"    // withhold the answer to the commit of this address, and say so
	reportDying  reportKind = "dying"  // its last words
	reportFrozen reportKind = "frozen" // its last words for now
	reportReady  reportKind = "ready"
	reportTried  reportKind = "tried" // to go on, after it was frozen, with the run that it was frozen in
)

// commandArmed is the answer to reportArm.
const commandArmed = "armed"

// report is what a process says.
type report struct {
	Address   string // of a connection
	Kind      reportKind
	Statement string // that was tried first
}
