package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// Bounds of how many parked events are listed at once.
const (
	defaultParkedLimit = 50
	maxParkedLimit     = 10_000
)

func (p *program) outboxCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "outbox COMMAND",
		Short: "Looks after the events that go to the broker",
	},
		p.outboxStatusCommand(), p.outboxParkedCommand(),
		p.outboxDecisionCommand(outboxDecision{
			act:  OutboxActions.OutboxRedrive,
			done: "redriven",
			long: `Makes parked events due again, as if they had never failed; a job that sends them
is assured at once. On a stream that goes on behind a parked event (park policy
skip) they are published behind later ones of their keys.`,
			outcome: redriveOutcome,
			short:   "Sends parked events again",
			verb:    "redrive",
			warn:    redriveWarnings,
		}),
		p.outboxDecisionCommand(outboxDecision{
			act:  OutboxActions.OutboxDiscard,
			done: "discarded",
			long: `Gives events up for good: they are never published. Filters find parked events; an
event that is named need not be parked, if it is not delivered. A gap marker, type
truegreen.gap.v1, takes the place of each, so that consumers see why the sequence
has a hole, and later events of their keys follow it. On a stream that continues
after a parked event (park policy skip) it did so when the event was parked.`,
			outcome: discardOutcome,
			short:   "Gives undelivered events up for good",
			verb:    "discard",
			warn:    func(OutboxDecided) []string { return nil },
		}),
		p.outboxReconcileCommand(),
	)
}

func (p *program) outboxStatusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [flags]",
		Short: "Prints each stream's events by state: exit code 0 good, 1 something is parked",
		Long: `Prints each stream's events by state, how long the oldest due one waits, and when
the broker last acknowledged one. Exit code 0: nothing is parked. 1: something is
parked and waits for a person, or the database could not be asked.

Whether events move is judged by 'truegreen status', not here: due events that
are old change no exit code of this command.`,
		Args: noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		streams, err := p.Actions.OutboxStatus(ctx)
		if err != nil {
			return err
		}
		var numParked int64
		for _, stream := range streams {
			numParked += stream.Parked
		}
		if asJSON {
			err = p.printJSON(map[string]any{"num_parked": numParked, "streams": append([]StreamStatus{}, streams...)})
		} else {
			err = p.printf("%s%s", streamTable(streams), parkedSteps(numParked))
		}
		if err == nil && numParked > 0 {
			return exit(ExitFindings)
		}
		return err
	})
}

// parkedSteps says what waits for a person; nothing for none.
func parkedSteps(numParked int64) string {
	if numParked == 0 {
		return ""
	}
	return fmt.Sprintf("\n%s parked, each waits for a person\n", count(int(numParked), "event")) + nextStep("outbox parked")
}

func (p *program) outboxParkedCommand() *cobra.Command {
	var asJSON bool
	var limit int
	command := &cobra.Command{
		Use:   "parked [flags]",
		Short: "Lists events that wait for a person, those first that are parked for longest",
		Long: `Lists events that wait for a person, those first that are parked for longest.
Under the park policy block later events of their keys wait behind them; under
skip they went on.

` + filterHelp,
		Args: noArgs,
	}
	flags := addFilterFlags(command.Flags())
	command.Flags().IntVar(&limit, "limit", defaultParkedLimit, fmt.Sprintf("how many at most, from 1 to %d", maxParkedLimit))
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		if limit < 1 || limit > maxParkedLimit {
			return WrongUsage(fmt.Errorf("--limit must be from 1 to %d, got %d", maxParkedLimit, limit))
		}
		filter, err := flags.read()
		if err != nil {
			return err
		}
		parked, err := p.Actions.OutboxParked(ctx, filter, limit)
		if err != nil {
			return err
		}
		numMore := parked.NumMatching - int64(len(parked.Events))
		if asJSON {
			return p.printJSON(map[string]any{
				"events": append([]OutboxParkedEvent{}, parked.Events...), "num_matching": parked.NumMatching, "num_more": numMore,
			})
		}
		switch {
		case len(parked.Events) == 0 && len(flags.given()) == 0:
			return p.printf("nothing is parked\n")
		case len(parked.Events) == 0:
			return p.printf("no parked event matches\n")
		}
		text := parkedTable(parked.Events)
		if numMore > 0 {
			text += fmt.Sprintf("\n%d shown, %d more match: narrow them down, or raise --limit\n", len(parked.Events), numMore)
		}
		return p.printf("%s\n%s%s", text,
			nextStep("outbox redrive EVENT_ID --reason TEXT   (sends it again; see --help for filters)"),
			nextStep("outbox discard EVENT_ID --reason TEXT   (gives it up for good)"))
	})
}

// parkedTable is the table of parked events.
func parkedTable(events []OutboxParkedEvent) string {
	rows := [][]string{{"STREAM", "EVENT ID", "KEY", "SEQ", "TYPE", "PARKED", "POLICY", "REASON", "CLASS", "ERROR"}}
	for _, event := range events {
		parked := "-"
		if !event.ParkedAt.IsZero() {
			parked = age(event.ParkedAge) + " ago"
		}
		rows = append(rows, []string{
			event.Stream, event.EventID.String(), oneLine(event.Key), strconv.FormatInt(event.KeySeq, 10), event.Type,
			parked, event.ParkPolicy, orDash(event.ParkReason), orDash(event.LastErrorClass),
			orDash(oneLine(event.LastError)),
		})
	}
	return table(rows)
}
