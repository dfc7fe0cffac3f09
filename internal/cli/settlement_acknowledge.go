package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) settlementAcknowledgeCommand() *cobra.Command {
	var all, asJSON bool
	var ask SettlementAcknowledgement
	command := &cobra.Command{
		Use:   "acknowledge RUN_ID... | --all --reason TEXT [flags]",
		Short: "Records that you know what runs did not deliver",
		Long: `Records that you know what runs did not deliver, which ends the alarms about them.
Their outcome stays what it is.

With --all it is every run that ended partial and that nobody has acknowledged:
--programme and --outcome choose others. A run that paid nobody (none_delivered, or
aborted) is only among them if --outcome names it. Without --count the runs are listed
and nothing is changed; --count says how many there are, and if there are not as many
when it is recorded, nothing is changed either.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("RUN_IDs and --all do not go together")
			case !all && len(args) == 0:
				return errors.New("acknowledge takes one RUN_ID or more, or --all")
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.BoolVar(&all, "all", false, "every run that matches, not those of RUN_IDs")
	p.asFlag(command, &ask.As)
	flags.IntVar(&ask.Count, "count", 0, "with --all: how many runs it must be")
	flags.StringSliceVar(&ask.Outcomes, "outcome", nil, "with --all: partial (the default), none_delivered, aborted; several joined by commas")
	flags.StringVar(&ask.Programme, "programme", "", "with --all: code of a programme; without it, all")
	reasonFlag(command, &ask.Reason)
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		if err := checkAs(&ask.As); err != nil {
			return err
		}
		if err := checkReason(&ask.Reason); err != nil {
			return err
		}
		if all {
			if changed := command.Flags().Changed; changed("programme") && strings.TrimSpace(ask.Programme) == "" {
				return WrongUsage(errors.New("--programme must not be empty; leave it out for all"))
			} else if changed("count") && ask.Count < 1 {
				return WrongUsage(fmt.Errorf("--count must be above 0, got %d", ask.Count))
			}
			return p.acknowledgeAll(ctx, ask, asJSON)
		}
		for _, name := range []string{"count", "outcome", "programme"} {
			if command.Flags().Changed(name) {
				return WrongUsage(fmt.Errorf("--%s goes with --all alone", name))
			}
		}
		return p.acknowledgeEach(ctx, ask, args, asJSON)
	})
}

// acknowledgeEach acknowledges one run after the other, and stops at the first that
// cannot be.
func (p *program) acknowledgeEach(ctx context.Context, ask SettlementAcknowledgement, args []string, asJSON bool) error {
	ids := make([]int64, 0, len(args))
	for _, arg := range args {
		id, err := parseRunID(arg)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		run, err := p.Actions.SettlementAcknowledge(ctx, SettlementDecision{As: ask.As, Reason: ask.Reason, RunID: id})
		if err != nil {
			return err
		}
		if asJSON {
			err = p.printJSON(run)
		} else {
			err = p.printf("acknowledged %s\n%s", run.verdict(), run.nextSteps())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acknowledgeAll acknowledges the runs that match, or lists them if nobody has said
// how many they are.
func (p *program) acknowledgeAll(ctx context.Context, ask SettlementAcknowledgement, asJSON bool) error {
	act, done := p.Actions.SettlementAcknowledgeAll, "acknowledged "
	if ask.Count == 0 {
		act, done = p.Actions.SettlementAcknowledgeable, ""
	}
	runs, err := act(ctx, ask)
	if err != nil {
		return err
	}
	if asJSON {
		return p.printJSON(map[string]any{"acknowledged": ask.Count > 0, "runs": append([]SettlementRun{}, runs...)})
	}
	for _, run := range runs {
		if err := p.printf("%s%s\n", done, run.verdict()); err != nil {
			return err
		}
	}
	switch {
	case len(runs) == 0:
		return p.printf("nothing matches\n")
	case ask.Count == 0:
		return p.printf("nothing was changed: add --count %d to acknowledge these runs\n", len(runs))
	}
	return nil
}
