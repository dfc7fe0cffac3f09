package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// maxDecisionReason bounds why events are redriven or discarded, in characters.
	maxDecisionReason = 1000

	// patience is how long a decision may take before the user is told why.
	patience = time.Second
)

// waitText is what the user is told then.
const waitText = `this takes a while: the events are many, or a worker may still be delivering one of
them, which is waited for, for 30s at most; Ctrl-C gives up
`

// outboxDecision is one of the commands by which somebody decides about parked
// events.
type outboxDecision struct {
	act     func(OutboxActions, context.Context, OutboxDecision) (OutboxDecided, error)
	done    string // what was done, such as redriven
	long    string
	outcome func(OutboxDecided) string // what comes of it, for people
	short   string
	verb    string
	warn    func(OutboxDecided) []string // a sentence each
}

// decisionJSON is what such a command prints as JSON.
type decisionJSON struct {
	Act       string                `json:"act"`
	DryRun    bool                  `json:"dry_run"`
	Events    []OutboxParkedEvent   `json:"events"` // the first few; of a dry run alone
	NumEvents int64                 `json:"num_events"`
	Streams   []OutboxDecidedStream `json:"streams"`
	Warnings  []string              `json:"warnings"`
}

func (p *program) outboxDecisionCommand(d outboxDecision) *cobra.Command {
	var asJSON, dryRun bool
	var decision OutboxDecision
	command := &cobra.Command{
		Use:   d.verb + " [EVENT_ID...] --reason TEXT [flags]",
		Short: d.short,
		Long: d.long + `

Name the events, or filter them. Everything that matches at that moment is
decided on in one transaction, all of it or nothing: an event that does not exist or
cannot be decided on refuses the whole. The decision is recorded for each event.

` + filterHelp + `

With --dry-run nothing is changed, and --reason may be left out. Exit code 1 when
nothing matches, but 0 in a dry run.`,
	}
	flags := addFilterFlags(command.Flags())
	p.asFlag(command, &decision.As)
	reasonFlag(command, &decision.Reason)
	command.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be decided on, and change nothing")
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		var err error
		if decision.Selection, err = flags.selection(args); err != nil {
			return err
		}
		if err := checkAs(&decision.As); err != nil {
			return err
		}
		decision.Reason = strings.TrimSpace(decision.Reason)
		if !dryRun || command.Flags().Changed("reason") {
			if err := checkLength("--reason", decision.Reason, maxDecisionReason); err != nil {
				return err
			}
		}
		var decided OutboxDecided
		if dryRun {
			decided, err = p.Actions.OutboxPreview(ctx, d.verb, decision.Selection)
		} else {
			decided, err = whileTelling(p, waitText, func() (OutboxDecided, error) { return d.act(p.Actions, ctx, decision) })
		}
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(d.json(decided, dryRun))
		}
		if dryRun {
			return p.printf("%s", d.previewText(decided))
		}
		return p.printf("%s: %s\n%s%s%s", d.done, decided.counts(), d.outcome(decided), d.warningText(decided), nextStep("outbox status"))
	})
}

func (d *outboxDecision) json(decided OutboxDecided, dryRun bool) decisionJSON {
	return decisionJSON{
		Act:       d.verb,
		DryRun:    dryRun,
		Events:    append([]OutboxParkedEvent{}, decided.Events...),
		NumEvents: decided.NumEvents,
		Streams:   append([]OutboxDecidedStream{}, decided.Streams...),
		Warnings:  append([]string{}, d.warn(decided)...),
	}
}

func (d *outboxDecision) previewText(decided OutboxDecided) string {
	if decided.NumEvents == 0 {
		return "nothing matches\n"
	}
	text := fmt.Sprintf("would be %s: %s\n%s\n%s", d.done, decided.counts(), d.warningText(decided), parkedTable(decided.Events))
	if numMore := decided.NumEvents - int64(len(decided.Events)); numMore > 0 {
		text += fmt.Sprintf("and %d more\n", numMore)
	}
	return text + "\nnothing was changed: this was a dry run\n"
}

func (d *outboxDecision) warningText(decided OutboxDecided) string {
	var text strings.Builder
	for _, warning := range d.warn(decided) {
		text.WriteString("  warning: " + warning + "\n")
	}
	return text.String()
}

// counts is how many events there are, and of which streams: 3 events (agent 1,
// wallet 2).
func (decided OutboxDecided) counts() string {
	parts := make([]string, 0, len(decided.Streams))
	for _, stream := range decided.Streams {
		parts = append(parts, fmt.Sprintf("%s %d", stream.Name, stream.NumEvents))
	}
	return fmt.Sprintf("%s (%s)", count(int(decided.NumEvents), "event"), strings.Join(parts, ", "))
}

func redriveOutcome(OutboxDecided) string { return "" }

// redriveWarnings name the streams whose later events have gone on.
func redriveWarnings(decided OutboxDecided) []string {
	var warnings []string
	for _, stream := range decided.Streams {
		if stream.ParkPolicy == ParkPolicySkip {
			warnings = append(warnings, fmt.Sprintf(
				"stream %s (park policy %s): sent behind later ones of their keys, where a consumer that drops lower sequences drops them: %s",
				stream.Name, stream.ParkPolicy, count(int(stream.NumEvents), "event")))
		}
	}
	return warnings
}

// discardOutcome says what consumers see in the places of the events. Where a stream
// skips parked events, they have seen it since.
func discardOutcome(decided OutboxDecided) string {
	var text strings.Builder
	for _, stream := range decided.Streams {
		but := ""
		if stream.NumMarkers > 0 {
			but = fmt.Sprintf(", but for %d that were gap markers themselves", stream.NumMarkers)
		}
		switch {
		case stream.NumMarkers == stream.NumEvents:
			fmt.Fprintf(&text, "  stream %s: all were gap markers themselves, which leave none behind\n", stream.Name)
		case stream.ParkPolicy == ParkPolicySkip:
			fmt.Fprintf(&text, "  stream %s (park policy %s): a gap marker (truegreen.gap.v1) takes the place of each; it did so when the event was parked, if it was%s\n", stream.Name, stream.ParkPolicy, but)
		default:
			fmt.Fprintf(&text, "  stream %s: a gap marker (truegreen.gap.v1) was appended in the place of each%s\n", stream.Name, but)
		}
	}
	return text.String()
}

// whileTelling runs act, and says text on standard error if that takes long.
func whileTelling[T any](p *program, text string, act func() (T, error)) (T, error) {
	done := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			// Where standard error is gone, the decision counts all the same.
			_, _ = fmt.Fprint(p.Streams.Err, text)
		}
	}()
	defer func() {
		close(done)
		<-told
	}()
	return act()
}
