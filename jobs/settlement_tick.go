package jobs

import (
	"time"

	"github.com/riverqueue/river"
)

// SettlementTickArgs asks the database which closed periods have no run, and
// which runs have no job, and gives them one.
//
// Inserted by: River's leader, at every interval; a lost tick is made up for by
// the next.
// Unique by:   the second of its insertion, so that two leaders insert one.
// Twice:       harmless; the second finds nothing to do.
type SettlementTickArgs struct{}

// Kind names the job on the wire.
func (SettlementTickArgs) Kind() string { return "settlement_tick" }

// InsertOpts are the queue and one attempt: the next tick is the retry.
func (SettlementTickArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		MaxAttempts: 1,
		Queue:       QueueSettlementTick,
		UniqueOpts:  river.UniqueOpts{ByPeriod: time.Second},
	}
}
