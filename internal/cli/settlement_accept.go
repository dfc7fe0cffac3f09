package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) settlementAcceptCommand() *cobra.Command {
	var accepted SettlementAcceptance
	var until string
	command := &cobra.Command{
		Use:   "accept --player CODE | --programme CODE --at-most N --until WHEN --reason TEXT [flags]",
		Short: "Accepts that a player, or a programme, cannot be paid",
		Long: `Accepts what is known and stays so for a while, such as a frozen wallet. A run that
ends partial is then acknowledged in your name and raises no alarm, if all that it did
not deliver is accepted. It is reported as before, and truegreen status shows how many
acceptances are in force. A run that paid nobody always raises an alarm.

For a whole programme, --at-most is the number of credits in one run that may fail. A
run with more of them raises its alarm: many wallets frozen at once are news.

--until is an instant such as 2026-12-31T00:00:00Z, or a time from now such as 720h.
truegreen settlement unaccept ends an acceptance earlier. Runs that have ended are for
truegreen settlement acknowledge.`,
		Args: noArgs,
	}
	p.asFlag(command, &accepted.As)
	flags := command.Flags()
	flags.StringVar(&accepted.Failure, "failure", "wallet_frozen", "what is accepted: the reason that truegreen settlement show gives")
	flags.IntVar(&accepted.MaxCredits, "at-most", 0, "credits in one run that may fail (required for a whole programme)")
	flags.StringVar(&accepted.Player, "player", "", "code of the player; without it, all players of --programme")
	flags.StringVar(&accepted.Programme, "programme", "", "code of the programme; without it, all programmes for --player")
	flags.StringVar(&until, "until", "", "when it ends, within a year: an instant, or a time from now (required)")
	reasonFlag(command, &accepted.Reason)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		if err := checkAs(&accepted.As); err != nil {
			return err
		}
		if err := checkReason(&accepted.Reason); err != nil {
			return err
		}
		accepted.Player, accepted.Programme = strings.TrimSpace(accepted.Player), strings.TrimSpace(accepted.Programme)
		if accepted.Player == "" && accepted.Programme == "" {
			return WrongUsage(errors.New("--player or --programme must be given"))
		}
		if (accepted.Player == "") != (accepted.MaxCredits > 0) {
			return WrongUsage(errors.New("--at-most N, above 0, belongs to --programme without --player, and is required there"))
		}
		var err error
		if accepted.ExpiresAt, err = parseUntil(until); err != nil {
			return err
		}
		stored, err := p.Actions.SettlementAccept(ctx, accepted)
		if err != nil {
			return err
		}
		return p.printf("accepted as %d: %s for %s until %s\n  next: truegreen settlement accepted\n",
			stored.ID, stored.Failure, stored.whom(), instant(stored.ExpiresAt))
	})
}

// parseUntil reads an instant, or a time from now. Every error counts as wrong usage.
func parseUntil(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if after, err := time.ParseDuration(text); err == nil && after > 0 {
		return time.Now().Add(after), nil
	}
	return time.Time{}, WrongUsage(fmt.Errorf("--until must be an instant such as 2026-12-31T00:00:00Z, or a time from now such as 720h, got %q", text))
}

// whom says of whom an acceptance is.
func (accepted SettlementAcceptance) whom() string {
	switch {
	case accepted.Programme == "":
		return "player " + oneLine(accepted.Player)
	case accepted.Player == "":
		return fmt.Sprintf("at most %s in a run of programme %s", count(accepted.MaxCredits, "credit"), oneLine(accepted.Programme))
	default:
		return "player " + oneLine(accepted.Player) + " in programme " + oneLine(accepted.Programme)
	}
}

func (p *program) settlementAcceptedCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "accepted [flags]",
		Short: "Lists what is accepted, by whom, why and until when",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		list, err := p.Actions.SettlementAccepted(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"accepted": append([]SettlementAcceptance{}, list...)})
		}
		rows := [][]string{{"ID", "FAILURE", "OF", "UNTIL", "BY", "REASON"}}
		for _, one := range list {
			rows = append(rows, []string{strconv.FormatInt(one.ID, 10), one.Failure, one.whom(), instant(one.ExpiresAt), oneLine(one.As), oneLine(one.Reason)})
		}
		return p.printf("%s", orNone(rows, "nothing is accepted\n"))
	})
}

func (p *program) settlementUnacceptCommand() *cobra.Command {
	var as, reason string
	command := &cobra.Command{
		Use:   "unaccept ID --reason TEXT [flags]",
		Short: "Revokes an acceptance; runs acknowledged by it stay so",
		Args:  namedArgs("ID"),
	}
	p.asFlag(command, &as)
	reasonFlag(command, &reason)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		id, err := parseNumber("ID", args[0], math.MaxInt64)
		if err != nil {
			return err
		}
		if err := checkAs(&as); err != nil {
			return err
		}
		if err := checkReason(&reason); err != nil {
			return err
		}
		if err := p.Actions.SettlementUnaccept(ctx, id, as, reason); err != nil {
			return err
		}
		return p.printf("revoked %d\n", id)
	})
}
