package settlement_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/settlement"
)

// handClock is a clock that a test moves. It counts how often it was read, which a
// watchdog does once for each look.
type handClock struct {
	mu       sync.Mutex
	now      time.Time
	numReads int
}

func (clock *handClock) read() time.Time {
	clock.mu.Lock()
	defer clock.mu.Unlock()
	clock.numReads++
	return clock.now
}

func (clock *handClock) move(by time.Duration) {
	clock.mu.Lock()
	defer clock.mu.Unlock()
	clock.now = clock.now.Add(by)
}

// awaitLooks waits until two more looks were told of: the second has begun after
// the call.
func (clock *handClock) awaitLooks(t *testing.T) {
	t.Helper()
	reads := func() int {
		clock.mu.Lock()
		defer clock.mu.Unlock()
		return clock.numReads
	}
	before := reads()
	require.Eventually(t, func() bool { return reads() >= before+3 }, patience, time.Millisecond)
}

// watch runs a watchdog until the test ends.
func (bundle *testBundle) watch(ctx context.Context, t *testing.T) *handClock {
	t.Helper()
	clock := &handClock{now: time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)}
	watchdog := bundle.watchdog(settlement.WatchdogConfig{Interval: 5 * time.Millisecond, Now: clock.read, Repeat: 10 * time.Minute, Timeout: patience})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watchdog.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return clock
}

// lines are what was logged with a message, without their times.
func (b *logBuffer) lines(message string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		if _, rest, ok := strings.Cut(line, " level="); ok && strings.Contains(rest, `msg="`+message+`"`) {
			found = append(found, "level="+strings.TrimSpace(rest))
		}
	}
	return found
}

