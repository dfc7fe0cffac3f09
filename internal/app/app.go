package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"

	"truegreen/internal/appconfig"
	"truegreen/internal/cli"
)

// Host is what the process gets from its host.
type Host struct {
	Environ []string // as of os.Environ
	Streams cli.Streams
	User    string // who runs the command
	Version string // of the binary
}

// Run executes the command in args, without the program's name, and returns the
// exit code of the process. ctx ends dev and worker well.
func Run(ctx context.Context, host Host, args []string) int {
	actions := &actions{host: host}
	return cli.Execute(ctx, cli.Options{
		Actions: actions,
		Bind:    appconfig.BindFlags,
		Read:    actions.readSettings,
		Streams: host.Streams,
		User:    host.User,
		Version: host.Version,
	}, args)
}

// actions are the commands' deeds.
type actions struct {
	config *appconfig.Config
	host   Host
	logger *slog.Logger
}

var _ cli.Actions = (*actions)(nil)

func (actions *actions) readSettings(flags *pflag.FlagSet, groups ...string) error {
	config, err := appconfig.Load(flags, actions.host.Environ, groups...)
	if err != nil {
		return fmt.Errorf("%w", err)
	}
	actions.config = config
	actions.logger = newLogger(actions.host.Streams.Err, config)
	return nil
}

func newLogger(out io.Writer, config *appconfig.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: config.LogLevel}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
