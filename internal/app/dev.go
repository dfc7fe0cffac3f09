package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"truegreen/internal/cli"
	"truegreen/internal/devstack"
	"truegreen/migrations"
)

// stopTimeout bounds how long each part of the development stack may take to
// stop.
const stopTimeout = 20 * time.Second

// envFile is where a stack's addresses are written, in its data folder.
const envFile = "env"

// Dev runs the development stack until ctx is done: a private Postgres, unless
// another database was named, a broker in process, sample activity, and a
// worker of all loops.
func (actions *actions) Dev(ctx context.Context, options cli.DevOptions) error {
	actions.say("starting a development stack; its data are kept in %s", options.DataDir)
	if err := actions.dev(ctx, options); err != nil {
		return err
	}
	actions.say("stopped; data kept in %s: the next start continues with them, --fresh starts over", options.DataDir)
	return nil
}

// say tells whoever watches a development stack.
func (actions *actions) say(format string, args ...any) {
	_, _ = fmt.Fprintf(actions.host.Streams.Out, format+"\n", args...)
}

func (actions *actions) dev(ctx context.Context, options cli.DevOptions) error {
	started := time.Now()
	if options.Fresh {
		if err := devstack.RemoveData(options.DataDir, envFile, sampleFile); err != nil {
			return fmt.Errorf("start over: %w", err)
		}
	}
	dataDir, err := devstack.PrepareDataDir(options.DataDir)
	if err != nil {
		return fmt.Errorf("prepare data folder: %w", err)
	}
	say := actions.say
	notice := func(text string) { say("note: %s", text) }

	databaseURL := actions.config.DatabaseURL.Reveal()
	postgresDone := make(<-chan struct{})
	postgresErr := func() error { return nil }
	if databaseURL == "" {
		postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
			DataDir: dataDir, Notice: notice, Port: options.PostgresPort, Settings: devstack.BulkSettings(),
		})
		if err != nil {
			return fmt.Errorf("start database: %w", err)
		}
		defer actions.stop("database", postgres.Stop)
		databaseURL = postgres.URL(devstack.MainDatabase)
		postgresDone, postgresErr = postgres.Done(), postgres.Err
	} else if options.Fresh {
		notice("the database that was named stays as it is: --fresh removes only what dev made itself")
	}
	broker, err := devstack.StartNATS(devstack.NATSConfig{
		Logger: actions.logger, Notice: notice, Port: options.BrokerPort, StoreDir: filepath.Join(dataDir, "nats"),
	})
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	defer broker.Stop()

	if _, err := migrations.Up(ctx, databaseURL); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if err := actions.provisionDev(ctx, databaseURL, broker.URL()); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-postgresDone:
			if err := postgresErr(); err != nil {
				cancel(fmt.Errorf("the private database ended by itself: %w", err))
			}
		case <-ctx.Done():
		}
	}()
	stack := &devStack{
		actions: actions, brokerURL: broker.URL(), databaseURL: databaseURL, dataDir: dataDir, options: options, say: say, started: started,
	}
	err = stack.run(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// provisionDev makes the broker's streams.
func (actions *actions) provisionDev(ctx context.Context, databaseURL, brokerURL string) error {
	database, err := openDatabase(ctx, databaseURL)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, database, 2, "truegreen", nil)
	if err != nil {
		return err
	}
	defer pool.Close()
	publisher, err := connectBroker(actions.logger, actions.config, brokerURL)
	if err != nil {
		return err
	}
	defer publisher.Close()
	_, err = provision(ctx, pool, publisher, actions.config)
	return err
}

func (actions *actions) stop(name string, stop func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := stop(ctx); err != nil {
		actions.logger.Error("could not stop well", slog.String("part", name), slog.Any("error", err))
	}
}

// writeEnv stores how to reach the stack, for shells: whole or not at all, and
// for its owner alone, since it holds secrets.
func writeEnv(dataDir string, values [][2]string) error {
	var text []byte
	for _, value := range values {
		text = fmt.Appendf(text, "export %s=%s\n", value[0], shellQuote(value[1]))
	}
	return writeWhole(filepath.Join(dataDir, envFile), text)
}

// shellQuote is a text as one word of a shell's command line, whatever is in it.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// writeWhole replaces a file, or leaves it as it was, and lets only its owner
// read it.
func writeWhole(path string, text []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
