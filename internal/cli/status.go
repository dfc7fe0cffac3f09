package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Level is how everything stands, in one word.
type Level string

// The levels.
const (
	LevelGood     Level = "good"
	LevelDegraded Level = "degraded" // it works, and something wants attention
	LevelBad      Level = "bad"      // something stands still
)

// StatusReport is how everything stands, worst news first wherever order is
// free.
type StatusReport struct {
	Alarms        []AlarmStatus          `json:"alarms"` // of settlements, the first ones
	Level         Level                  `json:"level"`
	Loops         []LoopStatus           `json:"loops"`
	Accepted      []SettlementAcceptance `json:"accepted"`        // that keep partial runs from alarming
	NumMoreAlarms int                    `json:"num_more_alarms"` // that stand too
	Reasons       []string               `json:"reasons"`         // why Level is not good, one sentence each
	Streams       []StreamStatus         `json:"streams"`
	Unread        []string               `json:"unread"` // lists that are not known and therefore empty: accepted, loops, streams, workers
	Workers       []WorkerStatus         `json:"workers"`
}

// AlarmStatus is something of a settlement that a person must know of.
type AlarmStatus struct {
	Age       time.Duration `json:"-"`
	Alarm     string        `json:"alarm"` // its name
	Detail    string        `json:"detail"`
	Do        string        `json:"do"` // the command that comes next
	DoAll     string        `json:"-"`  // for several such alarms; empty if each has its own
	Period    string        `json:"period"`
	Programme string        `json:"programme"`
	Runbook   string        `json:"runbook"`
	RunID     int64         `json:"run_id"` // 0: a period that has no run
	Since     time.Time     `json:"since"`
	Weight    string        `json:"weight"` // page, ticket
}

// LoopStatus is one loop. Ages are nil where there is nothing to count from.
type LoopStatus struct {
	ConsecutiveFailures int            `json:"consecutive_failures"`
	GatesReadiness      bool           `json:"gates_readiness"`
	LastError           string         `json:"last_error"` // empty for none
	Name                string         `json:"name"`
	OldestDueAge        *time.Duration `json:"-"`
	PauseReason         string         `json:"pause_reason"` // empty while not paused
	PausedBy            string         `json:"paused_by"`    // empty while not paused
	RedAfter            time.Duration  `json:"-"`
	SuccessAge          *time.Duration `json:"-"`
	Verdict             string         `json:"verdict"`
}

// StreamStatus counts a stream's events by state.
type StreamStatus struct {
	Blocked          int64          `json:"blocked"`
	Delayed          int64          `json:"delayed"`
	LastPublishedAge *time.Duration `json:"-"`
	Name             string         `json:"name"`
	OldestDueAge     *time.Duration `json:"-"`
	Parked           int64          `json:"parked"`
	Pending          int64          `json:"pending"`
	Published        int64          `json:"published"`
}

// WorkerStatus is one process that was seen lately.
type WorkerStatus struct {
	ID      string        `json:"id"`
	Queues  []string      `json:"queues"`
	Ready   bool          `json:"ready"`
	Reasons []string      `json:"reasons"` // why it is not ready
	SeenAge time.Duration `json:"-"`
	Version string        `json:"version"`
}

// MarshalJSON adds the age, in whole milliseconds.
func (alarm AlarmStatus) MarshalJSON() ([]byte, error) {
	type plain AlarmStatus
	return json.Marshal(struct {
		plain
		AgeMS int64 `json:"age_ms"`
	}{plain(alarm), alarm.Age.Milliseconds()})
}

// maxSubjects bounds how many runs or periods the reason of several alarms names.
const maxSubjects = 3

// AlarmReasons are alarms in sentences, what to do before what may be long: one for
// each alarm and weight, with a count where several stand. They are to come in the
// order in which they are shown.
func AlarmReasons(alarms []AlarmStatus) []string {
	type group struct{ alarm, weight string }
	var order []group
	groups := make(map[group][]AlarmStatus)
	for _, alarm := range alarms {
		of := group{alarm.Alarm, alarm.Weight}
		if len(groups[of]) == 0 {
			order = append(order, of)
		}
		groups[of] = append(groups[of], alarm)
	}
	reasons := make([]string, 0, len(order))
	for _, of := range order {
		reasons = append(reasons, alarmReason(groups[of]))
	}
	return reasons
}

