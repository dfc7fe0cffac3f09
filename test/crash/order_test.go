package crash_test

// step is where in a drain a process dies, or stops.
type step string

const (
	stepNone                 step = ""
	stepAfterAcknowledgement step = "after the acknowledgement, before the mark"
	stepAfterClaim           step = "after the claim, before the send"
	stepAfterFinish          step = "after the commit that ends a pass"
	stepAfterLease           step = "after the lease, before the claim"
	stepAfterMark            step = "after the mark's commit"
	stepAfterTakeOver        step = "after the commit of a takeover"
	stepAnyTime              step = "whenever its parent likes"
	stepBeforeAcknowledgment step = "after the send, before the acknowledgement arrives"
	stepBeforeLease          step = "before the lease"
	stepBeforeMark           step = "after the mark, before its commit"
	stepBeforeTakeOver       step = "after a takeover, before its commit"
	stepFreezeAfterSend      step = "frozen after its send, before its mark"
	stepFreezeBeforeSend     step = "frozen after the claim, before its send"
	stepFreezeWithinSend     step = "frozen after it looked at the clock, before its send"
	stepPoison               step = "whenever an event is in the batch"
)

// moment is when, around a statement, a process dies.
type moment string

const (
	momentBefore    moment = "before"
	momentAfter     moment = "after"
	momentCommitted moment = "committed"
)

// place is a statement, by its name in sql/queries, and the moment.
type place struct {
	moment    moment
	statement string
}

// places are the steps that the tracer knows.
func places() map[step]place {
	return map[step]place{
		stepAfterFinish:    {momentCommitted, "OutboxShardRelease"},
		stepAfterLease:     {momentAfter, "OutboxShardLease"},
		stepAfterMark:      {momentCommitted, "OutboxDeliveryMarkPublished"},
		stepAfterTakeOver:  {momentCommitted, "OutboxDeliveryTakeOver"},
		stepBeforeLease:    {momentBefore, "OutboxShardLease"},
		stepBeforeMark:     {momentAfter, "OutboxDeliveryMarkPublished"},
		stepBeforeTakeOver: {momentAfter, "OutboxDeliveryTakeOver"},
	}
}

// order tells a process what to do. It travels as JSON.
type order struct {
	BatchSize   int
	BrokerURL   string
	DatabaseURL string
	Nth         int    // the time that it comes to its step when it dies, from 1
	Poison      string // the event of stepPoison
	Step        step
	WorkerID    string
}

// reportKind says what a process reports.
type reportKind string

const (
	reportArm    reportKind = "arm"    // withhold acknowledgements from here on, and answer
	reportDying  reportKind = "dying"  // its last words
	reportFrozen reportKind = "frozen" // its last words for now
	reportReady  reportKind = "ready"
	reportSent   reportKind = "sent" // the publish that it was frozen in is through
)

// What a process is told.
const (
	commandArmed    = "armed"
	commandWithheld = "withheld" // an acknowledgement is on its way and held back
)

// tempo is brief for a process that is to die or to be late.
func (o order) tempo() tempo {
	if o.Step == stepNone {
		return calm()
	}
	return brief()
}

// report is what a process says.
type report struct {
	IDs  []int64 // the events in its hands
	Kind reportKind
}
