package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"truegreen/internal/cli"
	"truegreen/internal/freshness"
	"truegreen/internal/outbox"
	"truegreen/internal/settlement"
)

const (
	// statusReadTimeout bounds each reading that has no bound of its own.
	statusReadTimeout = 5 * time.Second

	// workerSilentAfter is when a process that was ready counts as gone.
	workerSilentAfter = 30 * time.Second

	// workerShownFor is how long a process that went silent is still listed.
	workerShownFor = time.Hour
)

// Status reports how everything stands.
func (actions *actions) Status(ctx context.Context) (cli.StatusReport, error) {
	pool, err := actions.open(ctx)
	if err != nil {
		return cli.StatusReport{}, err
	}
	defer pool.Close()
	if err := checkSchema(ctx, pool); err != nil {
		return cli.StatusReport{}, err
	}
	// What cannot be read is a reason of its own, and hides nothing else.
	var read standing
	read.loops, read.loopsErr = freshness.ReadLoops(ctx, pool)
	streamsCtx, cancel := context.WithTimeout(ctx, statusReadTimeout)
	read.streams, read.streamsErr = outbox.ReadStatus(streamsCtx, pool)
	cancel()
	workersCtx, cancel := context.WithTimeout(ctx, statusReadTimeout)
	read.workers, read.workersErr = freshness.ReadWorkers(workersCtx, pool)
	cancel()
	service, err := newSettlement(pool, actions.logger, actions.config)
	if err != nil {
		return cli.StatusReport{}, err
	}
	acceptedCtx, cancel := context.WithTimeout(ctx, statusReadTimeout)
	accepted, err := service.Accepted(acceptedCtx)
	cancel()
	read.acceptedErr = err
	read.alarms, read.unread = settlement.NewWatchdog(service, actions.logger, settlement.WatchdogConfig{}).Look(ctx)
	report := statusReport(read)
	for _, one := range accepted {
		report.Accepted = append(report.Accepted, settlementAcceptance(one))
	}
	return report, nil
}

// standing is what the database says of how everything stands.
type standing struct {
	acceptedErr error // why what was accepted could not be read
	alarms      settlement.AlarmReport
	loops       []freshness.LoopStatus
	loopsErr    error // why the loops could not be read
	streams     []outbox.StreamStatus
	streamsErr  error // why the streams could not be read
	unread      error // what of the alarms could not be read
	workers     []freshness.WorkerStatus
	workersErr  error // why the processes could not be read
}

// statusReporter gathers a report and its reasons.
type statusReporter struct{ cli.StatusReport }

func (report *statusReporter) raise(level cli.Level, format string, args ...any) {
	if report.Level != cli.LevelBad {
		report.Level = level
	}
	report.Reasons = append(report.Reasons, fmt.Sprintf(format, args...))
}

// statusReport turns what was read into what is shown.
func statusReport(read standing) cli.StatusReport {
	report := &statusReporter{cli.StatusReport{Level: cli.LevelGood}}
	for list, err := range map[string]error{"accepted": read.acceptedErr, "loops": read.loopsErr, "streams": read.streamsErr, "workers": read.workersErr} {
		if err != nil {
			report.Unread = append(report.Unread, list)
		}
	}
	slices.Sort(report.Unread)
	if read.loopsErr != nil {
		report.raise(cli.LevelBad, "loops not read: %v", read.loopsErr)
	} else {
		report.addLoops(read.loops, read.alarms.Alarms)
	}
	report.addAlarms(read.alarms, read.unread)
	if read.acceptedErr != nil {
		report.raise(cli.LevelDegraded, "accepted shortfalls not read: %v", read.acceptedErr)
	}
	if read.streamsErr != nil {
		report.raise(cli.LevelBad, "outbox streams not read: %v", read.streamsErr)
	}
	for _, stream := range read.streams {
		report.Streams = append(report.Streams, cli.StreamStatus(stream))
		if stream.Parked > 0 {
			report.raise(cli.LevelDegraded, "%d events of stream %s are parked and need a person", stream.Parked, stream.Name)
		}
	}
	if read.workersErr != nil {
		report.raise(cli.LevelBad, "workers not read: %v", read.workersErr)
	} else {
		report.addWorkers(read.workers)
	}
	return report.StatusReport
}

