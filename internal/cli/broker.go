package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) brokerCommand() *cobra.Command {
	var asJSON bool
	provision := &cobra.Command{
		Use:   "provision [flags]",
		Short: "Creates or updates the broker's streams",
		Long: `Creates the streams on the broker that are missing, and brings the others to what
is needed. Stores in the database how large an event may be, for appends to
check. May be repeated.`,
		Args: noArgs,
	}
	jsonFlag(provision, &asJSON)
	p.leaf(provision, []string{groupBroker, groupDatabase}, func(ctx context.Context, _ []string) error {
		streams, err := p.Actions.BrokerProvision(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"streams": streams})
		}
		rows := [][]string{{"STREAM", "CHANGE", "SUBJECTS", "DURABILITY", "NOTE"}}
		for _, stream := range streams {
			rows = append(rows, []string{stream.Name, stream.Change, stream.Subjects, orDash(stream.Durability), orDash(stream.Note)})
		}
		return p.printf("%s", table(rows))
	})
	return group(&cobra.Command{
		Use:   "broker COMMAND",
		Short: "Looks after the broker",
	}, provision)
}
