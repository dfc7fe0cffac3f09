package appconfig

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The groups of settings. A command names those it obeys and gets their flags.
const (
	GroupAPI      = "api"      // asking a running process
	GroupBroker   = "broker"   // connecting to the broker
	GroupDatabase = "database" // connecting to the database
	GroupDev      = "dev"      // the development stack
	GroupHTTP     = "http"     // answering by HTTP
	GroupLog      = "log"      // logging
	GroupWorker   = "worker"   // working loops
)

// Setting describes one setting.
type Setting struct {
	// Bound says what a value must be; it completes "must be".
	Bound string
	// Default is the value when none is given; empty for none, or for one that
	// is worked out, which Doc then says.
	Default string
	// Doc says what it is for, in full sentences.
	Doc string
	// Flag is the name of the flag, without dashes.
	Flag string
	// Groups are the commands that have the flag.
	Groups []string
	// Name is the variable of the environment.
	Name string
	// RequiredBy is the group that cannot do without a value; empty for none.
	RequiredBy string
	// Secret keeps the value out of messages.
	Secret bool
	// Value is what the help calls the value, in one word.
	Value string

	// set parses text into config, and is false where the bound is not met.
	set func(config *Config, text string) bool

	// why says what is wrong with a text that set refuses, without showing a secret;
	// "" where the bound says it all. May be nil.
	why func(text string) string
}

// Settings lists every setting, in the order in which they are documented and
// complained about.
func Settings() []Setting {
	return slices.Concat(connectionSettings(), processSettings(), outboxSettings(), keepSettings(), settlementSettings())
}

// BindFlags adds the flags of the settings in the given groups to flags. Their
// help is the first sentence of Doc.
func BindFlags(flags *pflag.FlagSet, groups ...string) {
	for _, setting := range Settings() {
		if slices.ContainsFunc(setting.Groups, func(group string) bool { return slices.Contains(groups, group) }) {
			value := &flagText{kind: setting.Value, text: setting.Default}
			short, _, _ := strings.Cut(setting.Doc, ". ")
			flags.Var(value, setting.Flag, fmt.Sprintf("%s [%s]", strings.TrimSuffix(short, "."), setting.Name))
		}
	}
}

// flagText is a flag that keeps its text for Load to judge, so that flags and
// environment share their checks and messages.
type flagText struct{ kind, text string }

func (flag *flagText) String() string        { return flag.text }
func (flag *flagText) Set(text string) error { flag.text = text; return nil }
func (flag *flagText) Type() string          { return flag.kind }

func connectionSettings() []Setting {
	return []Setting{
		{
			Bound:      "a URL such as postgres://user:password@host:5432/database, special characters of the password percent-encoded",
			Doc:        "The Postgres database. [database.md](database.md) says which options a URL may have.",
			Flag:       "database-url",
			Groups:     []string{GroupDatabase, GroupDev},
			Name:       "DATABASE_URL",
			RequiredBy: GroupDatabase,
			Secret:     true,
			Value:      "url",
			set:        func(config *Config, text string) bool { return parseDatabaseURL(&config.DatabaseURL, text) },
			why:        whyNotDatabaseURL,
		},
		{
			Bound:      "one or more URLs such as nats://host:4222 or tls://user:password@host:4222, joined by commas",
			Doc:        "The NATS JetStream servers of one cluster.",
			Flag:       "broker",
			Groups:     []string{GroupBroker},
			Name:       "TRUEGREEN_BROKER",
			RequiredBy: GroupBroker,
			Secret:     true,
			Value:      "urls",
			set:        func(config *Config, text string) bool { return parseBrokerURL(&config.BrokerURL, text) },
		},
		{
			Bound:   "host:port",
			Default: "127.0.0.1:8080",
			Doc:     "Where the process answers probes by HTTP. Port 0 takes a free one.",
			Flag:    "listen",
			Groups:  []string{GroupHTTP},
			Name:    "TRUEGREEN_LISTEN",
			Value:   "address",
			set:     func(config *Config, text string) bool { return parseAddress(&config.Listen, text) },
		},
		{
			Bound:  "a URL that starts with http:// or https:// and names a host",
			Doc:    "Where commands ask a running process. Left out: TRUEGREEN_LISTEN on this machine.",
			Flag:   "url",
			Groups: []string{GroupAPI},
			Name:   "TRUEGREEN_URL",
			Value:  "url",
			set:    func(config *Config, text string) bool { return parseHTTPURL(&config.URL, text) },
		},
		{
			Bound:  "16 to 256 visible ASCII characters",
			Doc:    "What a request must carry that changes something. There is no such request yet; dev makes a token for those to come.",
			Flag:   "token",
			Groups: []string{GroupAPI, GroupHTTP},
			Name:   "TRUEGREEN_TOKEN",
			Secret: true,
			Value:  "token",
			set:    func(config *Config, text string) bool { return parseToken(&config.Token, text) },
		},
	}
}

