package jobs

import (
	"time"

	"github.com/riverqueue/river"
)

// MaintenanceArgs looks after the tables: partitions ahead, delivered events out of
// the way, old ones dropped.
//
// Inserted by: River's leader, at every interval; a lost tick is made up for by
// the next.
// Unique by:   the second of its insertion, so that two leaders insert one.
// Twice:       harmless; the second finds nothing to do.
type MaintenanceArgs struct{}

// Kind names the job on the wire.
func (MaintenanceArgs) Kind() string { return "maintenance" }

// InsertOpts are the queue and one attempt: the next tick is the retry.
func (MaintenanceArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		MaxAttempts: 1,
		Queue:       QueueMaintenance,
		UniqueOpts:  river.UniqueOpts{ByPeriod: time.Second},
	}
}
