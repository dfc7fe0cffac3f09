package appconfig_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"truegreen/internal/appconfig"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
)

func TestLoad(t *testing.T) {
	t.Parallel()

	t.Run("HasDocumentedDefaults", func(t *testing.T) {
		t.Parallel()

		config, err := appconfig.Load(nil, nil)
		require.NoError(t, err)
		require.NotEmpty(t, config.WorkerID)
		config.WorkerID = ""
		require.Equal(t, &appconfig.Config{
			LeaderChange: 30 * time.Second,
			Listen:       "127.0.0.1:8080",
			LogFormat:    "text",
			LogLevel:     slog.LevelInfo,
			Loops:        []string{"outbox_wallet", "outbox_rolling", "outbox_agent", "settlement_tick", "settlement_rebate", "settlement_cashback", "settlement_lossback", "maintenance"},
			Maintenance:  appconfig.Maintenance{Budget: time.Minute, Interval: 10 * time.Minute},
			Outbox: appconfig.Outbox{
				AckTimeout:   3 * time.Second,
				Batch:        1000,
				BatchBytes:   2097152,
				Budget:       10 * time.Second,
				Interval:     5 * time.Second,
				ItemRedAfter: time.Minute,
				Keep:         720 * time.Hour,
				KeepLive:     24 * time.Hour,
				Lease:        6 * time.Second,
				ParkAfter:    10 * time.Minute,
				ParkFailures: 10,
				RedAfter:     time.Minute,
				Sweep:        time.Second,
			},
			RescueAfter: 90 * time.Second,
			Settlement: appconfig.Settlement{
				Backoff:     15 * time.Second,
				Budget:      30 * time.Minute,
				Chunk:       300,
				Interval:    30 * time.Second,
				LockTimeout: 3 * time.Second,
				Slice:       time.Minute,
				TickBudget:  10 * time.Second,
			},
			Tick: 5 * time.Second,
			URL:  "http://127.0.0.1:8080",
		}, config)
	})

	t.Run("FlagBeatsEnvironmentBeatsDefault", func(t *testing.T) {
		t.Parallel()

		flags := parseFlags(t, []string{appconfig.GroupLog, appconfig.GroupWorker}, "--tick=1s")
		config, err := appconfig.Load(flags, []string{"TRUEGREEN_TICK=2s", "TRUEGREEN_OUTBOX_SWEEP=3s"})
		require.NoError(t, err)
		require.Equal(t, time.Second, config.Tick)
		require.Equal(t, 3*time.Second, config.Outbox.Sweep)
		require.Equal(t, "text", config.LogFormat)
	})

	t.Run("RefusesToRescueJobsThatMayStillWork", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{
			"TRUEGREEN_RESCUE_AFTER=20s", "TRUEGREEN_SETTLEMENT_SLICE=5s", "TRUEGREEN_SETTLEMENT_TICK_BUDGET=20s", "TRUEGREEN_OUTBOX_BUDGET=30s",
			"TRUEGREEN_OUTBOX_RED_AFTER=2m", "TRUEGREEN_MAINTENANCE_BUDGET=20s",
		})
		require.EqualError(t, err, strings.Join([]string{
			"read settings:",
			`TRUEGREEN_RESCUE_AFTER must be longer than TRUEGREEN_MAINTENANCE_BUDGET (20s), got "20s"`,
			`TRUEGREEN_RESCUE_AFTER must be longer than TRUEGREEN_OUTBOX_BUDGET (30s), got "20s"`,
			`TRUEGREEN_RESCUE_AFTER must be longer than TRUEGREEN_SETTLEMENT_SLICE and 15s (20s), got "20s"`,
			`TRUEGREEN_RESCUE_AFTER must be longer than TRUEGREEN_SETTLEMENT_TICK_BUDGET (20s), got "20s"`,
		}, "\n"))
	})

	t.Run("RefusesToKeepEventsNoLongerThanTheyStayLive", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{"TRUEGREEN_OUTBOX_KEEP=2h", "TRUEGREEN_OUTBOX_KEEP_LIVE=2h"})
		require.ErrorContains(t, err, `TRUEGREEN_OUTBOX_KEEP must be longer than TRUEGREEN_OUTBOX_KEEP_LIVE (2h), got "2h"`)
	})

	t.Run("ReportsEverythingAtOnceInOrder", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{
			"TRUEGREEN_OUTBOX_BATCH=0",
			"TRUEGREEN_TICK=5",
			"TRUEGREEN_LOOPS=outbox,walet",
			"TRUEGREEN_LOGG=json",
		}, appconfig.GroupBroker, appconfig.GroupDatabase)
		require.EqualError(t, err, strings.Join([]string{
			"read settings:",
			"TRUEGREEN_LOGG is not a setting; did you mean TRUEGREEN_LOG?",
			"DATABASE_URL is required: set it, or give --database-url",
			"TRUEGREEN_BROKER is required: set it, or give --broker",
			`TRUEGREEN_LOOPS must be a list, joined by commas, of all, outbox, settlement, outbox_wallet, outbox_rolling, outbox_agent, settlement_tick, settlement_rebate, settlement_cashback, settlement_lossback, maintenance, got "outbox,walet"`,
			`TRUEGREEN_TICK must be a duration with its unit, from 100ms to 15s, got "5"`,
			`TRUEGREEN_OUTBOX_BATCH must be a whole number from 1 to 10000, got "0"`,
		}, "\n"))
	})

	t.Run("MissesOnlyWhatTheCommandNeeds", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, nil, appconfig.GroupAPI, appconfig.GroupWorker)
		require.NoError(t, err)
		_, err = appconfig.Load(nil, nil, appconfig.GroupBroker)
		require.ErrorContains(t, err, "TRUEGREEN_BROKER is required")
		require.NotContains(t, err.Error(), "DATABASE_URL")
	})

	t.Run("DevObeysTheFlagAlone", func(t *testing.T) {
		t.Parallel()

		environ := []string{"DATABASE_URL=" + secretURL, "TRUEGREEN_BROKER=nats://production:4222"}
		config, err := appconfig.Load(parseFlags(t, []string{appconfig.GroupDev}), environ, appconfig.GroupDev)
		require.NoError(t, err)
		require.Empty(t, config.DatabaseURL)
		require.Empty(t, config.BrokerURL)

		flags := parseFlags(t, []string{appconfig.GroupDev}, "--database-url="+secretURL)
		config, err = appconfig.Load(flags, environ, appconfig.GroupDev)
		require.NoError(t, err)
		require.Equal(t, secretURL, config.DatabaseURL.Reveal())
	})

	t.Run("TakesEmptyVariablesForUnset", func(t *testing.T) {
		t.Parallel()

		config, err := appconfig.Load(nil, []string{"TRUEGREEN_TICK=", "TRUEGREEN_TOKEN="})
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, config.Tick)
	})

	t.Run("RefusesEmptyFlags", func(t *testing.T) {
		t.Parallel()

		flags := parseFlags(t, []string{appconfig.GroupHTTP, appconfig.GroupDatabase}, "--listen=", "--database-url=")
		_, err := appconfig.Load(flags, nil, appconfig.GroupDatabase)
		require.ErrorContains(t, err, `TRUEGREEN_LISTEN must be host:port, got ""`)
		require.ErrorContains(t, err, "DATABASE_URL must be")
	})

	t.Run("NamesEachWorkerDifferently", func(t *testing.T) {
		t.Parallel()

		one, err := appconfig.Load(nil, nil)
		require.NoError(t, err)
		other, err := appconfig.Load(nil, nil)
		require.NoError(t, err)
		require.NotEqual(t, one.WorkerID, other.WorkerID)
	})

	t.Run("AsksWhereItListens", func(t *testing.T) {
		t.Parallel()

		for listen, url := range map[string]string{
			":9000":          "http://127.0.0.1:9000",
			"0.0.0.0:9000":   "http://127.0.0.1:9000",
			"[::]:9000":      "http://127.0.0.1:9000",
			"10.0.0.5:9000":  "http://10.0.0.5:9000",
			"localhost:9000": "http://localhost:9000",
		} {
			config, err := appconfig.Load(nil, []string{"TRUEGREEN_LISTEN=" + listen})
			require.NoError(t, err, listen)
			require.Equal(t, url, config.URL, listen)
		}
		config, err := appconfig.Load(nil, []string{"TRUEGREEN_URL=https://green.example/"})
		require.NoError(t, err)
		require.Equal(t, "https://green.example", config.URL)
	})
}

