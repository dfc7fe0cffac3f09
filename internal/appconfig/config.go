package appconfig

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config is every setting, read and checked.
type Config struct {
	// BrokerURL is TRUEGREEN_BROKER; empty where no broker is wanted.
	BrokerURL Secret
	// DatabaseURL is DATABASE_URL; empty where no database is wanted.
	DatabaseURL Secret
	// LeaderChange is TRUEGREEN_LEADER_CHANGE: what a change of River's leader
	// may add to the age of a loop's last success.
	LeaderChange time.Duration
	// Listen is TRUEGREEN_LISTEN, host:port.
	Listen string
	// LogFormat is TRUEGREEN_LOG, "text" or "json".
	LogFormat string
	// LogLevel is TRUEGREEN_LOG_LEVEL.
	LogLevel slog.Level
	// Loops is TRUEGREEN_LOOPS with its groups written out: names of loops, each
	// once, in the order of [Loops]. Never empty.
	Loops []string
	// Maintenance is how the loop runs that looks after the tables.
	Maintenance Maintenance
	// Outbox is how the outbox loops run.
	Outbox Outbox
	// RescueAfter is TRUEGREEN_RESCUE_AFTER: when a job whose worker is gone is
	// given to another one. Longer than any job may take.
	RescueAfter time.Duration
	// Settlement is how settlements run.
	Settlement Settlement
	// Tick is TRUEGREEN_TICK: how often a process judges itself.
	Tick time.Duration
	// Token is TRUEGREEN_TOKEN; empty when nobody may change anything by HTTP.
	Token Secret
	// URL is TRUEGREEN_URL without a slash at its end.
	URL string
	// WorkerID is TRUEGREEN_WORKER_ID, or a name that no other process has.
	WorkerID string
}

// Outbox is how the loops that publish events run, the same for all streams.
type Outbox struct {
	// AckTimeout is TRUEGREEN_OUTBOX_ACK_TIMEOUT: how long one publish waits for
	// the broker. Shorter than Lease.
	AckTimeout time.Duration
	// Batch is TRUEGREEN_OUTBOX_BATCH, in events.
	Batch int
	// BatchBytes is TRUEGREEN_OUTBOX_BATCH_BYTES, of payload and headers.
	BatchBytes int
	// Budget is TRUEGREEN_OUTBOX_BUDGET: how long one pass may take, its job's
	// timeout.
	Budget time.Duration
	// Interval is TRUEGREEN_OUTBOX_INTERVAL: how often a stream proves that it
	// moves, even without events.
	Interval time.Duration
	// ItemRedAfter is TRUEGREEN_OUTBOX_ITEM_RED_AFTER: how old the oldest due
	// event may grow without an acknowledgement in its shard.
	ItemRedAfter time.Duration
	// Keep is TRUEGREEN_OUTBOX_KEEP: how long delivered events are kept. Longer
	// than KeepLive.
	Keep time.Duration
	// KeepLive is TRUEGREEN_OUTBOX_KEEP_LIVE: how long they stay among the
	// undelivered ones.
	KeepLive time.Duration
	// Lease is TRUEGREEN_OUTBOX_LEASE: how long a shard is left to a worker that
	// went silent. Longer than AckTimeout, shorter than Budget.
	Lease time.Duration
	// ParkAfter is TRUEGREEN_OUTBOX_PARK_AFTER: how long an event must have failed
	// by itself before it is parked.
	ParkAfter time.Duration
	// ParkFailures is TRUEGREEN_OUTBOX_PARK_FAILURES: how often.
	ParkFailures int
	// RedAfter is TRUEGREEN_OUTBOX_RED_AFTER: the age of the last success at
	// which a loop counts as stalled. At least two passes and a leader change.
	RedAfter time.Duration
	// Sweep is TRUEGREEN_OUTBOX_SWEEP: how often every process looks for due
	// events that have no job.
	Sweep time.Duration
}

// Maintenance is how the loop runs that looks after the tables.
type Maintenance struct {
	// Budget is TRUEGREEN_MAINTENANCE_BUDGET: how long one pass may take.
	Budget time.Duration
	// Interval is TRUEGREEN_MAINTENANCE_INTERVAL: how often there is one.
	Interval time.Duration
}

