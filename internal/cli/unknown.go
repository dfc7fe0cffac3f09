package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"truegreen/internal/nearest"
)

// helpCommand prints the help of the command that its arguments name.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]...",
		Short: "Prints the help of a command",
		RunE: func(_ *cobra.Command, names []string) error {
			command := root
			for _, name := range names {
				below := find(command, name)
				if below == nil {
					return unknownCommand(command, name)
				}
				command = below
			}
			command.InitDefaultHelpFlag()
			if err := command.Help(); err != nil {
				return fmt.Errorf("print help: %w", err)
			}
			return nil
		},
	}
}

// checkHelp refuses --help after a command that does not exist, as in
// "truegreen settlement bogus --help": the help of settlement would hide the slip.
func checkHelp(command *cobra.Command) error {
	if args := command.Flags().Args(); command.HasAvailableSubCommands() && len(args) > 0 && find(command, args[0]) == nil {
		return unknownCommand(command, args[0])
	}
	return nil
}

func find(parent *cobra.Command, name string) *cobra.Command {
	for _, command := range parent.Commands() {
		if command.Name() == name {
			return command
		}
	}
	return nil
}

func unknownCommand(parent *cobra.Command, name string) error {
	var known []string
	for _, command := range parent.Commands() {
		if command.IsAvailableCommand() {
			known = append(known, command.Name())
		}
	}
	slices.Sort(known)
	if near := nearest.Of(name, known); near != "" {
		return fmt.Errorf("unknown command %q; did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown command %q; %s has %s", name, parent.CommandPath(), strings.Join(known, ", "))
}

// unknownFlag adds to the error of a flag that does not exist which one may be
// meant.
func unknownFlag(command *cobra.Command, err error) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var known []string
	command.Flags().VisitAll(func(flag *pflag.Flag) { known = append(known, flag.Name) })
	if near := nearest.Of(name, known); near != "" {
		return fmt.Errorf("%w; did you mean --%s?", err, near)
	}
	return err
}
