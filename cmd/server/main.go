// Command server is truegreen: see "truegreen --help" and the README.
package main

import (
	"context"
	"os"
	"os/signal"
	"os/user"
	"syscall"
	_ "time/tzdata" // programmes name time zones; a machine may have no zone files

	"truegreen/internal/app"
	"truegreen/internal/cli"
)

// version is set when the program is built.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := app.Run(ctx, app.Host{
		Environ: os.Environ(),
		Streams: cli.Streams{Err: os.Stderr, In: os.Stdin, Out: os.Stdout},
		User:    currentUser(),
		Version: version,
	}, os.Args[1:])
	stop()
	os.Exit(code)
}

// currentUser is for what is recorded of who did something.
func currentUser() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	if current, err := user.Current(); err == nil {
		return current.Username
	}
	return ""
}