func processSettings() []Setting {
	return []Setting{
		{
			Bound:   "text or json",
			Default: "text",
			Doc:     "The form of log lines.",
			Flag:    "log",
			Groups:  []string{GroupLog},
			Name:    "TRUEGREEN_LOG",
			Value:   "form",
			set: func(config *Config, text string) bool {
				config.LogFormat = text
				return text == "text" || text == "json"
			},
		},
		{
			Bound:   "debug, info, warn or error",
			Default: "info",
			Doc:     "The least level that is logged.",
			Flag:    "log-level",
			Groups:  []string{GroupLog},
			Name:    "TRUEGREEN_LOG_LEVEL",
			Value:   "level",
			set:     func(config *Config, text string) bool { return parseLevel(&config.LogLevel, text) },
		},
		{
			Bound:   "a list, joined by commas, of " + strings.Join(loopWords(), ", "),
			Default: allLoops,
			Doc:     "The loops that the worker works. Every worker knows and watches all of them.",
			Flag:    "loops",
			Groups:  []string{GroupWorker},
			Name:    "TRUEGREEN_LOOPS",
			Value:   "loops",
			set: func(config *Config, text string) bool {
				loops, ok := parseLoops(text)
				config.Loops = loops
				return ok
			},
		},
		{
			Bound:  "1 to 200 visible ASCII characters, and not \"retired\"",
			Doc:    "The name of this process among the workers; no two live ones may share one. The id of one that died is free after 6 × `TRUEGREEN_TICK`, and a start waits for that. Left out: host, process id and a random part.",
			Flag:   "worker-id",
			Groups: []string{GroupWorker},
			Name:   "TRUEGREEN_WORKER_ID",
			Value:  "name",
			set: func(config *Config, text string) bool {
				config.WorkerID = text
				// Progress of workers that are gone is kept under this name.
				return isVisibleASCII(text, 1, 200) && text != "retired"
			},
		},
		duration(Setting{
			Default: "5s",
			Doc:     "How often a process judges whether it is ready.",
			Flag:    "tick",
			Name:    "TRUEGREEN_TICK",
		}, 100*time.Millisecond, 15*time.Second, func(config *Config) *time.Duration { return &config.Tick }),
		duration(Setting{
			Default: "30s",
			Doc:     "What a change of the job queue's leader may add to the age of a loop's last success.",
			Flag:    "leader-change",
			Name:    "TRUEGREEN_LEADER_CHANGE",
		}, time.Second, 10*time.Minute, func(config *Config) *time.Duration { return &config.LeaderChange }),
		duration(Setting{
			Default: "90s",
			Doc:     "When a job whose worker is gone is given to another one. Longer than any job may take: TRUEGREEN_OUTBOX_BUDGET, TRUEGREEN_SETTLEMENT_TICK_BUDGET, and TRUEGREEN_SETTLEMENT_SLICE with 15 s for its last chunk.",
			Flag:    "rescue-after",
			Name:    "TRUEGREEN_RESCUE_AFTER",
		}, time.Second, time.Hour, func(config *Config) *time.Duration { return &config.RescueAfter }),
	}
}

