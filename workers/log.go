package workers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// LogMiddleware writes one line per attempt of a job, and is the only place that
// logs a job's error: a warning while attempts are left, an error at the last
// one, and a debug line for work that went well. River itself would tell of a
// failure in passing.
type LogMiddleware struct {
	river.MiddlewareDefaults
	logger *slog.Logger
}

// NewLogMiddleware returns a middleware that writes to logger.
func NewLogMiddleware(logger *slog.Logger) *LogMiddleware { return &LogMiddleware{logger: logger} }

// Work runs the job and logs how it ended.
func (middleware *LogMiddleware) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) (err error) {
	started := time.Now()
	panicked := true
	defer func() {
		level, attributes := slog.LevelDebug, []slog.Attr{
			slog.Int("attempt", job.Attempt),
			slog.Duration("duration", time.Since(started).Round(time.Millisecond)),
		}
		switch {
		case panicked:
			// River catches the panic, and stores it as this attempt's error.
			level = slog.LevelError
			attributes = append(attributes, slog.String("error", "the worker panicked"))
		case err != nil && errors.Is(ctx.Err(), context.Canceled):
			// The process stops; the job goes to another one.
			level = slog.LevelInfo
			attributes = append(attributes, slog.Any("error", err))
		case err != nil:
			level = slog.LevelWarn
			if job.Attempt >= job.MaxAttempts {
				level = slog.LevelError
				attributes = append(attributes, slog.Bool("discarded", true))
			}
			attributes = append(attributes, slog.Any("error", err))
		}
		attributes = append(attributes,
			slog.Int64("job_id", job.ID), slog.String("job_kind", job.Kind), slog.String("queue", job.Queue))
		middleware.logger.LogAttrs(ctx, level, "job worked", attributes...)
	}()
	err = doInner(ctx)
	panicked = false
	return err
}