func TestLoad_Bounds(t *testing.T) {
	t.Parallel()

	for _, entry := range []string{
		"DATABASE_URL=mysql://host/db",
		"DATABASE_URL=postgres://u:p@host:port/db",
		"TRUEGREEN_BROKER=http://host:4222",
		"TRUEGREEN_BROKER=nats://one:4222,two:4222",
		"TRUEGREEN_LISTEN=8080",
		"TRUEGREEN_LISTEN=host:70000",
		"TRUEGREEN_LOG=yaml",
		"TRUEGREEN_LOG_LEVEL=loud",
		"TRUEGREEN_LOOPS=,",
		"TRUEGREEN_TOKEN=short",
		"TRUEGREEN_TOKEN=with a blank in its middle",
		"TRUEGREEN_URL=127.0.0.1:8080",
		"TRUEGREEN_WORKER_ID=retired",
		"TRUEGREEN_WORKER_ID=" + strings.Repeat("x", 201),
		"TRUEGREEN_LEADER_CHANGE=-1s",
		"TRUEGREEN_TICK=16s",
		"TRUEGREEN_OUTBOX_ACK_TIMEOUT=2m",
		"TRUEGREEN_OUTBOX_BATCH=10001",
		"TRUEGREEN_OUTBOX_BATCH=many",
		"TRUEGREEN_OUTBOX_BUDGET=0s",
		"TRUEGREEN_OUTBOX_INTERVAL=0s",
		"TRUEGREEN_OUTBOX_ITEM_RED_AFTER=10ms",
		"TRUEGREEN_OUTBOX_LEASE=never",
		"TRUEGREEN_OUTBOX_RED_AFTER=0s",
		"TRUEGREEN_OUTBOX_SWEEP=1h",
	} {
		t.Run(entry[:min(len(entry), 60)], func(t *testing.T) {
			t.Parallel()

			name, _, _ := strings.Cut(entry, "=")
			_, err := appconfig.Load(nil, []string{entry})
			require.ErrorContains(t, err, "\n"+name+" must be ")
			require.Len(t, strings.Split(err.Error(), "\n"), 2, "one thing is wrong, once: %s", err)
		})
	}

	for _, entry := range []string{
		"DATABASE_URL=host=db dbname=green user=u password=p",
		"TRUEGREEN_BROKER=nats://one:4222, tls://u:p@two",
		"TRUEGREEN_LISTEN=:0",
		"TRUEGREEN_LOOPS=outbox_agent, outbox_agent",
		"TRUEGREEN_OUTBOX_BATCH=10000",
		"TRUEGREEN_OUTBOX_RED_AFTER=24h",
		"TRUEGREEN_TEST_DATABASE_URL=anything",
		"NATS_URL=anything",
	} {
		t.Run(entry, func(t *testing.T) {
			t.Parallel()

			_, err := appconfig.Load(nil, []string{entry})
			require.NoError(t, err)
		})
	}
}

