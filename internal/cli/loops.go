package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) loopsCommand() *cobra.Command {
	pause := p.loopCommand("pause", "paused", "Keeps a loop from working, until it is resumed",
		func(ctx context.Context, change LoopChange) error { return p.Actions.LoopPause(ctx, change) })
	resume := p.loopCommand("resume", "resumed", "Ends the pause of a loop",
		func(ctx context.Context, change LoopChange) error { return p.Actions.LoopResume(ctx, change) })
	return group(&cobra.Command{
		Use:   "loops COMMAND",
		Short: "Pauses and resumes loops",
	}, pause, resume)
}

func (p *program) loopCommand(verb, done, short string, act func(context.Context, LoopChange) error) *cobra.Command {
	var change LoopChange
	command := &cobra.Command{
		Use:   verb + " LOOP --reason TEXT [flags]",
		Short: short,
		Args:  namedArgs("LOOP"),
	}
	p.asFlag(command, &change.As)
	reasonFlag(command, &change.Reason)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		change.Loop = args[0]
		if err := checkAs(&change.As); err != nil {
			return err
		}
		if err := checkReason(&change.Reason); err != nil {
			return err
		}
		if err := act(ctx, change); err != nil {
			return err
		}
		return p.printf("%s %s\n", done, change.Loop)
	})
}
