package freshness

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"truegreen/jobs"
)

// defaultSlack is what a change of River's leader, its scheduler and a poll may
// add between two passes.
const defaultSlack = 30 * time.Second

// Loop is one thing that must keep happening, and how late it may be.
//
// A pass succeeds only if it looked for work and either moved some or found none
// due. A job that completed having done neither is no progress.
type Loop struct {
	// Budget is how long one pass may take: the timeout of its job.
	Budget time.Duration

	// GatesReadiness makes the workers of the loop's queue unready when it is red.
	// Other loops are for alerts and the console.
	GatesReadiness bool

	// Interval is how often the loop must prove itself.
	Interval time.Duration

	// ItemRedAfter is how old the oldest due item of a part of the loop may grow
	// while nothing of that part moves. 0 for a loop without items.
	ItemRedAfter time.Duration

	// JobKind is the kind of the loop's jobs, which no other loop has.
	JobKind string

	// LateAfter is the age of the last success from which the loop counts as late.
	// Defaults to Interval + Budget + Slack.
	LateAfter time.Duration

	// Name is the loop's name, which is stored: lower-case letters, digits and
	// underscores, at most 63.
	Name string

	// Queue is the queue of the loop's jobs, which no other loop has.
	Queue string

	// RedAfter is the age of the last success from which the loop counts as
	// stalled: at least, and by default, 2 × (Interval + Budget) + Slack, or
	// Interval + 2 × Budget + Slack for a scheduled loop.
	RedAfter time.Duration

	// Scheduled is for a loop that works only when something falls due, such as
	// the end of a week: its age counts from when its oldest due item did, and is
	// 0 when nothing is due. Interval is then how soon that is noticed.
	Scheduled bool

	// Slack is what a change of River's leader may add between two passes.
	// Defaults to 30 s.
	Slack time.Duration
}

// DefaultLoops returns every loop with its default thresholds, in the order in
// which they are shown.
func DefaultLoops() []Loop {
	return []Loop{
		outboxLoop("outbox_wallet", jobs.OutboxWalletArgs{}.Kind(), jobs.QueueOutboxWallet),
		outboxLoop("outbox_rolling", jobs.OutboxRollingArgs{}.Kind(), jobs.QueueOutboxRolling),
		outboxLoop("outbox_agent", jobs.OutboxAgentArgs{}.Kind(), jobs.QueueOutboxAgent),
		Loop{
			Budget:         10 * time.Second,
			GatesReadiness: true,
			Interval:       30 * time.Second,
			JobKind:        jobs.SettlementTickArgs{}.Kind(),
			Name:           "settlement_tick",
			Queue:          jobs.QueueSettlementTick,
		}.WithDefaults(),
		settlementLoop("settlement_rebate", jobs.SettlementRebateArgs{}.Kind(), jobs.QueueSettlementRebate),
		settlementLoop("settlement_cashback", jobs.SettlementCashbackArgs{}.Kind(), jobs.QueueSettlementCashback),
		settlementLoop("settlement_lossback", jobs.SettlementLossbackArgs{}.Kind(), jobs.QueueSettlementLossback),
		Loop{
			Budget:   time.Minute,
			Interval: 10 * time.Minute,
			JobKind:  jobs.MaintenanceArgs{}.Kind(),
			Name:     "maintenance",
			Queue:    jobs.QueueMaintenance,
		}.WithDefaults(),
	}
}

func outboxLoop(name, jobKind, queue string) Loop {
	return Loop{
		Budget:         10 * time.Second,
		GatesReadiness: true,
		Interval:       5 * time.Second,
		ItemRedAfter:   60 * time.Second,
		JobKind:        jobKind,
		Name:           name,
		Queue:          queue,
	}.WithDefaults()
}

func settlementLoop(name, jobKind, queue string) Loop {
	return Loop{
		Budget:    30 * time.Minute,
		Interval:  30 * time.Second,
		JobKind:   jobKind,
		Name:      name,
		Queue:     queue,
		Scheduled: true,
	}.WithDefaults()
}

// WithDefaults returns loop with its zero fields set to their defaults.
func (loop Loop) WithDefaults() Loop {
	if loop.Slack == 0 {
		loop.Slack = defaultSlack
	}
	if loop.LateAfter == 0 {
		loop.LateAfter = loop.Interval + loop.Budget + loop.Slack
	}
	if loop.RedAfter == 0 {
		loop.RedAfter = loop.leastRedAfter()
	}
	return loop
}

// leastRedAfter is the time of two whole passes and a change of leader: less
// would turn red while nothing is wrong.
func (loop Loop) leastRedAfter() time.Duration {
	if loop.Scheduled {
		return loop.Interval + 2*loop.Budget + loop.Slack
	}
	return 2*(loop.Interval+loop.Budget) + loop.Slack
}

// Config are the loops that a [Registry] registers. The zero value means
// [DefaultLoops].
type Config struct {
	// Loops are all loops of the system, in the order in which they are shown, no
	// two with the same name, kind or queue.
	Loops []Loop
}

// WithDefaults returns config with zero fields set to their defaults.
func (config Config) WithDefaults() Config {
	if config.Loops == nil {
		config.Loops = DefaultLoops()
	}
	loops := make([]Loop, len(config.Loops))
	for i, loop := range config.Loops {
		loops[i] = loop.WithDefaults()
	}
	config.Loops = loops
	return config
}

// validate says which fields are out of bounds, all of them.
func (config Config) validate() error {
	var errs []error
	if len(config.Loops) == 0 {
		errs = append(errs, errors.New("Loops must hold at least one loop"))
	}
	seen := make(map[string]string)
	for _, loop := range config.Loops {
		errs = append(errs, loop.validate())
		for _, field := range []struct{ name, value string }{
			{"Name", loop.Name}, {"JobKind", loop.JobKind}, {"Queue", loop.Queue},
		} {
			key := field.name + " " + field.value
			if other, ok := seen[key]; ok {
				errs = append(errs, fmt.Errorf("loop %s: %s must be its own, got %q, which loop %s has", loop.Name, field.name, field.value, other))
			}
			seen[key] = loop.Name
		}
	}
	return errors.Join(errs...)
}

func (loop Loop) validate() error {
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("loop "+loop.Name+": "+format, args...))
	}
	if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`).MatchString(loop.Name) {
		refuse("Name must start with a lower-case letter and have 1 to 63 of a-z 0-9 _, got %q", loop.Name)
	}
	if loop.JobKind == "" || loop.Queue == "" {
		refuse("JobKind and Queue must not be empty, got %q and %q", loop.JobKind, loop.Queue)
	}
	if loop.Interval <= 0 || loop.Budget <= 0 || loop.Slack < 0 || loop.ItemRedAfter < 0 {
		refuse("Interval and Budget must be above 0, Slack and ItemRedAfter not below it, got %s, %s, %s and %s",
			loop.Interval, loop.Budget, loop.Slack, loop.ItemRedAfter)
	}
	if least := loop.leastRedAfter(); loop.RedAfter < least {
		formula := "2 × (Interval + Budget) + Slack"
		if loop.Scheduled {
			formula = "Interval + 2 × Budget + Slack"
		}
		refuse("RedAfter must be at least %s, which is %s, got %s", least, formula, loop.RedAfter)
	}
	if least := loop.Interval + loop.Budget; loop.LateAfter < least || loop.LateAfter > loop.RedAfter {
		refuse("LateAfter must be from %s, which is Interval + Budget, to RedAfter (%s), got %s", least, loop.RedAfter, loop.LateAfter)
	}
	return errors.Join(errs...)
}