// Settlement is how the settlement loops run.
type Settlement struct {
	// Backoff is TRUEGREEN_SETTLEMENT_BACKOFF: how long a run waits after its
	// first pass that left something undelivered.
	Backoff time.Duration
	// Budget is TRUEGREEN_SETTLEMENT_BUDGET: how long a due run may take before its
	// loop is late; as much again later, the loop is stalled.
	Budget time.Duration
	// Chunk is TRUEGREEN_SETTLEMENT_CHUNK: how many credits share a transaction.
	Chunk int
	// Interval is TRUEGREEN_SETTLEMENT_INTERVAL: how often it is looked for what
	// is due.
	Interval time.Duration
	// LockTimeout is TRUEGREEN_SETTLEMENT_LOCK_TIMEOUT: how long a chunk waits for
	// a locked wallet.
	LockTimeout time.Duration
	// Slice is TRUEGREEN_SETTLEMENT_SLICE: how long one job works on a run before
	// it leaves the rest to the next.
	Slice time.Duration
	// TickBudget is TRUEGREEN_SETTLEMENT_TICK_BUDGET: how long one look may take.
	TickBudget time.Duration
}

// Load reads the settings for a command that obeys the given groups of them.
// flags are the command's, as [BindFlags] made them (nil for none); environ has
// the form of [os.Environ].
//
// Every setting of the environment is checked, whichever groups are asked for.
// A setting is only missed when one of its groups is asked for. [GroupDev]
// takes database and broker from flags alone and misses neither.
//
// An empty variable of the environment counts as not set. The error has one
// line for each thing that is wrong, and never shows a [Secret].
func Load(flags *pflag.FlagSet, environ []string, groups ...string) (*Config, error) {
	environment := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			environment[name] = value
		}
	}

	var config Config
	wrong := unknownNames(environment)
	refused := make(map[string]bool)
	for _, setting := range Settings() {
		text, given := setting.find(flags, environment, groups)
		if line := setting.read(&config, text, given, groups); line != "" {
			refused[setting.Name] = true
			wrong = append(wrong, line)
		}
	}
	wrong = append(wrong, complete(&config, refused)...)

	if len(wrong) > 0 {
		return nil, errors.New("read settings:\n" + strings.Join(wrong, "\n"))
	}
	return &config, nil
}

// find returns the setting's text: as given, or else its default. It is false
// when there is neither.
func (setting Setting) find(flags *pflag.FlagSet, environment map[string]string, groups []string) (string, bool) {
	if flags != nil {
		if flag := flags.Lookup(setting.Flag); flag != nil && flag.Changed {
			return flag.Value.String(), true
		}
	}
	// A database or broker that happens to be set is not for playing with.
	fromFlagAlone := setting.RequiredBy != "" && slices.Contains(groups, GroupDev)
	if value := environment[setting.Name]; value != "" && !fromFlagAlone {
		return value, true
	}
	return setting.Default, setting.Default != ""
}

// read puts text into config; the line it returns says what is wrong with it.
func (setting Setting) read(config *Config, text string, given bool, groups []string) string {
	switch {
	case !given && setting.RequiredBy != "" && slices.Contains(groups, setting.RequiredBy):
		return fmt.Sprintf("%s is required: set it, or give --%s", setting.Name, setting.Flag)
	case !given || (text != "" && setting.set(config, text)):
		return ""
	case setting.why != nil && setting.why(text) != "":
		return fmt.Sprintf("%s: %s", setting.Name, setting.why(text))
	case setting.Secret && text != "":
		return fmt.Sprintf("%s must be %s (the value is not shown, since it may hold a secret)", setting.Name, setting.Bound)
	default:
		return fmt.Sprintf("%s must be %s, got %q", setting.Name, setting.Bound, text)
	}
}

// complete works out the defaults that come from other settings and checks what
// settings must hold between them. It leaves out what rests on a refused one.
func complete(config *Config, refused map[string]bool) []string {
	if config.WorkerID == "" {
		config.WorkerID = newWorkerID()
	}
	if config.URL == "" {
		config.URL = "http://" + reachable(config.Listen)
	}

	return append(checkOutbox(config, refused), checkRescue(config, refused)...)
}

