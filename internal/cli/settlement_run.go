package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// What the database calls the states of a run.
const (
	stateAborted          = "aborted"
	stateApproved         = "approved"
	stateAwaitingApproval = "awaiting_approval"
	stateCalculated       = "calculated"
	stateCalculating      = "calculating"
	stateDelivering       = "delivering"
	stateDone             = "done"
	statePlanned          = "planned"
	stateWaitingInputs    = "waiting_inputs"
)

// What the database calls the outcomes of a run that is done.
const (
	outcomeAllDelivered  = "all_delivered"
	outcomeAllWithheld   = "all_withheld"
	outcomeNoEligible    = "no_eligible"
	outcomeNoneDelivered = "none_delivered"
	outcomePartial       = "partial"
)

func (p *program) settlementRunCommand() *cobra.Command {
	return p.periodCommand(SettlementActions.SettlementRun, periodAct{
		long: `Starts the run of a period that is due, such as 2026-11-02, 2026-W45 or 2026-11,
unless it has one that was not aborted, and prints it. A settled period is not
settled again. A run that was aborted while it paid is gone on with by
truegreen settlement retry. Workers do the run; with --wait, this command waits
until the run is over, or until it stands still for want of inputs or approval.
`,
		short: "Runs the settlement of a period, or tells what became of it",
		verb:  "run",
	})
}

func (p *program) settlementAdjustCommand() *cobra.Command {
	return p.periodCommand(SettlementActions.SettlementAdjust, periodAct{
		long: `Starts a run of a settled period, for bets and payments of it that came after it was
settled. It works out everybody again by the terms of the period's run, and pays what
is owed beyond what was paid; nothing is taken back. truegreen settlement preview
tells what it would come to. Workers do the run; with --wait, this command waits until
the run is over, or until it stands still for want of approval.
`,
		short:       "Pays what late bets and payments add to a settled period",
		takesReason: true,
		verb:        "adjust",
	})
}

// periodAct is one of the commands that start a run of a period.
type periodAct struct {
	long        string
	short       string
	takesReason bool
	verb        string
}

func (p *program) periodCommand(
	start func(SettlementActions, context.Context, SettlementRequest) (SettlementRun, error), act periodAct,
) *cobra.Command {
	var asJSON bool
	var request SettlementRequest
	command := &cobra.Command{
		Use:   act.verb + " CODE PERIOD [flags]",
		Short: act.short,
		Long: act.long + `
Exit code 0: delivered in full, nobody was eligible, or all was withheld; without
--wait, also a run that is not over. 2: no credit was delivered. 3: some were not.
4: aborted. 5: with --wait, it lacks inputs or approval. 1: any other failure,
such as that --timeout has passed.`,
		Args: namedArgs("CODE", "PERIOD"),
	}
	p.asFlag(command, &request.As)
	if act.takesReason {
		optionalReasonFlag(command, &request.Reason)
	}
	command.Flags().DurationVar(&request.Timeout, "timeout", 0, "how long to wait, such as 10m; without it, as long as it takes")
	command.Flags().BoolVar(&request.Wait, "wait", false, "wait for the run")
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		if err := checkAs(&request.As); err != nil {
			return err
		}
		if err := checkOptionalReason(&request.Reason); err != nil {
			return err
		}
		if err := checkTimeout(command, request); err != nil {
			return err
		}
		request.Code, request.Period = args[0], args[1]
		if request.Wait {
			request.Progress = p.showProgress
		}
		run, err := start(p.Actions, ctx, request)
		if err != nil && !stoppedWaiting(run, err) {
			return err
		}
		if asJSON {
			err = p.printJSON(run)
		} else {
			err = p.printf("%s\n%s", run.verdict(), run.nextSteps())
		}
		if err != nil {
			return err
		}
		return run.end(request)
	})
}

func checkTimeout(command *cobra.Command, request SettlementRequest) error {
	switch {
	case !command.Flags().Changed("timeout"):
		return nil
	case !request.Wait:
		return WrongUsage(errors.New("--timeout needs --wait"))
	case request.Timeout <= 0:
		return WrongUsage(fmt.Errorf("--timeout must be above 0, got %s", request.Timeout))
	default:
		return nil
	}
}

// showProgress prints the state of a run that is waited for. That it cannot be
// printed is no reason to stop.
func (p *program) showProgress(run SettlementRun) {
	_, _ = fmt.Fprintf(p.Streams.Err, "run %d: %s%s\n", run.RunID, run.standing(), run.waiting())
}

// stoppedWaiting tells an error that ended the waiting for run from one that is
// about the run.
func stoppedWaiting(run SettlementRun, err error) bool {
	return run.RunID != 0 && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}

// end is how the process should end after request came to run.
func (run SettlementRun) end(request SettlementRequest) error {
	switch run.State {
	case stateAborted:
		return exit(ExitAborted)
	case stateDone:
		return run.endOfDone()
	case stateAwaitingApproval, stateWaitingInputs:
		if request.Wait {
			return exit(ExitWaiting)
		}
		return nil
	case stateApproved, stateCalculated, stateCalculating, stateDelivering, statePlanned:
		if !request.Wait {
			return nil
		}
		after := ""
		if request.Timeout > 0 {
			after = fmt.Sprintf(" (--timeout=%s)", request.Timeout)
		}
		return fmt.Errorf("stopped waiting%s: run %d is not over; it goes on all the same, now %s", after, run.RunID, run.State)
	default:
		return fmt.Errorf("run %d is in a state that this version does not know: %q", run.RunID, run.State)
	}
}

func (run SettlementRun) endOfDone() error {
	switch run.Outcome {
	case outcomeAllDelivered, outcomeAllWithheld, outcomeNoEligible:
		return nil
	case outcomeNoneDelivered:
		return exit(ExitNoneDelivered)
	case outcomePartial:
		return exit(ExitPartial)
	default:
		return fmt.Errorf("run %d has an outcome that this version does not know: %q", run.RunID, run.Outcome)
	}
}
