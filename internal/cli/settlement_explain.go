package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// SettlementItem is what one run found one player to be owed, and how.
type SettlementItem struct {
	Adj         int      `json:"adj"` // 0, or which adjustment
	Amount      string   `json:"amount"`
	Arithmetic  []string `json:"arithmetic"` // lines for people
	Currency    string   `json:"currency"`
	Delivery    string   `json:"delivery,omitempty"` // pending, credited, failed, withheld or void
	Disposition string   `json:"disposition"`        // eligible or excluded
	FailureCode string   `json:"failure_code,omitempty"`
	Reason      string   `json:"reason,omitempty"` // of who is excluded
	Reference   string   `json:"reference,omitempty"`
	RunID       int64    `json:"run_id"`
	Version     int      `json:"version"` // of the programme
}

// differs is how the arithmetic begins to tell that an item is not what it makes.
const differs = "differs: "

var errDiffers = errors.New("what is stored differs from what its inputs and terms make: see 'truegreen audit'")

func (p *program) settlementExplainCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "explain CODE PERIOD PLAYER [flags]",
		Short: "Prints how a player's amount came about, and works it out again",
		Long: `Prints, for each run of the period, what the player was found to be owed and every
step on the way to it, worked out again from the stored inputs and terms. Exits 1
where what is stored is something else.`,
		Args: namedArgs("CODE", "PERIOD", "PLAYER"),
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		items, err := p.Actions.SettlementExplain(ctx, args[0], args[1], args[2])
		if err != nil {
			return err
		}
		if asJSON {
			err = p.printJSON(map[string]any{"items": items})
		} else {
			err = p.printf("%s", explanations(args[2], items))
		}
		if err != nil {
			return err
		}
		for _, item := range items {
			for _, line := range item.Arithmetic {
				if strings.HasPrefix(line, differs) {
					return errDiffers
				}
			}
		}
		return nil
	})
}

func explanations(player string, items []SettlementItem) string {
	var text strings.Builder
	for i, item := range items {
		if i > 0 {
			text.WriteString("\n")
		}
		standing := strings.Join(strings.Fields(item.Disposition+" "+item.Reason+" "+item.Delivery+" "+item.FailureCode), ", ")
		_, _ = fmt.Fprintf(&text, "%s in run %d (version %d, adjustment %d): %s %s; %s\n",
			oneLine(player), item.RunID, item.Version, item.Adj, item.Amount, item.Currency, standing)
		for _, line := range item.Arithmetic {
			text.WriteString("  " + line + "\n")
		}
		if item.Reference != "" {
			text.WriteString("  reference: " + item.Reference + "\n")
		}
	}
	return text.String()
}

func (p *program) settlementExportCommand() *cobra.Command {
	return p.leaf(&cobra.Command{
		Use:   "export RUN_ID",
		Short: "Writes what a run owed everybody as CSV to stdout",
		Long: `Writes a line for each player that the run evaluated, the excluded ones included:
basis, rate, amounts in minor units, what became of it, and the ledger's reference.`,
		Args: namedArgs("RUN_ID"),
	}, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		runID, err := parseRunID(args[0])
		if err != nil {
			return err
		}
		return p.Actions.SettlementExport(ctx, runID, p.Streams.Out)
	})
}