// sliceSlack is what the job of a settlement may take longer than its slice.
const sliceSlack = 15 * time.Second

// checkRescue checks that no job is taken for dead while it may still work.
func checkRescue(config *Config, refused map[string]bool) []string {
	var wrong []string
	for _, job := range []struct {
		name  string
		lasts time.Duration
		more  string
	}{
		{"TRUEGREEN_MAINTENANCE_BUDGET", config.Maintenance.Budget, ""},
		{"TRUEGREEN_OUTBOX_BUDGET", config.Outbox.Budget, ""},
		{"TRUEGREEN_SETTLEMENT_SLICE", config.Settlement.Slice + sliceSlack, " and 15s"},
		{"TRUEGREEN_SETTLEMENT_TICK_BUDGET", config.Settlement.TickBudget, ""},
	} {
		if !refused["TRUEGREEN_RESCUE_AFTER"] && !refused[job.name] && config.RescueAfter <= job.lasts {
			wrong = append(wrong, fmt.Sprintf("TRUEGREEN_RESCUE_AFTER must be longer than %s%s (%s), got %q",
				job.name, job.more, shortDuration(job.lasts), shortDuration(config.RescueAfter)))
		}
	}
	return wrong
}

// checkOutbox checks what the outbox settings must hold between them, and works
// out the default of the last.
func checkOutbox(config *Config, refused map[string]bool) []string {
	var wrong []string
	outbox := &config.Outbox
	if !refused["TRUEGREEN_OUTBOX_LEASE"] {
		if !refused["TRUEGREEN_OUTBOX_ACK_TIMEOUT"] && outbox.Lease <= outbox.AckTimeout {
			wrong = append(wrong, fmt.Sprintf("TRUEGREEN_OUTBOX_LEASE must be longer than TRUEGREEN_OUTBOX_ACK_TIMEOUT (%s), got %q",
				shortDuration(outbox.AckTimeout), shortDuration(outbox.Lease)))
		}
		if !refused["TRUEGREEN_OUTBOX_BUDGET"] && outbox.Lease >= outbox.Budget {
			wrong = append(wrong, fmt.Sprintf("TRUEGREEN_OUTBOX_LEASE must be shorter than TRUEGREEN_OUTBOX_BUDGET (%s), got %q",
				shortDuration(outbox.Budget), shortDuration(outbox.Lease)))
		}
	}

	if !refused["TRUEGREEN_OUTBOX_KEEP"] && !refused["TRUEGREEN_OUTBOX_KEEP_LIVE"] && outbox.Keep <= outbox.KeepLive {
		wrong = append(wrong, fmt.Sprintf("TRUEGREEN_OUTBOX_KEEP must be longer than TRUEGREEN_OUTBOX_KEEP_LIVE (%s), got %q",
			shortDuration(outbox.KeepLive), shortDuration(outbox.Keep)))
	}
	if refused["TRUEGREEN_LEADER_CHANGE"] || refused["TRUEGREEN_OUTBOX_BUDGET"] ||
		refused["TRUEGREEN_OUTBOX_INTERVAL"] || refused["TRUEGREEN_OUTBOX_RED_AFTER"] {
		return wrong
	}
	least := 2*(outbox.Interval+outbox.Budget) + config.LeaderChange
	if outbox.RedAfter == 0 {
		outbox.RedAfter = least
	}
	if outbox.RedAfter < least {
		wrong = append(wrong, fmt.Sprintf(
			"TRUEGREEN_OUTBOX_RED_AFTER must be at least %s, which is 2 × (TRUEGREEN_OUTBOX_INTERVAL + TRUEGREEN_OUTBOX_BUDGET) + TRUEGREEN_LEADER_CHANGE, got %q",
			shortDuration(least), shortDuration(outbox.RedAfter)))
	}
	return wrong
}

// newWorkerID names this process: two processes of one host, or of one
// container's restarts with the same process id, never share a name.
func newWorkerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	return fmt.Sprintf("%.150s-%d-%s", host, os.Getpid(), hex.EncodeToString(random))
}

// reachable turns an address to listen on into one to ask on the same machine.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen // refused already
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