func outboxSettings() []Setting {
	return []Setting{
		duration(Setting{
			Default: "5s",
			Doc:     "How often each stream proves that it moves, even when no events come.",
			Flag:    "outbox-interval",
			Name:    "TRUEGREEN_OUTBOX_INTERVAL",
		}, 100*time.Millisecond, 5*time.Minute, func(config *Config) *time.Duration { return &config.Outbox.Interval }),
		duration(Setting{
			Default: "10s",
			Doc:     "How long one pass over a shard may take, a slow broker included: the timeout of its job.",
			Flag:    "outbox-budget",
			Name:    "TRUEGREEN_OUTBOX_BUDGET",
		}, 200*time.Millisecond, 75*time.Second, func(config *Config) *time.Duration { return &config.Outbox.Budget }),
		duration(Setting{
			Default: "60s",
			Doc:     "How old a shard's oldest due event may grow, with no acknowledgement in that shard meanwhile, before its loop counts as stalled.",
			Flag:    "outbox-item-red-after",
			Name:    "TRUEGREEN_OUTBOX_ITEM_RED_AFTER",
		}, time.Second, time.Hour, func(config *Config) *time.Duration { return &config.Outbox.ItemRedAfter }),
		duration(Setting{
			Doc:  "The age of a loop's last success at which it counts as stalled. Left out, and at least: 2 × (TRUEGREEN_OUTBOX_INTERVAL + TRUEGREEN_OUTBOX_BUDGET) + TRUEGREEN_LEADER_CHANGE, which is two passes and a change of leader.",
			Flag: "outbox-red-after",
			Name: "TRUEGREEN_OUTBOX_RED_AFTER",
		}, 100*time.Millisecond, 24*time.Hour, func(config *Config) *time.Duration { return &config.Outbox.RedAfter }),
		duration(Setting{
			Default: "3s",
			Doc:     "How long one publish waits for the broker's acknowledgement.",
			Flag:    "outbox-ack-timeout",
			Name:    "TRUEGREEN_OUTBOX_ACK_TIMEOUT",
		}, 50*time.Millisecond, time.Minute, func(config *Config) *time.Duration { return &config.Outbox.AckTimeout }),
		duration(Setting{
			Default: "6s",
			Doc:     "How long a shard is left to the worker that drains it, counted from its last sign of life. Longer than TRUEGREEN_OUTBOX_ACK_TIMEOUT, shorter than TRUEGREEN_OUTBOX_BUDGET.",
			Flag:    "outbox-lease",
			Name:    "TRUEGREEN_OUTBOX_LEASE",
		}, 100*time.Millisecond, time.Minute, func(config *Config) *time.Duration { return &config.Outbox.Lease }),
		count(Setting{
			Default: "1000",
			Doc:     "How many events one publish takes at most.",
			Flag:    "outbox-batch",
			Name:    "TRUEGREEN_OUTBOX_BATCH",
		}, 1, 10_000, func(config *Config) *int { return &config.Outbox.Batch }),
		count(Setting{
			Default: "2097152",
			Doc:     "How many bytes of payload and headers one publish takes at most; a larger event goes alone. The link to the broker must carry this within half of TRUEGREEN_OUTBOX_ACK_TIMEOUT (11 Mbit/s as it is); where it cannot, and where reading takes too long, batches shrink by themselves. A process holds about three times as much in memory for each shard that it drains: with all twelve shards of the three streams about 75 MB.",
			Flag:    "outbox-batch-bytes",
			Name:    "TRUEGREEN_OUTBOX_BATCH_BYTES",
		}, 64<<10, 256<<20, func(config *Config) *int { return &config.Outbox.BatchBytes }),
		duration(Setting{
			Default: "1s",
			Doc:     "How often every worker looks for due events that no job will publish: the longest that a lost wake-up costs.",
			Flag:    "outbox-sweep",
			Name:    "TRUEGREEN_OUTBOX_SWEEP",
		}, 50*time.Millisecond, time.Minute, func(config *Config) *time.Duration { return &config.Outbox.Sweep }),
	}
}