func (report *statusReporter) addLoops(loops []freshness.LoopStatus, alarms []settlement.Alarm) {
	if len(loops) == 0 {
		report.raise(cli.LevelBad, "no loop is registered: no worker has ever run on this database")
	}
	for _, loop := range loops {
		report.Loops = append(report.Loops, cli.LoopStatus{
			ConsecutiveFailures: loop.ConsecutiveFailures,
			GatesReadiness:      loop.Required,
			LastError:           deref(loop.LastError),
			Name:                loop.Loop,
			OldestDueAge:        loop.OldestDueAge,
			PauseReason:         deref(loop.PauseReason),
			PausedBy:            deref(loop.PausedBy),
			RedAfter:            loop.RedAfter,
			SuccessAge:          loop.SuccessAge,
			Verdict:             string(loop.Verdict),
		})
		switch {
		case loop.Verdict == freshness.VerdictUnknown && loop.Required:
			report.raise(cli.LevelBad, "loop %s is unknown: %s", loop.Loop, deref(loop.LastError))
		case loop.Verdict == freshness.VerdictUnknown:
			report.raise(cli.LevelDegraded, "loop %s is unknown: %s", loop.Loop, deref(loop.LastError))
		case loop.Verdict == freshness.VerdictFailing && loop.Required:
			report.raise(cli.LevelBad, "loop %s is %s: %s", loop.Loop, loop.Verdict, deref(loop.LastError))
		case loop.Verdict.Red() && loop.Required:
			report.raise(cli.LevelBad, "loop %s is %s", loop.Loop, loop.Verdict)
		case isExplained(loop, alarms):
			// The alarm says the same of the very run, and what to do.
		case loop.Verdict.Red() || slices.Contains([]freshness.Verdict{freshness.VerdictBehind, freshness.VerdictDegraded, freshness.VerdictLate, freshness.VerdictPaused}, loop.Verdict):
			report.raise(cli.LevelDegraded, "loop %s is %s", loop.Loop, loop.Verdict)
		}
	}
}

// isExplained reports whether an alarm tells why a loop's verdict is what it is:
// runs of its kind that are not done, or that nobody has acknowledged.
func isExplained(loop freshness.LoopStatus, alarms []settlement.Alarm) bool {
	if loop.Required || loop.Paused {
		return false
	}
	return slices.ContainsFunc(alarms, func(alarm settlement.Alarm) bool {
		switch alarm.Kind {
		case settlement.AlarmNotAcknowledged, settlement.AlarmRunOverdue, settlement.AlarmRunWithoutJob:
			return alarm.Loop == loop.Loop
		default:
			return false
		}
	})
}

func (report *statusReporter) addAlarms(alarms settlement.AlarmReport, unread error) {
	if unread != nil {
		report.raise(cli.LevelBad, "not all alarms of settlements are known: %v", unread)
	}
	report.NumMoreAlarms = alarms.NumMore
	for i := range alarms.Alarms {
		alarm := &alarms.Alarms[i]
		report.Alarms = append(report.Alarms, cli.AlarmStatus{
			Age:       alarm.Age,
			Alarm:     string(alarm.Kind),
			Detail:    alarm.Detail,
			Do:        alarm.Do(),
			DoAll:     alarm.DoAll(),
			Period:    alarm.Period,
			Programme: alarm.Programme,
			Runbook:   alarm.Kind.Runbook(),
			RunID:     alarm.RunID,
			Since:     alarm.Since,
			Weight:    string(alarm.Weight),
		})
	}
	for _, reason := range cli.AlarmReasons(report.Alarms) {
		report.raise(cli.LevelDegraded, "%s", reason)
	}
	if alarms.NumMore > 0 {
		report.raise(cli.LevelDegraded, "%d more alarms of settlements than can be listed: SELECT * FROM settlement_alarms", alarms.NumMore)
	}
}

func (report *statusReporter) addWorkers(workers []freshness.WorkerStatus) {
	numReady := 0
	for _, worker := range workers {
		if worker.SeenAge > workerShownFor || worker.StoppedAt != nil {
			continue
		}
		ready := worker.ReadyAt != nil && !worker.ReadyAt.Before(worker.SeenAt) && worker.SeenAge < workerSilentAfter
		switch {
		case ready:
			numReady++
		case worker.SeenAge < workerSilentAfter && !slices.Equal(worker.Reasons, []string{string(freshness.CodeStarting)}):
			report.raise(cli.LevelDegraded, "worker %s is not ready: %s", worker.WorkerID, strings.Join(worker.Reasons, ", "))
		}
		report.Workers = append(report.Workers, cli.WorkerStatus{
			ID: worker.WorkerID, Queues: worker.Queues, Ready: ready, Reasons: worker.Reasons, SeenAge: worker.SeenAge, Version: worker.Version,
		})
	}
	if numReady == 0 {
		report.raise(cli.LevelBad, "no worker is ready")
	}
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