// alarmReason is alarms of one kind and weight in a sentence.
func alarmReason(alike []AlarmStatus) string {
	first := alike[0]
	if len(alike) == 1 {
		return fmt.Sprintf("%s: %s: %s for %s (%s): %s", first.Weight, first.subject(), first.Alarm, age(first.Age), first.Do, first.Detail)
	}
	subjects := make([]string, 0, maxSubjects)
	for i := range alike[:min(len(alike), maxSubjects)] {
		subjects = append(subjects, alike[i].subject())
	}
	named := strings.Join(subjects, ", ")
	if more := len(alike) - maxSubjects; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	do := first.DoAll
	if do == "" {
		do = first.Do + "; truegreen status --json has the others"
	}
	return fmt.Sprintf("%s: %d × %s, the oldest for %s (%s): %s; the first: %s",
		first.Weight, len(alike), first.Alarm, age(first.Age), do, named, first.Detail)
}

func (alarm *AlarmStatus) subject() string {
	if alarm.RunID == 0 {
		return fmt.Sprintf("period %s of %s", alarm.Period, alarm.Programme)
	}
	return fmt.Sprintf("run %d of %s %s", alarm.RunID, alarm.Programme, alarm.Period)
}

// MarshalJSON adds the ages, in whole milliseconds, null for none.
func (loop LoopStatus) MarshalJSON() ([]byte, error) {
	type plain LoopStatus
	return json.Marshal(struct {
		plain
		OldestDueAgeMS *int64 `json:"oldest_due_age_ms"`
		RedAfterMS     int64  `json:"red_after_ms"`
		SuccessAgeMS   *int64 `json:"success_age_ms"`
	}{plain(loop), milliseconds(loop.OldestDueAge), loop.RedAfter.Milliseconds(), milliseconds(loop.SuccessAge)})
}

// MarshalJSON adds the ages, in whole milliseconds, null for none.
func (stream StreamStatus) MarshalJSON() ([]byte, error) {
	type plain StreamStatus
	return json.Marshal(struct {
		plain
		LastPublishedAgeMS *int64 `json:"last_published_age_ms"`
		OldestDueAgeMS     *int64 `json:"oldest_due_age_ms"`
	}{plain(stream), milliseconds(stream.LastPublishedAge), milliseconds(stream.OldestDueAge)})
}

// MarshalJSON adds the age, in whole milliseconds.
func (worker WorkerStatus) MarshalJSON() ([]byte, error) {
	type plain WorkerStatus
	return json.Marshal(struct {
		plain
		SeenAgeMS int64 `json:"seen_age_ms"`
	}{plain(worker), worker.SeenAge.Milliseconds()})
}

func milliseconds(duration *time.Duration) *int64 {
	if duration == nil {
		return nil
	}
	whole := duration.Milliseconds()
	return &whole
}

func (p *program) statusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [flags]",
		Short: "Prints how everything stands: exit code 0 good, 1 degraded, 2 bad",
		Long: `Prints the loops, the streams of the outbox, the workers and the alarms of
settlements, as the database has them. Exit code 0: good. 1: degraded, it works
and something wants attention. 2: bad, something stands still, or the database
could not be asked.`,
		Args: noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		report, err := p.Actions.Status(ctx)
		if err != nil {
			return &failure{code: ExitBad, err: err}
		}
		if asJSON {
			err = p.printJSON(report.withoutNil())
		} else {
			err = p.printf("%s", report.text())
		}
		if err != nil {
			return err
		}
		switch report.Level {
		case LevelGood:
			return nil
		case LevelDegraded:
			return exit(ExitDegraded)
		case LevelBad:
			return exit(ExitBad)
		default:
			return &failure{code: ExitBad, err: fmt.Errorf("unknown level %q", report.Level)}
		}
	})
}

