package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Bounds of what is recorded with a change.
const (
	maxReasonLength = 500
	maxWhoLength    = 200
)

// asFlag adds --as to command: whose name a change is recorded under.
func (p *program) asFlag(command *cobra.Command, who *string) {
	command.Flags().StringVar(who, "as", p.defaultWho(), "who wants it; recorded")
}

func (p *program) defaultWho() string {
	if p.User == "" {
		return "cli:unknown"
	}
	return "cli:" + p.User
}

// checkAs trims the value of --as. Every error counts as wrong usage.
func checkAs(who *string) error {
	*who = strings.TrimSpace(*who)
	return checkLength("--as", *who, maxWhoLength)
}

// reasonFlag adds a --reason that has to be given.
func reasonFlag(command *cobra.Command, reason *string) {
	command.Flags().StringVar(reason, "reason", "", "why; recorded (required)")
}

// optionalReasonFlag adds a --reason that may be left out.
func optionalReasonFlag(command *cobra.Command, reason *string) {
	command.Flags().StringVar(reason, "reason", "", "why; recorded")
}

// checkOptionalReason trims the value of --reason, which may be empty. Every error
// counts as wrong usage.
func checkOptionalReason(reason *string) error {
	if *reason = strings.TrimSpace(*reason); *reason == "" {
		return nil
	}
	return checkReason(reason)
}

// checkReason trims the value of --reason. Every error counts as wrong usage.
func checkReason(reason *string) error {
	*reason = strings.TrimSpace(*reason)
	return checkLength("--reason", *reason, maxReasonLength)
}

func checkLength(flag, text string, most int) error {
	if length := utf8.RuneCountInString(text); length < 1 || length > most {
		return WrongUsage(fmt.Errorf("%s must be given, with 1 to %d characters, got %d", flag, most, length))
	}
	return nil
}

// noArgs wants none.
func noArgs(command *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, got %q", command.Name(), args[0])
	}
	return nil
}

// namedArgs wants one argument for each of names, none of them blank.
func namedArgs(names ...string) cobra.PositionalArgs {
	wanted := "one " + names[0]
	if len(names) > 1 {
		wanted = strings.Join(names, " and ")
	}
	return func(command *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("%s takes %s, got %d", command.Name(), wanted, len(args))
		}
		for i, name := range names {
			if strings.TrimSpace(args[i]) == "" {
				return fmt.Errorf("%s must not be empty", name)
			}
		}
		return nil
	}
}

// parseNumber reads an argument that counts from 1, such as RUN_ID. Every error
// counts as wrong usage.
func parseNumber(name, text string, most int64) (int64, error) {
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < 1 || number > most {
		return 0, WrongUsage(fmt.Errorf("%s must be a whole number from 1 to %d, got %q", name, most, text))
	}
	return number, nil
}

func parseRunID(text string) (int64, error) { return parseNumber("RUN_ID", text, math.MaxInt64) }