func keepSettings() []Setting {
	return []Setting{
		count(Setting{
			Default: "10",
			Doc:     "How often an event must have failed by itself before it is parked for a person. An outage of the broker is no such failure.",
			Flag:    "outbox-park-failures",
			Name:    "TRUEGREEN_OUTBOX_PARK_FAILURES",
		}, 1, 1000, func(config *Config) *int { return &config.Outbox.ParkFailures }),
		duration(Setting{
			Default: "10m",
			Doc:     "How long ago the first of those failures must be before the event is parked.",
			Flag:    "outbox-park-after",
			Name:    "TRUEGREEN_OUTBOX_PARK_AFTER",
		}, 100*time.Millisecond, 24*time.Hour, func(config *Config) *time.Duration { return &config.Outbox.ParkAfter }),
		duration(Setting{
			Default: "24h",
			Doc:     "How long delivered events stay in the table of undelivered ones, in which a key_seq that is used twice is refused.",
			Flag:    "outbox-keep-live",
			Name:    "TRUEGREEN_OUTBOX_KEEP_LIVE",
		}, time.Second, 31*24*time.Hour, func(config *Config) *time.Duration { return &config.Outbox.KeepLive }),
		duration(Setting{
			Default: "720h",
			Doc:     "How long delivered events are kept, and publish jobs that failed for good. Undelivered events are kept for ever. Longer than TRUEGREEN_OUTBOX_KEEP_LIVE.",
			Flag:    "outbox-keep",
			Name:    "TRUEGREEN_OUTBOX_KEEP",
		}, time.Minute, 10*366*24*time.Hour, func(config *Config) *time.Duration { return &config.Outbox.Keep }),
		duration(Setting{
			Default: "10m",
			Doc:     "How often the tables are looked after: partitions made ahead, delivered events moved, old ones dropped.",
			Flag:    "maintenance-interval",
			Name:    "TRUEGREEN_MAINTENANCE_INTERVAL",
		}, time.Second, 24*time.Hour, func(config *Config) *time.Duration { return &config.Maintenance.Interval }),
		duration(Setting{
			Default: "1m",
			Doc:     "How long one pass of that may take: the timeout of its job.",
			Flag:    "maintenance-budget",
			Name:    "TRUEGREEN_MAINTENANCE_BUDGET",
		}, time.Second, 75*time.Second, func(config *Config) *time.Duration { return &config.Maintenance.Budget }),
	}
}

func settlementSettings() []Setting {
	return []Setting{
		duration(Setting{
			Default: "30s",
			Doc:     "How often it is looked for closed periods that have no run, and for runs that have no job.",
			Flag:    "settlement-interval",
			Name:    "TRUEGREEN_SETTLEMENT_INTERVAL",
		}, time.Second, 10*time.Minute, func(config *Config) *time.Duration { return &config.Settlement.Interval }),
		duration(Setting{
			Default: "10s",
			Doc:     "How long one such look may take: the timeout of its job.",
			Flag:    "settlement-tick-budget",
			Name:    "TRUEGREEN_SETTLEMENT_TICK_BUDGET",
		}, 200*time.Millisecond, 75*time.Second, func(config *Config) *time.Duration { return &config.Settlement.TickBudget }),
		duration(Setting{
			Default: "30m",
			Doc:     "How long a run that waits for nobody may take before its loop is late; as much again later, the loop is stalled.",
			Flag:    "settlement-budget",
			Name:    "TRUEGREEN_SETTLEMENT_BUDGET",
		}, time.Second, 24*time.Hour, func(config *Config) *time.Duration { return &config.Settlement.Budget }),
		duration(Setting{
			Default: "60s",
			Doc:     "How long one job works on a run before it leaves the rest to a successor.",
			Flag:    "settlement-slice",
			Name:    "TRUEGREEN_SETTLEMENT_SLICE",
		}, 10*time.Millisecond, time.Minute, func(config *Config) *time.Duration { return &config.Settlement.Slice }),
		count(Setting{
			Default: "300",
			Doc:     "How many credits share one transaction. Their wallets are locked until it ends.",
			Flag:    "settlement-chunk",
			Name:    "TRUEGREEN_SETTLEMENT_CHUNK",
		}, 1, 10_000, func(config *Config) *int { return &config.Settlement.Chunk }),
		duration(Setting{
			Default: "3s",
			Doc:     "How long credits wait for a wallet that another transaction has locked, before they are left to the next pass.",
			Flag:    "settlement-lock-timeout",
			Name:    "TRUEGREEN_SETTLEMENT_LOCK_TIMEOUT",
		}, time.Millisecond, 15*time.Second, func(config *Config) *time.Duration { return &config.Settlement.LockTimeout }),
		duration(Setting{
			Default: "15s",
			Doc:     "How long a run waits after its first pass that left something undelivered. Each further one doubles it, up to 10 minutes.",
			Flag:    "settlement-backoff",
			Name:    "TRUEGREEN_SETTLEMENT_BACKOFF",
		}, 10*time.Millisecond, 10*time.Minute, func(config *Config) *time.Duration { return &config.Settlement.Backoff }),
	}
}
