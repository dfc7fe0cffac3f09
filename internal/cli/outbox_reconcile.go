package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// defaultGrace is longer than a publish job may hold an event before another one
// takes it over.
const defaultGrace = 2 * time.Minute

// OutboxReconcileRequest asks for a comparison.
type OutboxReconcileRequest struct {
	Adopt  bool          // mend what can be mended
	As     string        // who wants it; never empty
	Grace  time.Duration // how long an event may be at the broker, and not be marked; not below 0
	Stream string        // empty for all
}

// OutboxReconciled is what a comparison found.
type OutboxReconciled struct {
	Findings []OutboxFinding
	NumOpen  int64 // findings that are left to be looked at, told or not
	Streams  []OutboxComparison
}

// OutboxFinding is one disagreement of the rows with the broker.
type OutboxFinding struct {
	Detail   string `json:"detail"`   // what is wrong and what to do, in a sentence
	EventID  string `json:"event_id"` // empty if it is of no single event
	Key      string `json:"key"`      // empty if it is of no key
	Kind     string `json:"kind"`     // such as lost
	Mended   bool   `json:"mended"`   // adopted: nothing is left to do
	Sequence uint64 `json:"sequence"` // at the broker; 0 if it has none
	Stream   string `json:"stream"`
}

// OutboxComparison is what one stream has on either side.
type OutboxComparison struct {
	Counts         []OutboxFindingCount `json:"counts"` // kinds without findings are left out
	FirstSequence  uint64               `json:"first_sequence"`
	LastSequence   uint64               `json:"last_sequence"`
	Name           string               `json:"name"` // the broker's, such as TRUEGREEN_WALLET
	NumAdopted     int64                `json:"num_adopted"`
	NumDiscarded   int64                `json:"num_discarded"`
	NumExpired     int64                `json:"num_expired"`   // published; the broker's retention may have removed them
	NumForeign     int64                `json:"num_foreign"`   // messages on subjects of others, which are left out
	NumForgotten   int64                `json:"num_forgotten"` // messages that the database no longer keeps
	NumInFlight    int64                `json:"num_in_flight"`
	NumLifted      int64                `json:"num_lifted"` // keys whose last number was raised
	NumMessages    int64                `json:"num_messages"`
	NumParked      int64                `json:"num_parked"`
	NumPublished   int64                `json:"num_published"`
	NumRecent      int64                `json:"num_recent"`  // published since the reading began
	NumRepeats     int64                `json:"num_repeats"` // messages whose event is stored before them already
	NumUndelivered int64                `json:"num_undelivered"`
	Stream         string               `json:"stream"`
}

// OutboxFindingCount is how many findings of one kind a stream has.
type OutboxFindingCount struct {
	Kind   string `json:"kind"`
	Mended int64  `json:"mended"` // of Total
	Total  int64  `json:"total"`
}

func (p *program) outboxReconcileCommand() *cobra.Command {
	var asJSON bool
	var request OutboxReconcileRequest
	command := &cobra.Command{
		Use:   "reconcile [flags]",
		Short: "Compares the events with what the broker holds: exit code 0 no findings, 1 findings",
		Long: `Reads the broker's streams and the events of the database, and prints where the
two disagree. Exit code 0: nowhere. 1: there are findings, or it could not be
found out. It can run beside live traffic; a million events take some 20 seconds.

An event that the broker has and that is not marked yet is a finding only after
--grace; 0s is for a system at rest, without workers.

EXPIRED are published events that the broker's stream may have removed by itself,
by its limits as they are now. On a stream without such limits there are none:
what is gone from it is lost.

With --adopt, for after the restore of an older backup of the database, events
that the broker has are marked as published, and the numbers of keys are raised
to the broker's; what was adopted leaves no finding. Everything else changes
nothing.`,
		Args: noArgs,
	}
	flags := command.Flags()
	flags.BoolVar(&request.Adopt, "adopt", false, "mark as published what the broker has")
	p.asFlag(command, &request.As)
	flags.DurationVar(&request.Grace, "grace", defaultGrace, "how long an event may be at the broker and not be marked")
	flags.StringVar(&request.Stream, "stream", "", "a stream, such as wallet; without it, all")
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupBroker, groupDatabase}, func(ctx context.Context, _ []string) error {
		if request.Grace < 0 {
			return WrongUsage(fmt.Errorf("--grace must not be below 0s, got %s", request.Grace))
		}
		if flags.Changed("stream") && request.Stream == "" {
			return WrongUsage(errors.New("--stream must not be empty; leave it out for all"))
		}
		if err := checkAs(&request.As); err != nil {
			return err
		}
		reconciled, err := p.Actions.OutboxReconcile(ctx, request)
		var printErr error
		switch {
		case asJSON:
			printErr = p.printJSON(reconciled.json(err == nil))
		case len(reconciled.Streams) > 0:
			printErr = p.printf("%s", reconciled.text(err == nil))
		}
		if err != nil || printErr != nil {
			return errors.Join(err, printErr)
		}
		if reconciled.NumOpen > 0 {
			return exit(ExitFindings)
		}
		return nil
	})
}