func TestWatchdog_Run(t *testing.T) {
	t.Parallel()

	t.Run("TellsOfAnAlarmOnceThenNowAndThenThenOfItsEnd", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		runID := bundle.plan(ctx, t)
		clock := bundle.watch(ctx, t)
		clock.awaitLooks(t)
		require.Empty(t, bundle.logs.lines("settlement alarm"))

		bundle.ableAgo(ctx, t, "1 hour")
		clock.awaitLooks(t)
		clock.move(10*time.Minute - time.Nanosecond)
		clock.awaitLooks(t)
		told := bundle.logs.lines("settlement alarm")
		require.Len(t, told, 1)
		require.Regexp(t, `^level=ERROR msg="settlement alarm" alarm=run_overdue programme=weekly period=2026-W45 run_id=`+strconv.FormatInt(runID, 10)+
			` since=\S+Z weight=page age=1h0m\d+s detail="is planned, .*" do="truegreen settlement show `+strconv.FormatInt(runID, 10)+`" runbook=docs/runbooks/settlement-run-overdue.md$`, told[0])
		require.Empty(t, bundle.logs.lines("settlement alarm stands"))

		for n := range 2 {
			clock.move(10 * time.Minute)
			clock.awaitLooks(t)
			require.Len(t, bundle.logs.lines("settlement alarm stands"), n+1)
		}
		require.Contains(t, bundle.logs.lines("settlement alarm stands")[0], "level=ERROR")
		require.Empty(t, bundle.logs.lines("settlement alarm has ended"))

		bundle.ableAgo(ctx, t, "1 second")
		clock.awaitLooks(t)
		ended := bundle.logs.lines("settlement alarm has ended")
		require.Len(t, ended, 1)
		require.Regexp(t, `^level=INFO msg="settlement alarm has ended" alarm=run_overdue programme=weekly period=2026-W45 run_id=\d+ since=\S+$`, ended[0])

		// What comes back is new.
		bundle.ableAgo(ctx, t, "1 hour")
		clock.awaitLooks(t)
		require.Len(t, bundle.logs.lines("settlement alarm"), 2)
	})

	t.Run("WarnsOfWhatHasTime", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.waiting(ctx, t)
		bundle.exec(ctx, t, "UPDATE settlement_run SET created_at = now() - interval '2 hours'")
		bundle.programme(ctx, t, strings.Replace(weekly, "code: weekly", "code: paused", 1))
		bundle.approvedAgo(ctx, t, "1 hour")
		bundle.exec(ctx, t, "UPDATE loop_contract SET paused_at = now(), paused_by = 'ana', pause_reason = 'stocktaking' WHERE loop = 'settlement_tick'")
		bundle.watch(ctx, t).awaitLooks(t)
		told := strings.Join(bundle.logs.lines("settlement alarm"), "\n")
		require.Contains(t, told, "alarm=inputs_overdue")
		require.Contains(t, told, "alarm=period_without_run programme=paused")
		require.NotContains(t, told, "level=ERROR")
	})

	t.Run("IsLoudWhenItCannotLook", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		bundle.plan(ctx, t)
		bundle.ableAgo(ctx, t, "1 hour")
		clock := bundle.watch(ctx, t)
		clock.awaitLooks(t)
		bundle.exec(ctx, t, "ALTER VIEW settlement_alarms RENAME TO hidden")
		clock.awaitLooks(t)
		clock.awaitLooks(t)
		bundle.exec(ctx, t, "ALTER VIEW hidden RENAME TO settlement_alarms")
		clock.awaitLooks(t)

		failed := bundle.logs.lines("settlement watchdog cannot look")
		require.GreaterOrEqual(t, len(failed), 3)
		for n, line := range failed {
			level := "level=WARN"
			if n >= 2 {
				level = "level=ERROR"
			}
			require.Contains(t, line, level)
		}
		require.Contains(t, failed[0], `error="look for alarms of settlements: list alarms of runs: `)
		require.Len(t, bundle.logs.lines("settlement watchdog looks again"), 1)
		// The alarm stood all the time, and nobody claimed anything else.
		require.Len(t, bundle.logs.lines("settlement alarm"), 1)
		require.Empty(t, bundle.logs.lines("settlement alarm has ended"))
	})

	t.Run("DoesNotSayOfWhatItLeftOutThatItHasEnded", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		// 320 days: more than a tick plans and the log lists, fewer than two ticks plan.
		first := lastMonday().AddDate(0, 0, -320).Format(time.DateOnly)
		bundle.programme(ctx, t, strings.NewReplacer("code: weekly", "code: daily", "period: weekly", "period: daily", "2026-11-02", first).Replace(weekly))
		bundle.approvedAgo(ctx, t, "1 hour")
		clock := bundle.watch(ctx, t)
		clock.awaitLooks(t)
		require.Len(t, bundle.logs.lines("settlement alarm"), 100)
		require.Len(t, bundle.logs.lines("settlement has more alarms than are told"), 1)
		_, err := bundle.runner.Tick(ctx, noCompletion) // plans 200 of them
		require.NoError(t, err)
		clock.awaitLooks(t)
		require.Len(t, bundle.logs.lines("settlement alarm"), 200)
		require.Empty(t, bundle.logs.lines("settlement alarm has ended"))
		for range 3 {
			_, err := bundle.runner.Tick(ctx, noCompletion)
			require.NoError(t, err)
		}
		clock.awaitLooks(t)
		require.Len(t, bundle.logs.lines("settlement alarm has ended"), 100)
	})
}

// TestAlarmKind_Runbook shows that every alarm has a page, and that its queries can
// be pasted.
func TestAlarmKind_Runbook(t *testing.T) {
	t.Parallel()

	const root = "../.."
	index, err := os.ReadFile(filepath.Join(root, "docs/runbooks/README.md"))
	require.NoError(t, err)
	queries := regexp.MustCompile("(?s)```sql\n(.*?)```")
	for _, kind := range settlement.AlarmKinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()

			page, err := os.ReadFile(filepath.Join(root, kind.Runbook()))
			require.NoError(t, err)
			require.Contains(t, string(index), "["+string(kind)+"]("+filepath.Base(kind.Runbook())+")")
			require.Contains(t, string(page), "`"+string(kind)+"`")
			var headings []string
			for line := range strings.SplitSeq(string(page), "\n") {
				if heading, ok := strings.CutPrefix(line, "## "); ok {
					headings = append(headings, heading)
				}
			}
			require.Equal(t, []string{"Meaning", "Impact", "Diagnosis", "Mitigation", "Do not"}, headings)

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			for _, block := range queries.FindAllStringSubmatch(string(page), -1) {
				_, err := tx.Conn().PgConn().Exec(ctx, block[1]).ReadAll()
				require.NoError(t, err, block[1])
			}
		})
	}
}
