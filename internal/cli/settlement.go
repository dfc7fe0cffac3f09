package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// Bounds of how many runs are listed at once.
const (
	defaultRunLimit = 20
	maxRunLimit     = 1000
)

func (p *program) settlementCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "settlement COMMAND",
		Short: "Runs settlements and looks after their runs",
	},
		p.settlementListCommand(), p.settlementPreviewCommand(), p.settlementRunCommand(), p.settlementShowCommand(),
		p.settlementAdjustCommand(), p.settlementExplainCommand(), p.settlementExportCommand(),
		p.decisionCommand(decision{
			act:  SettlementActions.SettlementApprove,
			done: "approved",
			long: `Lets a run that was calculated and awaits approval deliver its credits. The maker
of the run, who for a scheduled one is the author of the programme's version,
cannot approve it. Where the programme's budget has no room for all that the run
owes, the run is aborted, nobody is paid, and the exit code is 4.`,
			mayAbort: true,
			short:    "Lets a run deliver",
			verb:     "approve",
		}),
		p.decisionCommand(decision{
			act:  SettlementActions.SettlementRetry,
			done: "retried by",
			long: `Starts a run that attempts again what a run that is over, or was aborted while it
paid, left undelivered, and nothing else. The outcome of the retried run stays what it
was; once nothing of it is undelivered, it counts as acknowledged. The new run waits
for approval like every run that pays, unless its programme approves such amounts by
itself, and reserves its budget anew; with too little, it is aborted and the exit code
is 4.`,
			mayAbort: true,
			short:    "Attempts again what a run left undelivered",
			verb:     "retry",
		}),
		p.decisionCommand(decision{
			act:  SettlementActions.SettlementReject,
			done: "rejected",
			long: `Aborts a run that awaits approval: it credits nobody, and no other run of the
period starts by itself.`,
			needsReason: true,
			short:       "Aborts a run that awaits approval",
			verb:        "reject",
		}),
		p.decisionCommand(decision{
			act:  SettlementActions.SettlementCancel,
			done: "cancelled",
			long: `Aborts a run that is not over. What it has credited stays credited: truegreen
settlement retry goes on with a run that had begun to pay. Of one that had not, no
other run of the period starts by itself.`,
			needsReason: true,
			short:       "Aborts a run that is not over",
			verb:        "cancel",
		}),
		p.settlementAcknowledgeCommand(),
		p.settlementAcceptCommand(), p.settlementAcceptedCommand(), p.settlementUnacceptCommand(),
	)
}

func (p *program) settlementListCommand() *cobra.Command {
	var asJSON bool
	var filter SettlementFilter
	command := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists runs, the newest first",
		Args:  noArgs,
	}
	command.Flags().IntVar(&filter.Limit, "limit", defaultRunLimit, fmt.Sprintf("how many at most, from 1 to %d", maxRunLimit))
	command.Flags().StringVar(&filter.Programme, "programme", "", "code of a programme; without it, all")
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		if filter.Limit < 1 || filter.Limit > maxRunLimit {
			return WrongUsage(fmt.Errorf("--limit must be from 1 to %d, got %d", maxRunLimit, filter.Limit))
		}
		if command.Flags().Changed("programme") && strings.TrimSpace(filter.Programme) == "" {
			return WrongUsage(errors.New("--programme must not be empty; leave it out for all"))
		}
		runs, err := p.Actions.SettlementList(ctx, filter)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"runs": append([]SettlementRun{}, runs...)})
		}
		rows := [][]string{{
			"RUN", "PROGRAMME", "PERIOD", "KIND", "STATE", "EVALUATED", "ELIGIBLE", "CREDITED", "FAILED", "WITHHELD", "CREDITED AMOUNT (MINOR UNITS)", "FINISHED",
		}}
		for _, run := range runs {
			row := []string{strconv.FormatInt(run.RunID, 10), run.Programme, run.Period, orDash(run.RunKind), run.standing()}
			for _, number := range []int64{run.Evaluated, run.Eligible, run.Credited, run.Failed, run.Withheld} {
				row = append(row, strconv.FormatInt(number, 10))
			}
			rows = append(rows, append(row, amount(run.CreditedAmount, run.Currency), instantOr(run.FinishedAt, "-")))
		}
		return p.printf("%s", orNone(rows, "no runs\n"))
	})
}

// decision is one of the commands by which somebody decides about a run.
type decision struct {
	act         func(SettlementActions, context.Context, SettlementDecision) (SettlementRun, error)
	done        string // what was done, such as approved
	long        string
	mayAbort    bool // the act may abort the run instead, which has an exit code of its own
	needsReason bool
	short       string
	verb        string
}

func (p *program) decisionCommand(d decision) *cobra.Command {
	var asJSON bool
	var decided SettlementDecision
	use := d.verb + " RUN_ID [flags]"
	if d.needsReason {
		use = d.verb + " RUN_ID --reason TEXT [flags]"
	}
	command := &cobra.Command{
		Use:   use,
		Short: d.short,
		Long:  d.long,
		Args:  namedArgs("RUN_ID"),
	}
	p.asFlag(command, &decided.As)
	check := checkOptionalReason
	if d.needsReason {
		reasonFlag(command, &decided.Reason)
		check = checkReason
	} else {
		optionalReasonFlag(command, &decided.Reason)
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		var err error
		if decided.RunID, err = parseRunID(args[0]); err != nil {
			return err
		}
		if err := checkAs(&decided.As); err != nil {
			return err
		}
		if err := check(&decided.Reason); err != nil {
			return err
		}
		run, err := d.act(p.Actions, ctx, decided)
		if err != nil {
			return err
		}
		wasRefused := d.mayAbort && run.State == stateAborted
		done := d.done
		if wasRefused {
			done = "not " + d.done + ":"
		}
		if asJSON {
			err = p.printJSON(run)
		} else {
			err = p.printf("%s %s\n%s", done, run.verdict(), run.nextSteps())
		}
		if err == nil && wasRefused {
			return exit(ExitAborted)
		}
		return err
	})
}
