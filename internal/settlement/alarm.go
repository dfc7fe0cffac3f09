package settlement

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"truegreen/internal/dbsqlc"
)

// maxAlarms bounds how many alarms one look tells of.
const maxAlarms = 100

// AlarmKind names what is wrong.
type AlarmKind string

// The alarms. AlarmKinds has their order.
const (
	AlarmApprovalOverdue  AlarmKind = "approval_overdue"   // a run waits for a person, for long
	AlarmHeldBack         AlarmKind = "held_back"          // an adjustment left out who has an undelivered credit
	AlarmInputsOverdue    AlarmKind = "inputs_overdue"     // a run waits for its inputs, which are due for long
	AlarmJobContradicts   AlarmKind = "job_contradicts"    // the end of a run's job is not that of its outcome
	AlarmNotAcknowledged  AlarmKind = "not_acknowledged"   // a run did not deliver all, and nobody has said that it is known
	AlarmPeriodWithoutRun AlarmKind = "period_without_run" // a period is due, and the tick gave it no run
	AlarmRunOverdue       AlarmKind = "run_overdue"        // a run waits for nobody, and does not end
	AlarmRunWithoutJob    AlarmKind = "run_without_job"    // a run could go on, and the tick gave it no job
)

// Weight is how urgent an alarm is.
type Weight string

// The weights, the heaviest first.
const (
	WeightPage   Weight = "page"   // nobody is paid, or books differ: it wakes somebody
	WeightTicket Weight = "ticket" // some are not paid, or a decision waits: it has time until the morning
)

// AlarmKinds lists the alarms.
func AlarmKinds() []AlarmKind {
	return []AlarmKind{
		AlarmPeriodWithoutRun, AlarmRunWithoutJob, AlarmRunOverdue, AlarmJobContradicts,
		AlarmNotAcknowledged, AlarmHeldBack, AlarmInputsOverdue, AlarmApprovalOverdue,
	}
}

// Runbook is the path of the alarm's runbook in the repository.
func (kind AlarmKind) Runbook() string {
	if kind == AlarmNotAcknowledged {
		return "docs/runbooks/settlement-undelivered.md"
	}
	return "docs/runbooks/settlement-" + strings.ReplaceAll(string(kind), "_", "-") + ".md"
}

// Alarm is what a person must know of a settlement. Two are the same when they
// are of one kind and of one run, or of one period without a run.
type Alarm struct {
	Age       time.Duration // by the database's clock
	Detail    string        // for people
	Kind      AlarmKind
	Loop      string // of the programme's kind; the tick for a period without a run
	Paused    bool   // the loop that would mend it is paused, which Detail tells
	Period    string
	Programme string
	RunID     int64 // 0 for a period without a run
	Since     time.Time
	Weight    Weight
}

// AlarmReport is what stood at one look.
type AlarmReport struct {
	Alarms  []Alarm // the heaviest first, then the oldest
	NumMore int     // alarms that stood too, and are not among them
}

// Do is the command that comes next.
func (alarm *Alarm) Do() string {
	if alarm.Paused {
		loop := alarm.Loop
		if alarm.Kind == AlarmRunWithoutJob {
			loop = tickLoop
		}
		return fmt.Sprintf("truegreen loops resume %s --reason TEXT", loop)
	}
	switch alarm.Kind {
	case AlarmPeriodWithoutRun:
		return fmt.Sprintf("truegreen settlement run %s %s", alarm.Programme, alarm.Period)
	case AlarmHeldBack, AlarmInputsOverdue:
		return fmt.Sprintf("truegreen settlement preview %s %s", alarm.Programme, alarm.Period)
	case AlarmApprovalOverdue:
		return fmt.Sprintf("truegreen settlement show %d; truegreen settlement approve %[1]d", alarm.RunID)
	case AlarmNotAcknowledged:
		return fmt.Sprintf("truegreen settlement show %d; truegreen settlement acknowledge %[1]d --reason TEXT", alarm.RunID)
	case AlarmJobContradicts:
		return "truegreen audit"
	default:
		return fmt.Sprintf("truegreen settlement show %d", alarm.RunID)
	}
}

