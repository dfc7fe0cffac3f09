package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	ExitGood          = 0
	ExitFailed        = 1  // any failure that has no code of its own
	ExitDegraded      = 1  // status: it works, and something wants attention
	ExitFindings      = 1  // audit, outbox reconcile: something is wrong; outbox status: something is parked
	ExitBad           = 2  // status: something stands still; it or audit: could not be asked
	ExitNoneDelivered = 2  // settlement run: every eligible credit failed
	ExitPartial       = 3  // settlement run: some credits failed
	ExitAborted       = 4  // settlement run, approve: aborted, rejected or cancelled
	ExitWaiting       = 5  // settlement run --wait: for inputs or for approval
	ExitWrongUsage    = 64 // unknown command or flag, wrong argument or setting
)

// The groups of settings that commands obey, as [Options.Bind] knows them.
const (
	groupAPI      = "api"
	groupBroker   = "broker"
	groupDatabase = "database"
	groupDev      = "dev"
	groupHTTP     = "http"
	groupLog      = "log"
	groupWorker   = "worker"
)

// Options are what the commands are made from. All fields but User are required.
type Options struct {
	// Actions do the work.
	Actions Actions

	// Bind adds the flags of the settings in groups to a command's flags.
	Bind func(flags *pflag.FlagSet, groups ...string)

	// Read reads the settings in groups, before the action is called. Its error
	// counts as wrong usage.
	Read func(flags *pflag.FlagSet, groups ...string) error

	// Streams are where the commands read and write.
	Streams Streams

	// User is who runs the command, for what is recorded. Empty means unknown.
	User string

	// Version is what version prints.
	Version string
}

// Streams are the standard streams of the process.
type Streams struct {
	Err io.Writer
	In  io.Reader
	Out io.Writer
}

// Execute runs the command that args (without the program's name) ask for, and
// returns the exit code of the process. It prints an error once, to Err.
//
// A ctx that is done ends dev and worker well and every other command early.
func Execute(ctx context.Context, options Options, args []string) int {
	program := &program{Options: options}
	root := program.root()
	root.SetArgs(args)

	used, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = program.helpError
	}
	return program.exitCode(used, err)
}

// New returns the tree of commands, for documentation and tests; [Execute] runs
// it. Without Actions it can be looked at, but not run.
func New(options Options) *cobra.Command {
	return (&program{Options: options}).root()
}

// program is one run of truegreen.
type program struct {
	Options

	// helpError is of --help behind a command that there is not.
	helpError error

	// started tells failures of an action from those of cobra, all of which are
	// about what was typed.
	started bool
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "truegreen",
		Short: "Settles cashback, rebates and commissions, and delivers what happened",
		Args: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(command, args[0])
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(command *cobra.Command, _ []string) error {
			if err := command.Help(); err != nil {
				return fmt.Errorf("print help: %w", err)
			}
			return exit(ExitWrongUsage)
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       p.Version,
	}
	root.SetErr(p.Streams.Err)
	root.SetIn(p.Streams.In)
	root.SetOut(p.Streams.Out)
	root.SetFlagErrorFunc(unknownFlag)
	root.SetHelpCommand(helpCommand(root))
	printHelp := root.HelpFunc()
	root.SetHelpFunc(func(command *cobra.Command, args []string) {
		if p.helpError = checkHelp(command); p.helpError == nil {
			printHelp(command, args)
		}
	})
	root.AddCommand(
		p.devCommand(), p.workerCommand(), p.brokerCommand(), p.migrateCommand(),
		p.importCommand(), p.sampleCommand(), p.programmesCommand(), p.settlementCommand(),
		p.statusCommand(), p.auditCommand(), p.healthcheckCommand(), p.loopsCommand(),
		p.outboxCommand(), p.versionCommand(),
	)
	return root
}

// leaf completes a command that does something: it has the flags of the settings
// in groups, and reads them before work is called.
func (p *program) leaf(command *cobra.Command, groups []string, work func(ctx context.Context, args []string) error) *cobra.Command {
	p.Bind(command.Flags(), groups...)
	command.DisableFlagsInUseLine = true
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := p.Read(command.Flags(), groups...); err != nil {
			return err // not started yet: wrong usage
		}
		p.started = true
		return work(command.Context(), args)
	}
	return command
}

// group completes a command that only has commands below it.
func group(command *cobra.Command, below ...*cobra.Command) *cobra.Command {
	command.Args = func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s needs a command", command.Name())
		}
		return unknownCommand(command, args[0])
	}
	command.RunE = func(*cobra.Command, []string) error { return nil }
	command.AddCommand(below...)
	return command
}

// exit is the error of a command that has said all there is to say.
type exit int

func (code exit) Error() string { return fmt.Sprintf("exit code %d", int(code)) }

// failure is an error with an exit code of its own.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// WrongUsage marks an error of an action as a mistake in what was typed: the
// command exits with [ExitWrongUsage].
func WrongUsage(err error) error { return &failure{code: ExitWrongUsage, err: err} }

// exitCode prints err and says how the process should end.
func (p *program) exitCode(used *cobra.Command, err error) int {
	if err == nil {
		return ExitGood
	}
	var said exit
	if errors.As(err, &said) {
		return int(said)
	}

	code := ExitFailed
	var known *failure
	switch {
	case errors.As(err, &known):
		code = known.code
	case !p.started:
		code = ExitWrongUsage
	}
	// Where standard error is gone, the exit code has to do.
	_, _ = fmt.Fprintf(p.Streams.Err, "truegreen: %s\n", err)
	if code == ExitWrongUsage {
		_, _ = fmt.Fprintf(p.Streams.Err, "see '%s --help'\n", used.CommandPath())
	}
	return code
}
