//go:build !linux

package peers_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// processorTime is measured on Linux alone.
func processorTime(context.Context, *testing.B, *pgxpool.Pool) time.Duration { return 0 }
