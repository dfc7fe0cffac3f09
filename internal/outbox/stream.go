package outbox

import (
	"context"
	"fmt"

	"truegreen/internal/dbsqlc"
)

// The streams.
const (
	StreamAgent   = "agent"
	StreamRolling = "rolling"
	StreamWallet  = "wallet"
)

// Stream is one stream as the database declares it.
type Stream struct {
	JobKind       string // of its publish jobs
	MaxEventBytes int    // bound of payload plus headers
	Name          string
	NumShards     int
	ParkedBlocks  bool // later events of a key wait behind a parked one
	Queue         string
}

// Loop is the name of the stream's freshness loop.
func (stream Stream) Loop() string { return stream.JobKind }

var queries = dbsqlc.New()

// Streams reads the streams, in order of name.
func Streams(ctx context.Context, db dbsqlc.DBTX) ([]Stream, error) {
	rows, err := queries.OutboxStreamList(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("list outbox streams: %w", err)
	}
	streams := make([]Stream, 0, len(rows))
	for _, row := range rows {
		streams = append(streams, Stream{
			JobKind:       row.JobKind,
			MaxEventBytes: int(row.MaxEventBytes),
			Name:          row.Stream,
			NumShards:     int(row.NumShards),
			ParkedBlocks:  row.ParkPolicy == "block",
			Queue:         row.Queue,
		})
	}
	return streams, nil
}

// Provision stores how large an event of the stream may be, for appends to
// check. It is called once the broker's stream takes that much.
func Provision(ctx context.Context, db dbsqlc.DBTX, stream string, maxEventBytes int) error {
	numRows, err := queries.OutboxStreamProvision(ctx, db, &dbsqlc.OutboxStreamProvisionParams{
		MaxEventBytes: int32(maxEventBytes),
		Stream:        stream,
	})
	if err != nil {
		return fmt.Errorf("store limits of outbox stream %s: %w", stream, err)
	}
	if numRows == 0 {
		return fmt.Errorf("store limits of outbox stream %s: there is no such stream", stream)
	}
	return nil
}
