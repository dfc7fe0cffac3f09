package outbox

import (
	"context"
	"fmt"
	"time"

	"truegreen/internal/dbsqlc"
)

// StreamStatus counts the events of a stream by state, and says how long the
// oldest due one waits and how long ago the broker last acknowledged one. Nil:
// nothing is due, nothing was ever acknowledged.
type StreamStatus struct {
	Blocked          int64
	Delayed          int64
	LastPublishedAge *time.Duration
	Name             string
	OldestDueAge     *time.Duration
	Parked           int64
	Pending          int64
	Published        int64 // ever
}

// ReadStatus returns the status of every stream, in order of name. It counts the
// undelivered events, so it takes longer the more of them there are.
func ReadStatus(ctx context.Context, db dbsqlc.DBTX) ([]StreamStatus, error) {
	rows, err := queries.OutboxStatusList(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("read status of outbox streams: %w", err)
	}
	streams := make([]StreamStatus, 0, len(rows))
	for _, row := range rows {
		status := StreamStatus{
			Blocked:      row.Blocked,
			Delayed:      row.Delayed,
			Name:         row.Stream,
			OldestDueAge: row.OldestDueAge,
			Parked:       row.Parked,
			Pending:      row.Pending,
			Published:    row.Published,
		}
		if row.LastPublishedAt != nil {
			age := row.Now.Sub(*row.LastPublishedAt)
			status.LastPublishedAge = &age
		}
		streams = append(streams, status)
	}
	return streams, nil
}