// withoutNil makes empty lists [] rather than null.
func (report StatusReport) withoutNil() StatusReport {
	report.Accepted = append([]SettlementAcceptance{}, report.Accepted...)
	report.Alarms = append([]AlarmStatus{}, report.Alarms...)
	report.Loops = append([]LoopStatus{}, report.Loops...)
	report.Reasons = append([]string{}, report.Reasons...)
	report.Streams = append([]StreamStatus{}, report.Streams...)
	report.Unread = append([]string{}, report.Unread...)
	report.Workers = append([]WorkerStatus{}, report.Workers...)
	for i, worker := range report.Workers {
		report.Workers[i].Queues = append([]string{}, worker.Queues...)
		report.Workers[i].Reasons = append([]string{}, worker.Reasons...)
	}
	return report
}

// noteLength bounds the queues of a worker in the table, so that the reasons behind
// them are still on the screen of somebody who was just woken. JSON has them whole.
const noteLength = 72

func (report StatusReport) text() string {
	var text strings.Builder
	text.WriteString(string(report.Level) + "\n")
	for _, reason := range report.Reasons {
		text.WriteString("  " + oneLine(reason) + "\n")
	}
	if num := len(report.Accepted); num > 0 {
		_, _ = fmt.Fprintf(&text, "  info: %s in force, by which partial runs raise no alarm (truegreen settlement accepted)\n", count(num, "acceptance"))
	}

	rows := [][]string{{"LOOP", "VERDICT", "LAST SUCCESS", "RED AFTER", "OLDEST DUE", "FAILURES", "LAST ERROR"}}
	for _, loop := range report.Loops {
		note := loop.LastError
		if loop.PausedBy != "" {
			note = fmt.Sprintf("paused by %s: %s", loop.PausedBy, loop.PauseReason)
		}
		rows = append(rows, []string{
			loop.Name, loop.Verdict, ageOr(loop.SuccessAge, "never", " ago"), age(loop.RedAfter),
			ageOr(loop.OldestDueAge, "-", ""), strconv.Itoa(loop.ConsecutiveFailures), orDash(oneLine(note)),
		})
	}
	text.WriteString("\n" + orNone(rows, report.orUnread("loops", "no loop is registered: no worker ever started on this database")))

	if len(report.Streams) > 0 {
		text.WriteString("\n" + streamTable(report.Streams))
	} else {
		text.WriteString("\n" + report.orUnread("streams", "no streams"))
	}

	rows = [][]string{{"WORKER", "READY", "SEEN", "QUEUES", "REASONS"}}
	for _, worker := range report.Workers {
		ready := "no"
		if worker.Ready {
			ready = "yes"
		}
		rows = append(rows, []string{
			worker.ID, ready, age(worker.SeenAge) + " ago", orDash(shorten(strings.Join(worker.Queues, ","), noteLength)),
			orDash(oneLine(strings.Join(worker.Reasons, "; "))),
		})
	}
	text.WriteString("\n" + orNone(rows, report.orUnread("workers", "no worker was seen lately")))
	return text.String()
}

// orUnread says of an empty list that it is not known, or else that there is none.
func (report StatusReport) orUnread(list, none string) string {
	if slices.Contains(report.Unread, list) {
		return list + ": could not be read, see above\n"
	}
	return none + "\n"
}

// streamTable counts the events of streams.
func streamTable(streams []StreamStatus) string {
	rows := [][]string{{"STREAM", "PENDING", "DELAYED", "BLOCKED", "PARKED", "PUBLISHED", "OLDEST DUE", "LAST ACKNOWLEDGED"}}
	for _, stream := range streams {
		row := []string{stream.Name}
		for _, count := range []int64{stream.Pending, stream.Delayed, stream.Blocked, stream.Parked, stream.Published} {
			row = append(row, strconv.FormatInt(count, 10))
		}
		rows = append(rows, append(row, ageOr(stream.OldestDueAge, "-", ""), ageOr(stream.LastPublishedAge, "never", " ago")))
	}
	return orNone(rows, "no streams\n")
}

// orNone is the table of rows, or none when there is only the header.
func orNone(rows [][]string, none string) string {
	if len(rows) == 1 {
		return none
	}
	return table(rows)
}
