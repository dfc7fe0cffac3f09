package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"truegreen/internal/activity"
	"truegreen/internal/cli"
	"truegreen/internal/devstack/sample"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
	"truegreen/migrations"
)

// healthcheckTimeout bounds how long a process may take to answer: probes answer
// from memory.
const healthcheckTimeout = 5 * time.Second

// BrokerProvision creates or updates the broker's streams.
func (actions *actions) BrokerProvision(ctx context.Context) ([]cli.BrokerStream, error) {
	pool, err := actions.open(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return nil, err
	}
	publisher, err := connectBroker(actions.logger, actions.config, actions.config.BrokerURL.Reveal())
	if err != nil {
		return nil, err
	}
	defer publisher.Close()
	provisioned, err := provision(ctx, pool, publisher, actions.config)
	if err != nil {
		return nil, err
	}
	streams := make([]cli.BrokerStream, 0, len(provisioned))
	for _, stream := range provisioned {
		streams = append(streams, cli.BrokerStream{
			Change:     stream.Change,
			Durability: stream.Durability,
			Name:       stream.JetStreamName,
			Note:       stream.Note,
			Subjects:   stream.Subjects,
		})
	}
	return streams, nil
}

// Healthcheck asks a running process.
func (actions *actions) Healthcheck(ctx context.Context, check string) (cli.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	target, err := url.JoinPath(actions.config.URL, map[string]string{"live": "livez", "ready": "readyz", "startup": "startupz"}[check])
	if err != nil {
		return cli.Health{}, fmt.Errorf("ask for health: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return cli.Health{}, fmt.Errorf("ask for health: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return cli.Health{}, fmt.Errorf("ask for health: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return cli.Health{}, fmt.Errorf("read answer of %s: %w", target, err)
	}
	return cli.Health{Healthy: response.StatusCode == http.StatusOK, Text: strings.TrimSpace(string(body))}, nil
}

// Import applies the lines of one source.
func (actions *actions) Import(ctx context.Context, source cli.ImportSource) (cli.ImportResult, error) {
	pool, err := actions.open(ctx)
	if err != nil {
		return cli.ImportResult{}, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return cli.ImportResult{}, err
	}
	result, err := activity.New(wallet.New()).Import(ctx, pool, source.Name, source.Lines, activity.ImportOptions{})
	refused := make([]cli.ImportRefused, 0, len(result.Refused))
	for _, line := range result.Refused {
		refused = append(refused, cli.ImportRefused{
			Amount: int64(line.Amount), Balance: int64(line.Balance), ID: line.ID, Line: line.Line, Player: line.Player, Type: string(line.Type),
		})
	}
	return cli.ImportResult{
		Refused:      refused,
		NumApplied:   result.NumApplied,
		NumLines:     result.NumLines,
		NumRefused:   result.NumRefused,
		NumUnchanged: result.NumKnown,
	}, err
}

// LoopPause keeps a loop from working.
func (actions *actions) LoopPause(ctx context.Context, change cli.LoopChange) error {
	return actions.decide(ctx, change, freshness.Pause)
}

// LoopResume ends the pause of a loop.
func (actions *actions) LoopResume(ctx context.Context, change cli.LoopChange) error {
	return actions.decide(ctx, change, freshness.Resume)
}

func (actions *actions) decide(
	ctx context.Context, change cli.LoopChange,
	decide func(context.Context, pgx.Tx, freshness.QueueControl, freshness.Decision) error,
) error {
	pool, err := actions.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return err
	}
	// A client without queues or workers inserts and controls only.
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: actions.logger})
	if err != nil {
		return fmt.Errorf("make queue client: %w", err)
	}
	return pgtx.Do(ctx, pool, func(tx pgx.Tx) error {
		return decide(ctx, tx, client, freshness.Decision{By: change.As, Loop: change.Loop, Reason: change.Reason})
	})
}

// MigrateDown undoes the newest migration.
func (actions *actions) MigrateDown(ctx context.Context) (string, error) {
	return migrations.Down(ctx, actions.config.DatabaseURL.Reveal())
}

// MigrateStatus lists the migrations.
func (actions *actions) MigrateStatus(ctx context.Context) ([]migrations.Status, error) {
	return migrations.List(ctx, actions.config.DatabaseURL.Reveal())
}

// MigrateUp applies what is missing.
func (actions *actions) MigrateUp(ctx context.Context) ([]string, error) {
	return migrations.Up(ctx, actions.config.DatabaseURL.Reveal())
}

// Sample writes sample activity to out. It ends with yesterday (UTC), so that the
// same flags write the same bytes all day.
func (actions *actions) Sample(ctx context.Context, out io.Writer, options cli.SampleOptions) error {
	_, err := sample.Write(ctx, out, sample.Config{
		Days:    options.Days,
		End:     time.Now().UTC().Truncate(24 * time.Hour),
		Players: options.Players,
		Seed:    options.Seed,
	})
	return err
}

// Worker works until ctx is done.
func (actions *actions) Worker(ctx context.Context) error {
	return runWorker(ctx, actions.logger, actions.config, workerOptions{
		brokerURL:   actions.config.BrokerURL.Reveal(),
		databaseURL: actions.config.DatabaseURL.Reveal(),
		version:     actions.host.Version,
	})
}

// open connects to the database, or says why it cannot.
func (actions *actions) open(ctx context.Context) (*pgxpool.Pool, error) {
	database, err := openDatabase(ctx, actions.config.DatabaseURL.Reveal())
	if err != nil {
		return nil, err
	}
	return openPool(ctx, database, 0, "truegreen", nil)
}
