package settlement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
)

// loudAfter is how many looks in a row may fail before that is an error: whoever
// cannot look does not know that all is well.
const loudAfter = 3

// WatchdogConfig are the settings of a [Watchdog]. The zero value means the
// defaults.
type WatchdogConfig struct {
	// Interval is the time between two looks. Defaults to 30 s.
	Interval time.Duration

	// Now is the clock that Repeat goes by, for tests. Defaults to time.Now.
	Now func() time.Time

	// Repeat is how long an alarm that stands is not told again. Defaults to 10 min.
	Repeat time.Duration

	// Timeout bounds one look, the wait for a free connection included. Defaults to
	// 5 s.
	Timeout time.Duration
}

// Watchdog sees what of settlements is not done, and says so in the log. It is no
// job, so it sees it also when no job is worked.
//
// It judges rows alone: no loop's verdict, and nothing that a job said of itself.
type Watchdog struct {
	config  WatchdogConfig
	logger  *slog.Logger
	service *Service
}

// NewWatchdog returns a watchdog over the settlements of a service.
func NewWatchdog(service *Service, logger *slog.Logger, config WatchdogConfig) *Watchdog {
	setDefault(&config.Interval, 30*time.Second)
	setDefault(&config.Repeat, 10*time.Minute)
	setDefault(&config.Timeout, 5*time.Second)
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Watchdog{config: config, logger: logger, service: service}
}

// Look returns what stands now, up to 100 alarms. It changes nothing, and sees one
// state of the database. With an error it returns what it found all the same: a
// programme that cannot be read hides no other.
func (watchdog *Watchdog) Look(ctx context.Context) (AlarmReport, error) {
	ctx, cancel := context.WithTimeout(ctx, watchdog.config.Timeout)
	defer cancel()
	var report AlarmReport
	var unread error
	options := pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}
	err := pgx.BeginTxFunc(ctx, watchdog.service.pool, options, func(tx pgx.Tx) error {
		alarms, numRuns, err := alarmsOfRuns(ctx, tx)
		if err != nil {
			return err
		}
		missing, err := periodsWithoutRun(ctx, tx)
		if err != nil {
			unread = err
		}
		report.Alarms = shorten(append(alarms, missing...))
		report.NumMore = numRuns + len(missing) - len(report.Alarms)
		return nil
	})
	if err = errors.Join(unread, err); err != nil {
		return report, fmt.Errorf("look for alarms of settlements: %w", err)
	}
	return report, nil
}

// alarmsOfRuns reads the alarms that the database knows by itself, not all if
// there are very many, and how many there are.
func alarmsOfRuns(ctx context.Context, tx pgx.Tx) (alarms []Alarm, numStanding int, err error) {
	rows, err := queries.SettlementAlarmList(ctx, tx, &dbsqlc.SettlementAlarmListParams{MaxAlarms: maxAlarms})
	if err != nil {
		return nil, 0, fmt.Errorf("list alarms of runs: %w", err)
	}
	for _, row := range rows {
		alarms = append(alarms, alarmOf(row))
		numStanding = int(row.NumStanding)
	}
	return alarms, numStanding, nil
}

// periodsWithoutRun lists the periods that the tick should have given a run, also
// when some programmes could not be read. It changes nothing.
func periodsWithoutRun(ctx context.Context, tx pgx.Tx) ([]Alarm, error) {
	tick, err := queries.SettlementAlarmTick(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("read the patience with the tick: %w", err)
	}
	codes, err := queries.ProgrammeCodes(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("list programmes: %w", err)
	}
	var alarms []Alarm
	var failed error
	for _, code := range codes {
		missing, err := dueWithoutRun(ctx, tx, code, tick.Now)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("look for periods of programme %s: %w", code, err))
			continue
		}
		for _, p := range missing {
			if alarm := alarmOfPeriod(p, code, tick); alarm.Age > tick.TickAfter {
				alarms = append(alarms, alarm)
			}
		}
	}
	return alarms, failed
}

