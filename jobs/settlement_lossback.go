package jobs

import "github.com/riverqueue/river"

// SettlementLossbackArgs asks for one run of a lossback programme to be taken as
// far as it can go: calculated, or delivered.
//
// Inserted by: the tick or a person, in the transaction that makes or approves
// the run, and by its predecessor when its time is over.
// Unique by:   nothing; the run's epoch lets one job write at a time.
// Twice:       harmless; the second leaves the run to the first, and a finished
// run is left as it is.
type SettlementLossbackArgs struct {
	// RunID is settlement_run.id.
	RunID int64 `json:"run_id"`
}

// Kind names the job on the wire.
func (SettlementLossbackArgs) Kind() string { return "settlement_lossback" }

// InsertOpts are the queue. How often a run is tried is a term of its programme.
func (SettlementLossbackArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueSettlementLossback}
}

// SettlementRunID is the run to work.
func (args SettlementLossbackArgs) SettlementRunID() int64 { return args.RunID }
