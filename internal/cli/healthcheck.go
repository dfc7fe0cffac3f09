package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) healthcheckCommand() *cobra.Command {
	var asJSON bool
	var check string
	checks := []string{"ready", "live", "startup"}
	command := &cobra.Command{
		Use:   "healthcheck [flags]",
		Short: "Asks a running process whether it is well: exit code 0 or 1",
		Args:  noArgs,
	}
	command.Flags().StringVar(&check, "check", "ready", strings.Join(checks, ", "))
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupAPI}, func(ctx context.Context, _ []string) error {
		if !slices.Contains(checks, check) {
			return WrongUsage(fmt.Errorf("--check must be one of %s, got %q", strings.Join(checks, ", "), check))
		}
		health, err := p.Actions.Healthcheck(ctx, check)
		if err != nil {
			return err
		}
		if asJSON {
			err = p.printJSON(map[string]any{"check": check, "healthy": health.Healthy, "text": health.Text})
		} else {
			err = p.printf("%s\n", strings.TrimRight(health.Text, "\n"))
		}
		if err == nil && !health.Healthy {
			return exit(ExitFailed)
		}
		return err
	})
}
