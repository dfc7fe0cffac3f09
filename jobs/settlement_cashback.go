package jobs

import "github.com/riverqueue/river"

// SettlementCashbackArgs asks for one run of a cashback programme to be taken as
// far as it can go: calculated, or delivered.
//
// Inserted by: the tick or a person, in the transaction that makes or approves
// the run, and by its predecessor when its time is over.
// Unique by:   nothing; the run's epoch lets one job write at a time.
// Twice:       harmless; the second leaves the run to the first, and a finished
// run is left as it is.
type SettlementCashbackArgs struct {
	// RunID is settlement_run.id.
	RunID int64 `json:"run_id"`
}

// Kind names the job on the wire.
func (SettlementCashbackArgs) Kind() string { return "settlement_cashback" }

// InsertOpts are the queue. How often a run is tried is a term of its programme.
func (SettlementCashbackArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueSettlementCashback}
}

// SettlementRunID is the run to work.
func (args SettlementCashbackArgs) SettlementRunID() int64 { return args.RunID }
