package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// Preferred ports of the development stack: not the usual ones, where a server
// of the machine's own may be, and below those that connections are given.
const (
	defaultBrokerPort   = 14222
	defaultPostgresPort = 15432
)

func (p *program) devCommand() *cobra.Command {
	var options DevOptions
	command := &cobra.Command{
		Use:   "dev [flags]",
		Short: "Runs everything on this machine, with sample activity",
		Long: `Runs everything on this machine: a Postgres and a NATS server of its own, with
sample activity that goes on. Prints where it can be reached, and writes the
same to the file env in the data folder. Ctrl-C stops it all.

A DATABASE_URL that happens to be set is not used; --database-url is.`,
		Args: noArgs,
	}
	flags := command.Flags()
	flags.IntVar(&options.BrokerPort, "broker-port", defaultBrokerPort, "port of NATS; another if it is taken, a free one for 0")
	flags.StringVar(&options.DataDir, "data-dir", ".truegreen", "folder of all data")
	flags.BoolVar(&options.Fresh, "fresh", false, "remove the data of earlier runs first")
	flags.BoolVar(&options.NoSample, "no-sample", false, "leave the database empty")
	flags.IntVar(&options.PostgresPort, "postgres-port", defaultPostgresPort, "port of Postgres; another if it is taken, a free one for 0")
	return p.leaf(command, []string{groupDev, groupHTTP, groupLog}, func(ctx context.Context, _ []string) error {
		if options.DataDir == "" {
			return WrongUsage(errors.New("--data-dir must not be empty"))
		}
		for _, port := range []int{options.BrokerPort, options.PostgresPort} {
			if port < 0 || port > 65535 {
				return WrongUsage(errors.New("--broker-port and --postgres-port must be from 0 to 65535"))
			}
		}
		return p.Actions.Dev(ctx, options)
	})
}

func (p *program) workerCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "worker [flags]",
		Short: "Works the loops: the process to run in production",
		Args:  noArgs,
	}
	groups := []string{groupBroker, groupDatabase, groupHTTP, groupLog, groupWorker}
	return p.leaf(command, groups, func(ctx context.Context, _ []string) error {
		return p.Actions.Worker(ctx)
	})
}
