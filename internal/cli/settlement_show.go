package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) settlementShowCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "show RUN_ID [flags]",
		Short: "Prints a run, what happened to it, and why items were not paid",
		Args:  namedArgs("RUN_ID"),
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		runID, err := parseRunID(args[0])
		if err != nil {
			return err
		}
		detail, err := p.Actions.SettlementShow(ctx, runID)
		if err != nil {
			return err
		}
		if asJSON {
			detail.Events = append([]SettlementEvent{}, detail.Events...)
			detail.TopReasons = append([]SettlementReason{}, detail.TopReasons...)
			detail.Undelivered = append([]SettlementUndelivered{}, detail.Undelivered...)
			return p.printJSON(detail)
		}
		return p.printf("%s", detail.text())
	})
}

func (detail SettlementDetail) text() string {
	run := detail.SettlementRun
	var text strings.Builder
	text.WriteString(run.verdict() + "\n" + run.decisions() + "\n")

	attempt := "none yet"
	if run.Attempt > 0 {
		attempt = fmt.Sprintf("%d of %d", run.Attempt, run.MaxAttempts)
	}
	facts := [][]string{
		{"programme", fmt.Sprintf("%s version %d (%s)", run.Programme, run.Version, run.Kind)},
		{"kind of run", orDash(run.RunKind)},
		{"created by", orDash(oneLine(run.CreatedBy))},
		{"approved by", orDash(oneLine(run.ApprovedBy))},
		{"attempt", attempt},
		{"started", instantOr(run.StartedAt, "-")},
		{"finished", instantOr(run.FinishedAt, "-")},
		{"acknowledged", instantOr(run.AcknowledgedAt, "-")},
	}
	if detail.Budget != nil {
		facts = append(facts, []string{"budget", detail.Budget.text(run.Currency)})
	}
	text.WriteString(table(facts))

	if reasons := reasonTable(detail.TopReasons, run.Currency); reasons != "" {
		text.WriteString("\n" + reasons)
	}
	text.WriteString(detail.undelivered())
	rows := [][]string{{"AT", "EVENT", "WHO", "REASON", "DETAIL"}}
	for _, event := range detail.Events {
		rows = append(rows, []string{
			instant(event.At), event.Kind, orDash(oneLine(event.Actor)),
			orDash(oneLine(event.Reason)), orDash(oneLine(event.Detail)),
		})
	}
	text.WriteString("\n" + orNone(rows, "nothing has happened yet\n"))
	return text.String()
}

// undelivered names the players whom the run owed something and did not pay.
func (detail SettlementDetail) undelivered() string {
	rows := [][]string{{"NOT PAID", "AMOUNT (MINOR UNITS)", "DELIVERY", "WHY"}}
	for _, item := range detail.Undelivered {
		rows = append(rows, []string{oneLine(item.Player), amount(item.Amount, detail.Currency), item.Delivery, orDash(oneLine(item.Why))})
	}
	text := orNone(rows, "")
	if text == "" {
		return ""
	}
	if more := detail.NumUndelivered - int64(len(detail.Undelivered)); more > 0 {
		text += fmt.Sprintf("and %d more: truegreen settlement export %d has all\n", more, detail.RunID)
	}
	return "\n" + text
}

func (budget *SettlementBudget) text(currency string) string {
	return fmt.Sprintf("%d of %s used or reserved in %s (version %d)", budget.Used, amount(budget.Limit, currency), budget.Window, budget.Version)
}

func (p *program) settlementPreviewCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "preview CODE PERIOD [flags]",
		Short: "Prints what the run of a period would come to; books nothing",
		Long: `Calculates a period as its run would, or as an adjustment would if it has been
settled, prints what it comes to, and books nothing. As long as an input has not sent everything, the run may come to something else.`,
		Args: namedArgs("CODE", "PERIOD"),
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		preview, err := p.Actions.SettlementPreview(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		if asJSON {
			preview.TopReasons = append([]SettlementReason{}, preview.TopReasons...)
			preview.Watermarks = append([]SettlementWatermark{}, preview.Watermarks...)
			return p.printJSON(preview)
		}
		return p.printf("%s", preview.text())
	})
}

func (preview SettlementPreview) text() string {
	var text strings.Builder
	kind := ""
	if preview.RunKind == "adjustment" {
		kind = "an adjustment of "
	}
	_, _ = fmt.Fprintf(&text, "preview of %s%s %s (%s, version %d): %d evaluated, %d eligible, %d excluded; eligible %s (minor units)\n",
		kind, preview.Programme, preview.Period, preview.Kind, preview.Version,
		preview.Evaluated, preview.Eligible, preview.Excluded, amount(preview.EligibleAmount, preview.Currency))
	text.WriteString("nothing was booked\n")
	if budget := preview.Budget; budget != nil {
		fits := "it fits"
		if preview.EligibleAmount > 0 && preview.EligibleAmount > budget.Limit-budget.Used {
			fits = "a run of this would be aborted"
		}
		_, _ = fmt.Fprintf(&text, "budget: %s; %s\n", budget.text(preview.Currency), fits)
	}

	rows := [][]string{{"INPUT", "WATERMARK", "NEEDED", "REACHED"}}
	for _, watermark := range preview.Watermarks {
		reached := "yes"
		if !watermark.Reached {
			reached = "no: the numbers may change"
		}
		rows = append(rows, []string{watermark.Source, instantOr(watermark.At, "never"), instant(watermark.Needed), reached})
	}
	if watermarks := orNone(rows, ""); watermarks != "" {
		text.WriteString("\n" + watermarks)
	}
	if reasons := reasonTable(preview.TopReasons, preview.Currency); reasons != "" {
		text.WriteString("\n" + reasons)
	}
	return text.String()
}
