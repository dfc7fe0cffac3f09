package app

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"truegreen/internal/appconfig"
	"truegreen/internal/cli"
)

// devTick is how often a development process judges itself: whoever plays with it
// should not have to wait.
const devTick = time.Second

// plainPath matches paths that a shell takes as they are.
var plainPath = regexp.MustCompile(`^[\w./-]+$`)

// devStack is what runs on top of a development database and broker.
type devStack struct {
	actions     *actions
	brokerURL   string
	databaseURL string
	dataDir     string
	options     cli.DevOptions
	say         func(format string, args ...any)
	started     time.Time
}

// run works all loops, and plays sample activity meanwhile.
func (stack *devStack) run(ctx context.Context) error {
	config := *stack.actions.config
	config.Listen = freeAddress(config.Listen, stack.say)
	config.Settlement.Interval = min(config.Settlement.Interval, devSettlementInterval)
	config.Tick = min(config.Tick, devTick)
	if config.Token == "" {
		config.Token = appconfig.Secret(rand.Text())
	}
	group, ctx := errgroup.WithContext(ctx)
	listening := make(chan string, 1)
	group.Go(func() error {
		return runWorker(ctx, stack.actions.logger, &config, workerOptions{
			brokerURL:   stack.brokerURL,
			databaseURL: stack.databaseURL,
			isDev:       true,
			onListening: func(url string) { listening <- url },
			version:     stack.actions.host.Version,
		})
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case url := <-listening:
			err := stack.announce(url, config.Token.Reveal())
			if err != nil {
				return err
			}
			go stack.sayWhenReady(ctx, url)
			if stack.options.NoSample {
				return nil
			}
			return newPlayground(stack).run(ctx)
		}
	})
	return group.Wait()
}

// announce says where everything is, to people and in a file.
func (stack *devStack) announce(url, token string) error {
	err := writeEnv(stack.dataDir, [][2]string{
		{"DATABASE_URL", stack.databaseURL},
		{"NATS_URL", stack.brokerURL},
		{"TRUEGREEN_TOKEN", token},
		{"TRUEGREEN_URL", url},
	})
	if err != nil {
		return err
	}
	path := filepath.Join(stack.options.DataDir, envFile)
	if !plainPath.MatchString(path) {
		path = shellQuote(path)
	}
	stack.say("readiness   %s/readyz", url)
	stack.say("broker      %s", stack.brokerURL)
	stack.say("database    source %s && psql \"$DATABASE_URL\"", path)
	stack.say("status      source %s && bin/truegreen status", path)
	return nil
}

func (stack *devStack) sayWhenReady(ctx context.Context, url string) {
	for ctx.Err() == nil {
		if isReady(ctx, url) {
			stack.say("ready after %s; Ctrl-C stops everything", time.Since(stack.started).Round(100*time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func isReady(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// freeAddress is preferred, or another port of its host if that one is taken.
func freeAddress(preferred string, say func(string, ...any)) string {
	listener, err := net.Listen("tcp", preferred) //nolint:noctx // given back at once
	if err == nil {
		_ = listener.Close()
		return preferred
	}
	host, _, splitErr := net.SplitHostPort(preferred)
	if splitErr != nil || !errors.Is(err, syscall.EADDRINUSE) {
		return preferred // the worker says what is wrong with it
	}
	say("note: %s is taken: answering by HTTP on a free port instead", preferred)
	return net.JoinHostPort(host, "0")
}
