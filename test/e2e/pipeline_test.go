package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// sampleFileOf writes a small sample and returns its path.
func (s *stack) sampleFile(ctx context.Context, t *testing.T) string {
	t.Helper()
	lines, err := s.run(ctx, t, "", "sample", "--seed", "7", "--players", "60", "--days", "3")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "sample.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(lines), 0o600))
	return path
}

func TestPipeline(t *testing.T) {
	t.Parallel()

	t.Run("BringsEveryImportedChangeToTheBrokerInOrder", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		worker := s.startWorker(t)
		file := s.sampleFile(ctx, t)
		out, err := s.run(ctx, t, "", "import", file)
		require.NoError(t, err, out)
		s.waitPublished(ctx, t)
		s.checkDelivery(ctx, t)
		worker.waitReady(t)

		// The same file again changes nothing and publishes nothing.
		before := s.count(ctx, t, `SELECT count(*) FROM outbox_event`)
		out, err = s.run(ctx, t, "", "import", file)
		require.NoError(t, err, out)
		require.Equal(t, before, s.count(ctx, t, `SELECT count(*) FROM outbox_event`))
	})

	t.Run("LosesNothingWhenWorkersAreKilled", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		s := setup(ctx, t)
		out, err := s.run(ctx, t, "", "import", s.sampleFile(ctx, t))
		require.NoError(t, err, out)
		total := s.count(ctx, t, `SELECT count(*) FROM outbox_event`)
		for fifth := 1; fifth < 5; fifth++ {
			worker := s.startWorker(t, "TRUEGREEN_OUTBOX_BATCH=50")
			require.Eventually(t, func() bool {
				return s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE published_at IS NOT NULL`) >= total*fifth/5
			}, patience, poll)
			worker.stop(t, syscall.SIGKILL)
		}
		s.startWorker(t)
		s.waitPublished(ctx, t)
		s.checkDelivery(ctx, t)
	})
}

func (s *stack) waitPublished(ctx context.Context, t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return s.count(ctx, t, `SELECT count(*) FROM outbox_events WHERE published_at IS NULL`) == 0
	}, patience, poll)
}

// checkDelivery compares the broker, read from its first sequence, with the rows:
// every event once, in order per key, each where its row says, and the balance
// after the last one as the wallet has it.
func (s *stack) checkDelivery(ctx context.Context, t *testing.T) {
	t.Helper()
	type place struct{ key, seq string }
	rows, err := s.database.Pool.Query(ctx, `SELECT event_id::text, broker_ref, key, key_seq::text FROM outbox_events WHERE stream = 'wallet'`)
	require.NoError(t, err)
	wanted := make(map[string]place)
	refs := make(map[string]string)
	for rows.Next() {
		var eventID, ref string
		var at place
		require.NoError(t, rows.Scan(&eventID, &ref, &at.key, &at.seq))
		wanted[eventID] = at
		refs[eventID] = ref
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, wanted)

	lastSeq := make(map[string]int)
	for i, message := range s.messages(ctx, t, "TRUEGREEN_WALLET") {
		headers := message.Headers()
		eventID := headers.Get("ce-id")
		got := place{key: headers.Get("ce-subject"), seq: headers.Get("ce-keysequence")}
		require.Equal(t, wanted[eventID], got)
		require.Equal(t, refs[eventID], fmt.Sprintf("TRUEGREEN_WALLET/%d", i+1))
		seq, err := strconv.Atoi(headers.Get("ce-keysequence"))
		require.NoError(t, err)
		require.Equal(t, lastSeq[headers.Get("ce-subject")]+1, seq, "gapless and in order per key")
		lastSeq[headers.Get("ce-subject")] = seq
		delete(wanted, eventID)
	}
	require.Empty(t, wanted, "every event must be at the broker")

	for key, seq := range lastSeq {
		player, currency, _ := strings.Cut(key, "/")
		version := s.count(ctx, t, `SELECT version FROM wallet_balances WHERE player = $1 AND currency = $2`, player, currency)
		require.Equal(t, version, seq)
	}
	require.Zero(t, s.count(ctx, t, `
		SELECT count(*) FROM wallet_balances AS wallet
		WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM ledger_lines AS line WHERE line.player = wallet.player)`))
}
