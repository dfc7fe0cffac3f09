package peers_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// clockTick is the unit of times in /proc, the same on every Linux.
const clockTick = 10 * time.Millisecond

// processorTime is what this process, with relay and broker in it, and the server
// of pool have used so far. Unlike a rate it hardly depends on what else the
// machine does.
func processorTime(ctx context.Context, b *testing.B, pool *pgxpool.Pool) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	total := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())

	var backend int
	require.NoError(b, pool.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend))
	server := statOf(strconv.Itoa(backend)).parent
	names, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(b, err)
	for _, name := range names {
		if found := statOf(filepath.Base(name)); found.parent == server {
			total += found.used
		}
	}
	of := statOf(server)
	return total + of.used + of.usedByEnded
}

type processStat struct {
	parent            string
	used, usedByEnded time.Duration // the latter by children that have ended
}

// statOf returns nothing of a process that has ended.
func statOf(pid string) processStat {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
	if err != nil {
		return processStat{}
	}
	// The name, in parentheses, may contain anything.
	fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
	ticks := func(field int) time.Duration {
		count, _ := strconv.ParseInt(string(fields[field]), 10, 64)
		return time.Duration(count) * clockTick
	}
	return processStat{parent: string(fields[1]), used: ticks(11) + ticks(12), usedByEnded: ticks(13) + ticks(14)}
}