func TestLoad_Loops(t *testing.T) {
	t.Parallel()

	all := []string{"outbox_wallet", "outbox_rolling", "outbox_agent", "settlement_tick", "settlement_rebate", "settlement_cashback", "settlement_lossback", "maintenance"}
	for text, loops := range map[string][]string{
		"all":                                  all,
		"outbox":                               all[:3],
		"outbox_agent,outbox_wallet":           {"outbox_wallet", "outbox_agent"},
		" outbox_rolling , outbox_rolling":     {"outbox_rolling"},
		"outbox_agent,all,outbox,outbox_agent": all,
		"settlement":                           all[3:7],
		"settlement_tick,outbox":               all[:4],
	} {
		config, err := appconfig.Load(nil, []string{"TRUEGREEN_LOOPS=" + text})
		require.NoError(t, err, text)
		require.Equal(t, loops, config.Loops, text)
	}
}

// TestLoad_Defaults keeps the documented defaults what they are without any
// settings.
func TestLoad_Defaults(t *testing.T) {
	t.Parallel()

	config, err := appconfig.Load(nil, nil)
	require.NoError(t, err)
	relay := outbox.Config{}.WithDefaults()
	require.Equal(t,
		[]any{relay.AckTimeout, relay.BatchSize, relay.LeaseTTL, relay.ParkAfter, relay.ParkAfterFailures, relay.PassBudget},
		[]any{config.Outbox.AckTimeout, config.Outbox.Batch, config.Outbox.Lease, config.Outbox.ParkAfter, config.Outbox.ParkFailures, config.Outbox.Budget})
	for _, loop := range freshness.DefaultLoops() {
		if strings.HasPrefix(loop.Name, "outbox_") {
			require.Equal(t,
				[]time.Duration{loop.Budget, loop.Interval, loop.ItemRedAfter, loop.RedAfter, loop.Slack},
				[]time.Duration{config.Outbox.Budget, config.Outbox.Interval, config.Outbox.ItemRedAfter, config.Outbox.RedAfter, config.LeaderChange})
		}
	}
}

