package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"truegreen/internal/appconfig"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// maxEventBytes is what every stream should take: room for any sane event, and
// below the 1 MiB that a NATS server takes by default.
const maxEventBytes = 512 << 10

// brokerTimeout bounds one look at the broker.
const brokerTimeout = 5 * time.Second

func connectBroker(logger *slog.Logger, config *appconfig.Config, url string) (*natspublish.Publisher, error) {
	publisher, err := natspublish.Connect(logger, natspublish.Config{
		AckTimeout: config.Outbox.AckTimeout, MinDuplicates: minDuplicates(config), URL: url,
	})
	if err != nil {
		return nil, fmt.Errorf("TRUEGREEN_BROKER: %w", err)
	}
	return publisher, nil
}

// minDuplicates is what a broker's duplicate window must be longer than: any retry of an
// unanswered event.
func minDuplicates(config *appconfig.Config) time.Duration {
	return config.Outbox.Lease + outbox.Config{}.WithDefaults().MaxRetryDelay
}

// streamSpec is what the broker's stream must be like.
func streamSpec(config *appconfig.Config, stream outbox.Stream, maxBytes int) natspublish.StreamSpec {
	return natspublish.StreamSpec{
		MaxEventBytes: maxBytes,
		MinDuplicates: minDuplicates(config),
		Stream:        stream.Name,
	}
}

// provision creates or updates the broker's streams, and stores what they take.
func provision(ctx context.Context, pool *pgxpool.Pool, publisher *natspublish.Publisher, config *appconfig.Config) ([]natspublish.Provisioned, error) {
	streams, err := outbox.Streams(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("provision broker: %w", err)
	}
	provisioned := make([]natspublish.Provisioned, 0, len(streams))
	for _, stream := range streams {
		lookCtx, cancel := context.WithTimeout(ctx, brokerTimeout)
		result, err := publisher.Provision(lookCtx, streamSpec(config, stream, maxEventBytes))
		cancel()
		if err != nil {
			return nil, fmt.Errorf("provision broker: %w", err)
		}
		if err := outbox.Provision(ctx, pool, stream.Name, result.MaxEventBytes); err != nil {
			return nil, fmt.Errorf("provision broker: %w", err)
		}
		provisioned = append(provisioned, result)
	}
	return provisioned, nil
}

// checkBroker refuses a broker that is there and wrong. One that is not there may
// come back: that is told, and readiness shows what it does to the loops. Streams that are
// right are logged at level, or as a warning above debug where a power cut can lose events.
func checkBroker(ctx context.Context, logger *slog.Logger, publisher *natspublish.Publisher, config *appconfig.Config, streams []outbox.Stream, level slog.Level) error {
	var wrong []error
	for _, stream := range streams {
		lookCtx, cancel := context.WithTimeout(ctx, brokerTimeout)
		report, err := publisher.Inspect(lookCtx, streamSpec(config, stream, stream.MaxEventBytes))
		cancel()
		switch {
		case errors.Is(err, natspublish.ErrCredentials):
			logger.WarnContext(ctx, "broker refuses the credentials, going on without it", slog.Any("error", err))
			return nil
		case errors.Is(err, natspublish.ErrUnreachable):
			logger.WarnContext(ctx, "broker not reachable, going on without it", slog.Any("error", err))
			return nil
		case err != nil:
			wrong = append(wrong, err)
		default:
			told := level
			if report.IsAtRisk && level >= slog.LevelInfo {
				told = slog.LevelWarn
			}
			logger.LogAttrs(ctx, told, "broker stream checked",
				slog.String("stream", natspublish.StreamName(stream.Name)), slog.String("durability", report.String()))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("check broker: %w", errors.Join(wrong...))
	}
	return nil
}

// brokerWatch shows readiness what the relay knows of the broker for the streams that
// this process works.
type brokerWatch struct {
	prover  *outbox.Prover
	streams []outbox.Stream
}

// Evidence is [freshness.BrokerWatch].
func (watch brokerWatch) Evidence() []freshness.BrokerEvidence {
	return watch.prover.Evidence(watch.streams)
}
