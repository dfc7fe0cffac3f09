package cli

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Bounds of what is recorded with a change.
const (
	maxReasonLength = 500
	maxWhoLength    = 200
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
		Args:  oneArg("LOOP"),
	}
	command.Flags().StringVar(&change.As, "as", p.defaultWho(), "who wants it; recorded")
	command.Flags().StringVar(&change.Reason, "reason", "", "why; recorded (required)")
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		change.Loop = args[0]
		change.As = strings.TrimSpace(change.As)
		change.Reason = strings.TrimSpace(change.Reason)
		if err := checkLength("--as", change.As, maxWhoLength); err != nil {
			return err
		}
		if err := checkLength("--reason", change.Reason, maxReasonLength); err != nil {
			return err
		}
		if err := act(ctx, change); err != nil {
			return err
		}
		return p.printf("%s %s\n", done, change.Loop)
	})
}

func (p *program) defaultWho() string {
	if p.User == "" {
		return "cli:unknown"
	}
	return "cli:" + p.User
}

func oneArg(name string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one %s, got %d", command.Name(), name, len(args))
		}
		return nil
	}
}

func checkLength(flag, text string, most int) error {
	if length := utf8.RuneCountInString(text); length < 1 || length > most {
		return WrongUsage(fmt.Errorf("%s must be given, with 1 to %d characters, got %d", flag, most, length))
	}
	return nil
}
