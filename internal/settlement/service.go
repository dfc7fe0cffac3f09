package settlement

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/jobs"
)

var queries = dbsqlc.New()

// Inserter inserts jobs; every River client does it, insert-only ones too.
type Inserter interface {
	InsertTx(ctx context.Context, tx pgx.Tx, args river.JobArgs, opts *river.InsertOpts) (*rivertype.JobInsertResult, error)
}

// Service keeps programmes and runs.
type Service struct {
	config   Config
	inserter Inserter
	pool     *pgxpool.Pool
}

// New returns a service, or says which settings are out of bounds.
func New(pool *pgxpool.Pool, inserter Inserter, config Config) (*Service, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure settlement: %w", err)
	}
	return &Service{config: config, inserter: inserter, pool: pool}, nil
}

// insertJob gives a run its next job, which may try so many times. Jobs are not
// unique: the run's epoch lets one of them write.
func (service *Service) insertJob(ctx context.Context, tx pgx.Tx, kind string, runID int64, maxAttempts int) (int64, error) {
	var args river.JobArgs
	switch programme.Kind(kind) {
	case programme.Cashback:
		args = jobs.SettlementCashbackArgs{RunID: runID}
	case programme.Lossback:
		args = jobs.SettlementLossbackArgs{RunID: runID}
	case programme.Rebate:
		args = jobs.SettlementRebateArgs{RunID: runID}
	default:
		return 0, fmt.Errorf("insert job of run %d: programmes of kind %s have no jobs", runID, kind)
	}
	inserted, err := service.inserter.InsertTx(ctx, tx, args, &river.InsertOpts{MaxAttempts: max(1, maxAttempts)})
	if err != nil {
		return 0, fmt.Errorf("insert job of run %d: %w", runID, err)
	}
	return inserted.Job.ID, nil
}

// giveJob inserts a job and notes it as the one that has the run.
func (service *Service) giveJob(ctx context.Context, tx pgx.Tx, kind string, runID int64, maxAttempts int) error {
	jobID, err := service.insertJob(ctx, tx, kind, runID, maxAttempts)
	if err != nil {
		return err
	}
	if err := queries.SettlementRunSetJob(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementRunSetJobParams{ID: runID, JobID: &jobID}); err != nil {
		return fmt.Errorf("note job %d of run %d: %w", jobID, runID, err)
	}
	return nil
}

// event is an entry in a run's history.
type event struct {
	actor  string
	detail any // JSON; nil for none
	kind   string
	reason string
}

func record(ctx context.Context, tx pgx.Tx, runID int64, event event) error {
	detail := json.RawMessage("{}")
	if event.detail != nil {
		encoded, err := json.Marshal(event.detail)
		if err != nil {
			return fmt.Errorf("record %s of run %d: %w", event.kind, runID, err)
		}
		detail = encoded
	}
	err := queries.SettlementEventInsert(ctx, pgtx.Exactly(tx, 1), &dbsqlc.SettlementEventInsertParams{
		Actor:  event.actor,
		Detail: detail,
		Kind:   event.kind,
		Reason: event.reason,
		RunID:  runID,
	})
	if err != nil {
		return fmt.Errorf("record %s of run %d: %w", event.kind, runID, err)
	}
	return nil
}

// eventFailed is the kind of an event that tells why a job got no further.
const eventFailed = "failed"

// loopOf is the freshness loop of runs of a kind of programme.
func loopOf(kind string) string { return "settlement_" + kind }