// DoAll is the command that comes next for several such alarms; empty if each has its
// own.
func (alarm *Alarm) DoAll() string {
	if alarm.Kind == AlarmNotAcknowledged && alarm.Weight == WeightTicket {
		return "truegreen settlement acknowledge --all --reason TEXT"
	}
	return ""
}

// level is how loud an alarm is: only what wakes somebody is an error.
func (alarm *Alarm) level() slog.Level {
	if alarm.Weight == WeightPage {
		return slog.LevelError
	}
	return slog.LevelWarn
}

// attributes are the alarm's facts, in the order in which one reads them.
func (alarm *Alarm) attributes() []slog.Attr {
	return append(alarm.name(),
		slog.String("weight", string(alarm.Weight)),
		slog.String("age", alarm.Age.Round(time.Second).String()),
		slog.String("detail", alarm.Detail),
		slog.String("do", alarm.Do()),
		slog.String("runbook", alarm.Kind.Runbook()),
	)
}

// name are the attributes that say which alarm it is.
func (alarm *Alarm) name() []slog.Attr {
	attributes := []slog.Attr{
		slog.String("alarm", string(alarm.Kind)),
		slog.String("programme", alarm.Programme),
		slog.String("period", alarm.Period),
	}
	if alarm.RunID != 0 {
		attributes = append(attributes, slog.Int64("run_id", alarm.RunID))
	}
	return append(attributes, slog.String("since", alarm.Since.UTC().Format(time.RFC3339)))
}

// alarmKey tells alarms apart.
type alarmKey struct {
	kind      AlarmKind
	period    string
	programme string
	runID     int64
}

func (alarm *Alarm) key() alarmKey {
	return alarmKey{kind: alarm.Kind, period: alarm.Period, programme: alarm.Programme, runID: alarm.RunID}
}

func alarmOf(row *dbsqlc.SettlementAlarmListRow) Alarm {
	return Alarm{
		Age:       row.Age,
		Detail:    row.Detail,
		Kind:      AlarmKind(row.Alarm),
		Loop:      row.Loop,
		Paused:    row.Paused,
		Period:    row.Period,
		Programme: row.Programme,
		RunID:     row.RunID,
		Since:     row.Since,
		Weight:    Weight(row.Weight),
	}
}

// shorten keeps the alarms that one look tells of: of each kind and weight the oldest,
// then of each the second oldest, and so on, so that none hides another behind its
// number. It returns them in the order in which they are shown.
func shorten(alarms []Alarm) []Alarm {
	weights := []Weight{WeightPage, WeightTicket}
	show := func(a, b Alarm) int {
		return cmp.Or(
			cmp.Compare(slices.Index(weights, a.Weight), slices.Index(weights, b.Weight)),
			a.Since.Compare(b.Since), cmp.Compare(a.RunID, b.RunID),
			cmp.Compare(a.Programme, b.Programme), cmp.Compare(a.Period, b.Period),
		)
	}
	slices.SortFunc(alarms, show)
	if len(alarms) <= maxAlarms {
		return alarms
	}
	type group struct {
		kind   AlarmKind
		weight Weight
	}
	numOf := make(map[group]int)
	place := make(map[alarmKey]int, len(alarms))
	for i := range alarms {
		of := group{kind: alarms[i].Kind, weight: alarms[i].Weight}
		place[alarms[i].key()] = numOf[of]
		numOf[of]++
	}
	slices.SortStableFunc(alarms, func(a, b Alarm) int { return cmp.Compare(place[a.key()], place[b.key()]) })
	alarms = alarms[:maxAlarms]
	slices.SortFunc(alarms, show)
	return alarms
}