func TestLoopGroups(t *testing.T) {
	t.Parallel()

	require.Equal(t, "all", appconfig.LoopGroups()[0].Name)
	for _, group := range appconfig.LoopGroups() {
		require.Subset(t, appconfig.Loops(), group.Loops)
		require.NotContains(t, appconfig.Loops(), group.Name)
	}
}

func TestLoad_OutboxThresholds(t *testing.T) {
	t.Parallel()

	t.Run("RedAfterFollowsTheOthers", func(t *testing.T) {
		t.Parallel()

		config, err := appconfig.Load(nil, []string{
			"TRUEGREEN_LEADER_CHANGE=3s", "TRUEGREEN_OUTBOX_ACK_TIMEOUT=500ms", "TRUEGREEN_OUTBOX_BUDGET=2s",
			"TRUEGREEN_OUTBOX_INTERVAL=1s", "TRUEGREEN_OUTBOX_LEASE=1s",
		})
		require.NoError(t, err)
		require.Equal(t, 9*time.Second, config.Outbox.RedAfter)
	})

	t.Run("RedAfterCoversTwoPassesAndALeaderChange", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{"TRUEGREEN_OUTBOX_RED_AFTER=59s"})
		require.ErrorContains(t, err, "TRUEGREEN_OUTBOX_RED_AFTER must be at least 1m,")
		require.ErrorContains(t, err, `got "59s"`)
		_, err = appconfig.Load(nil, []string{"TRUEGREEN_OUTBOX_RED_AFTER=60s"})
		require.NoError(t, err)
	})

	t.Run("LeaseOutlastsAPublishAndEndsBeforeThePass", func(t *testing.T) {
		t.Parallel()

		_, err := appconfig.Load(nil, []string{"TRUEGREEN_OUTBOX_LEASE=3s"})
		require.ErrorContains(t, err, `TRUEGREEN_OUTBOX_LEASE must be longer than TRUEGREEN_OUTBOX_ACK_TIMEOUT (3s), got "3s"`)
		_, err = appconfig.Load(nil, []string{"TRUEGREEN_OUTBOX_LEASE=10s"})
		require.ErrorContains(t, err, `TRUEGREEN_OUTBOX_LEASE must be shorter than TRUEGREEN_OUTBOX_BUDGET (10s), got "10s"`)
	})
}

func TestLoad_UnknownNames(t *testing.T) {
	t.Parallel()

	for name, line := range map[string]string{
		"TRUEGREEN_OUTBOX_BATCHES":    "TRUEGREEN_OUTBOX_BATCHES is not a setting; did you mean TRUEGREEN_OUTBOX_BATCH?",
		"TRUEGREEN_LOGLEVEL":          "TRUEGREEN_LOGLEVEL is not a setting; did you mean TRUEGREEN_LOG_LEVEL?",
		"TRUEGREEN_FOO":               "TRUEGREEN_FOO is not a setting",
		"TRUEGREEN_LGO":               "TRUEGREEN_LGO is not a setting; did you mean TRUEGREEN_LOG?",
		"TRUEGREEN_COMPLETELY_ABSENT": "TRUEGREEN_COMPLETELY_ABSENT is not a setting",
		"TRUEGREEN_":                  "TRUEGREEN_ is not a setting",
	} {
		_, err := appconfig.Load(nil, []string{name + "=1"})
		require.EqualError(t, err, "read settings:\n"+line)
	}
}

func parseFlags(t *testing.T, groups []string, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	appconfig.BindFlags(flags, groups...)
	require.NoError(t, flags.Parse(args))
	return flags
}
