package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// AuditReport is what a look at all invariants found.
type AuditReport struct {
	Findings  []AuditFinding `json:"findings"`   // empty when every invariant holds
	NumAudits int            `json:"num_audits"` // how many invariants were looked at
	Truncated bool           `json:"truncated"`  // there are more findings than these
}

// AuditFinding is one thing that breaks an invariant.
type AuditFinding struct {
	Audit   string `json:"audit"`   // the invariant's name
	Detail  string `json:"detail"`  // what is wrong, for people
	Subject string `json:"subject"` // what it is wrong of, such as a run
}

func (p *program) auditCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "audit [flags]",
		Short: "Checks the books: exit code 0 no findings, 1 findings, 2 not known",
		Long: `Checks the invariants of the books, each of which has a view in the database that
must be empty, and prints what breaks them. Changes nothing. Exit code 0: no
findings. 1: findings. 2: the database could not be asked.`,
		Args: noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		report, err := p.Actions.Audit(ctx)
		if err == nil && report.NumAudits < 1 {
			err = errors.New("audit looked at nothing: the database has no audits")
		}
		if err != nil {
			return &failure{code: ExitBad, err: err}
		}
		if asJSON {
			report.Findings = append([]AuditFinding{}, report.Findings...)
			err = p.printJSON(report)
		} else {
			err = p.printf("%s", report.text())
		}
		if err == nil && len(report.Findings) > 0 {
			return exit(ExitFindings)
		}
		return err
	})
}

func (report AuditReport) text() string {
	text := count(report.NumAudits, "audit") + ", "
	if len(report.Findings) == 0 {
		return text + "no findings\n"
	}
	rows := [][]string{{"AUDIT", "SUBJECT", "DETAIL"}}
	for _, finding := range report.Findings {
		rows = append(rows, []string{
			oneLine(finding.Audit), orDash(oneLine(finding.Subject)), orDash(oneLine(finding.Detail)),
		})
	}
	text += count(len(report.Findings), "finding")
	if report.Truncated {
		text += " shown, and there are more"
	}
	return text + "\n\n" + table(rows)
}

// count is a number with its noun: 1 audit, 2 audits.
func count(number int, noun string) string {
	if number == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", number, noun)
}
