package freshness_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/freshness"
)

// TestEvaluate_Live says what wants a restart: never an outage elsewhere.
func TestEvaluate_Live(t *testing.T) {
	t.Parallel()

	wedged := func(evidence *freshness.Evidence) { evidence.Queues[0].FetchAge = 10 * time.Minute }
	stuck := func(overrun time.Duration) func(*freshness.Evidence) {
		return func(evidence *freshness.Evidence) {
			evidence.Queues[0].FetchAge = 10 * time.Minute
			evidence.Queues[0].LeastOverrun = overrun
			evidence.Queues[0].NumInFlight = 2
		}
	}
	pinned := func(age time.Duration) func(*freshness.Evidence) {
		return func(evidence *freshness.Evidence) { evidence.DB.PinnedFor, evidence.DB.ReadOnly = age, true }
	}
	cases := []struct {
		name    string
		changes map[int]func(*freshness.Evidence)
		code    freshness.Code // "": live
	}{
		{"NothingWrong", nil, ""},
		{"NoFetchFor180sWhileTheDatabaseAnswers", map[int]func(*freshness.Evidence){0: wedged}, freshness.CodeFetchStalled},
		{"NoFetchSinceTheDatabaseIsAway", map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			failedProbes(9)(evidence)
			wedged(evidence)
		}}, ""},
		{"NoFetchYetAfterTheDatabaseCameBack", map[int]func(*freshness.Evidence){
			0: func(evidence *freshness.Evidence) {
				failedProbes(9)(evidence)
				wedged(evidence)
			},
			10: wedged,
		}, ""},
		{"NoFetchSinceTheDatabaseAllowsNone", map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			wedged(evidence)
			evidence.FetchError = errors.New("permission denied")
		}}, ""},
		{"NoFetchYetAfterTheDatabaseAllowsIt", map[int]func(*freshness.Evidence){
			0: func(evidence *freshness.Evidence) {
				wedged(evidence)
				evidence.FetchError = errors.New("permission denied")
			},
			10: wedged,
		}, ""},
		{"NoFetchWhilePaused", map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) {
			wedged(evidence)
			evidence.Loops[0].Paused = true
		}}, ""},
		{"NoFetchSinceAllSlotsAreBusy", map[int]func(*freshness.Evidence){0: stuck(-time.Second)}, ""},
		{"AllSlotsStuckForLessThan120s", map[int]func(*freshness.Evidence){0: stuck(119 * time.Second)}, ""},
		{"AllSlotsStuckForLonger", map[int]func(*freshness.Evidence){0: stuck(121 * time.Second)}, freshness.CodeSlotsStuck},
		{"ReadOnlyEverywhere", map[int]func(*freshness.Evidence){0: func(evidence *freshness.Evidence) { evidence.DB.ReadOnly = true }}, ""},
		{"PinnedFor120s", map[int]func(*freshness.Evidence){0: pinned(120 * time.Second)}, ""},
		{"PinnedForLonger", map[int]func(*freshness.Evidence){0: pinned(121 * time.Second)}, freshness.CodeDBReadOnly},
		{"AStalledLoop", map[int]func(*freshness.Evidence){0: stalled}, ""},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			judgements := play(ticks(40, test.changes))
			if test.code == "" {
				for i, judgement := range judgements {
					require.True(t, judgement.Live.OK, "tick %d", i)
				}
				return
			}
			require.Equal(t, []freshness.Code{test.code}, codes(judgements[39].Live.Reasons))
		})
	}
}

// TestMonitor_Live has a process whose River fetches nothing, and a database that would
// not let it. That is no evidence against the process; that it still fetches nothing
// afterwards is.
func TestMonitor_Live(t *testing.T) {
	t.Parallel()

	lock := func(mode string) func(context.Context, *testing.T, *monitorBundle) func() {
		return func(ctx context.Context, t *testing.T, bundle *monitorBundle) func() {
			t.Helper()
			tx, err := bundle.db.Pool.Begin(ctx)
			require.NoError(t, err)
			t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(ctx)) })
			_, err = tx.Exec(ctx, `LOCK TABLE river_job IN `+mode+` MODE`)
			require.NoError(t, err)
			return func() { require.NoError(t, tx.Rollback(ctx)) }
		}
	}
	for name, block := range map[string]func(context.Context, *testing.T, *monitorBundle) (unblock func()){
		"ATableThatIsRewritten":   lock("ACCESS EXCLUSIVE"),
		"ATableThatTakesNoWrites": lock("SHARE"),
		"AnErrorOfTheServer": func(_ context.Context, _ *testing.T, bundle *monitorBundle) func() {
			bundle.rows.exec(`ALTER TABLE river_job RENAME COLUMN attempted_by TO hidden`)
			return func() { bundle.rows.exec(`ALTER TABLE river_job RENAME COLUMN hidden TO attempted_by`) }
		},
	} {
		t.Run("BlamesNoProcessFor"+name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			const tick, poll = 50 * time.Millisecond, time.Millisecond
			bundle := setupMonitor(ctx, t, func(_ *monitorBundle, config *freshness.MonitorConfig) {
				config.FetchPoll, config.Tick = poll, tick
			})
			bundle.rows.job(loop, "available", 0, 0, `{}`)
			fetchCtx, stopFetching := context.WithCancel(ctx)
			defer stopFetching()
			fetching(fetchCtx, bundle)
			bundle.ready(t)
			stopFetching()
			unblock := block(ctx, t, bundle)

			wedged := freshness.LimitsOf(tick, poll).FetchWedged
			eventually(t, func() bool {
				require.True(t, bundle.monitor.Live().OK)
				for _, reason := range bundle.monitor.Ready().Reasons {
					age, err := time.ParseDuration(reason.Observed["fetch_age"])
					if err == nil && age > 2*wedged {
						return true
					}
				}
				return false
			}, "readiness says for how long nothing was fetched")

			unblock()
			eventually(t, func() bool {
				live := bundle.monitor.Live()
				return !live.OK && live.Reasons[0].Code == freshness.CodeFetchStalled
			}, "the process wants a restart")
			var state string
			require.NoError(t, bundle.db.Pool.QueryRow(ctx, `SELECT state || ' ' || attempt FROM river_job WHERE queue = $1`, loop).Scan(&state))
			require.Equal(t, "available 1", state, "what was tried was taken back")
		})
	}
}