func alarmOfPeriod(p planned, code string, tick *dbsqlc.SettlementAlarmTickRow) Alarm {
	// Of a period that was over before anybody approved its terms, no tick could know. A
	// version that is approved later does not begin it anew.
	since := p.dueAt
	if p.owedAt.After(since) {
		since = p.owedAt
	}
	detail := fmt.Sprintf("due by version %d, and no tick has given it a run", p.version.Number)
	if tick.Pause != "" {
		detail += "; " + tick.Pause
	}
	weight := WeightPage
	if tick.Pause != "" {
		weight = WeightTicket
	}
	return Alarm{
		Age:       tick.Now.Sub(since),
		Detail:    detail,
		Kind:      AlarmPeriodWithoutRun,
		Loop:      tickLoop,
		Paused:    tick.Pause != "",
		Period:    p.span.Key,
		Programme: code,
		Since:     since,
		Weight:    weight,
	}
}

// Run looks until ctx is done, and tells of each alarm when it is new, again while
// it stands, and when it has ended. The first look comes after an interval: what
// was missed while nothing ran, the first tick makes up for.
func (watchdog *Watchdog) Run(ctx context.Context) {
	ticker := time.NewTicker(watchdog.config.Interval)
	defer ticker.Stop()
	memory := &alarmMemory{told: make(map[alarmKey]told), watchdog: watchdog}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		report, err := watchdog.Look(ctx)
		if ctx.Err() != nil {
			return
		}
		memory.tell(ctx, report, err)
	}
}

// told is an alarm that was told.
type told struct {
	alarm Alarm
	at    time.Time // when last
}

// alarmMemory is what a watchdog has told.
type alarmMemory struct {
	moreAt    time.Time // when it was told last that there are more; zero: there are none
	numFailed int       // looks in a row
	told      map[alarmKey]told
	watchdog  *Watchdog
}

// tell logs what is new since the last look, one line each.
func (memory *alarmMemory) tell(ctx context.Context, report AlarmReport, failure error) {
	logger, now := memory.watchdog.logger, memory.watchdog.config.Now()
	memory.tellFailure(ctx, failure)
	seen := make(map[alarmKey]bool, len(report.Alarms))
	for i := range report.Alarms {
		alarm := &report.Alarms[i]
		key := alarm.key()
		seen[key] = true
		before, standing := memory.told[key]
		switch {
		case !standing:
			logger.LogAttrs(ctx, alarm.level(), "settlement alarm", alarm.attributes()...)
		case now.Sub(before.at) >= memory.watchdog.config.Repeat:
			logger.LogAttrs(ctx, alarm.level(), "settlement alarm stands", alarm.attributes()...)
		default:
			continue
		}
		memory.told[key] = told{alarm: *alarm, at: now}
	}
	memory.tellMore(ctx, report.NumMore, now)
	for key := range memory.told {
		switch {
		case seen[key] || failure != nil:
			// What could not be looked for may stand.
		case report.NumMore > 0:
			// It may be among those that were left out. If it comes back, it is told anew.
			delete(memory.told, key)
		default:
			before := memory.told[key]
			delete(memory.told, key)
			logger.LogAttrs(ctx, slog.LevelInfo, "settlement alarm has ended", before.alarm.name()...)
		}
	}
}

// tellFailure says that a look failed, or that looks work again.
func (memory *alarmMemory) tellFailure(ctx context.Context, failure error) {
	logger := memory.watchdog.logger
	if failure == nil {
		if memory.numFailed > 0 {
			logger.InfoContext(ctx, "settlement watchdog looks again")
		}
		memory.numFailed = 0
		return
	}
	memory.numFailed++
	level := slog.LevelWarn
	if memory.numFailed >= loudAfter {
		level = slog.LevelError
	}
	logger.LogAttrs(ctx, level, "settlement watchdog cannot look",
		slog.Int("num_failed", memory.numFailed), slog.Any("error", failure))
}

// tellMore says that there are more alarms than are told.
func (memory *alarmMemory) tellMore(ctx context.Context, numMore int, now time.Time) {
	switch {
	case numMore == 0:
		memory.moreAt = time.Time{}
	case memory.moreAt.IsZero() || now.Sub(memory.moreAt) >= memory.watchdog.config.Repeat:
		memory.moreAt = now
		memory.watchdog.logger.LogAttrs(ctx, slog.LevelError, "settlement has more alarms than are told",
			slog.Int("num_more", numMore), slog.String("do", "SELECT * FROM settlement_alarms"))
	}
}