// json is what is printed; complete says that all streams were compared.
func (reconciled OutboxReconciled) json(complete bool) map[string]any {
	streams := append([]OutboxComparison{}, reconciled.Streams...)
	for i := range streams {
		streams[i].Counts = append([]OutboxFindingCount{}, streams[i].Counts...)
	}
	return map[string]any{
		"complete": complete, "findings": append([]OutboxFinding{}, reconciled.Findings...), "num_open": reconciled.NumOpen, "streams": streams,
	}
}

// text is for people; complete says that all streams were compared.
func (reconciled OutboxReconciled) text(complete bool) string {
	var text strings.Builder
	rows := [][]string{{"STREAM", "MESSAGES", "REPEATS", "PUBLISHED", "UNDELIVERED", "PARKED", "DISCARDED", "IN FLIGHT", "EXPIRED", "FORGOTTEN", "ADOPTED", "FINDINGS"}}
	var numFindings int64
	var counts []string
	for i := range reconciled.Streams {
		stream := &reconciled.Streams[i]
		var num int64
		for _, kind := range stream.Counts {
			num += kind.Total
			counts = append(counts, fmt.Sprintf("%s %s %d", stream.Stream, kind.Kind, kind.Total))
		}
		numFindings += num
		row := []string{stream.Stream}
		for _, number := range []int64{
			stream.NumMessages, stream.NumRepeats, stream.NumPublished, stream.NumUndelivered, stream.NumParked, stream.NumDiscarded,
			stream.NumInFlight, stream.NumExpired, stream.NumForgotten, stream.NumAdopted, num,
		} {
			row = append(row, strconv.FormatInt(number, 10))
		}
		rows = append(rows, row)
	}
	text.WriteString(table(rows))
	for i := range reconciled.Streams {
		if stream := &reconciled.Streams[i]; stream.NumForeign > 0 {
			fmt.Fprintf(&text, "\nleft out: %s on subjects of others in %s\n", count(int(stream.NumForeign), "message"), stream.Name)
		}
	}
	if numFindings == 0 {
		if complete {
			text.WriteString("\nno findings\n")
		}
		return text.String()
	}
	fmt.Fprintf(&text, "\n%s, %d of them open: %s\n", count(int(numFindings), "finding"), reconciled.NumOpen, strings.Join(counts, ", "))
	if numFindings > int64(len(reconciled.Findings)) {
		fmt.Fprintf(&text, "the first %d of them:\n", len(reconciled.Findings))
	}
	rows = [][]string{{"STREAM", "FINDING", "PLACE", "EVENT ID", "KEY", "ADOPTED", "DETAIL"}}
	for _, finding := range reconciled.Findings {
		place, adopted := "-", "-"
		if finding.Sequence > 0 {
			place = strconv.FormatUint(finding.Sequence, 10)
		}
		if finding.Mended {
			adopted = "yes"
		}
		rows = append(rows, []string{
			finding.Stream, finding.Kind, place, orDash(finding.EventID), orDash(oneLine(finding.Key)), adopted, oneLine(finding.Detail),
		})
	}
	text.WriteString("\n" + table(rows))
	return text.String()
}
