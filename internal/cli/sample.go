package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func (p *program) sampleCommand() *cobra.Command {
	var options SampleOptions
	command := &cobra.Command{
		Use:   "sample [flags]",
		Short: "Writes believable activity to standard output",
		Long: `Writes agents, players, payments and bets to standard output, as JSON Lines that
import takes. The same seed, players and days make the same lines.`,
		Args: noArgs,
	}
	flags := command.Flags()
	flags.IntVar(&options.Days, "days", 14, "how many days of activity")
	flags.IntVar(&options.Players, "players", 100, "how many players")
	flags.Uint64Var(&options.Seed, "seed", 1, "what the random choices start from")
	return p.leaf(command, nil, func(ctx context.Context, _ []string) error {
		if options.Days < 1 || options.Players < 1 {
			return WrongUsage(errors.New("--days and --players must be above 0"))
		}
		return p.Actions.Sample(ctx, p.Streams.Out, options)
	})
}
