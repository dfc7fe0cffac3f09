// Package childproc starts programs that end when this process ends.
//
// A child gets a signal when its parent dies, whatever killed the parent, and
// also when the child itself is stopped. Of the parent's descriptors it gets
// those that its command names, and no others: a lock or a pipe that this process
// inherited is not held by its children.
package childproc

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Cmd is a command whose process ends with this one. Its methods are those of
// [exec.Cmd], and return the errors of those.
type Cmd struct {
	*exec.Cmd

	// DeathSignal is sent when this process ends. The default is SIGKILL, which
	// ends a stopped process too.
	DeathSignal syscall.Signal

	// UseWatchdog sends the signal from a shell beside the child, as is done
	// where the kernel has no death signals.
	UseWatchdog bool

	watchdog *watchdog
}

// Command is [exec.CommandContext] for a process that ends with this one.
func Command(ctx context.Context, name string, arguments ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, arguments...), DeathSignal: syscall.SIGKILL}
}

// Start starts the process.
func (c *Cmd) Start() error {
	keepDescriptors()
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	useWatchdog := c.UseWatchdog || !hasDeathSignal
	if !useWatchdog {
		setDeathSignal(c.SysProcAttr, c.DeathSignal)
	}
	started := make(chan error)
	starter() <- func() { started <- c.Cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	if !useWatchdog {
		return nil
	}
	watchdog, err := watch(c.Process.Pid, c.DeathSignal)
	if err != nil {
		_ = c.Process.Kill()
		_ = c.Cmd.Wait()
		return err
	}
	c.watchdog = watchdog
	return nil
}

// Wait waits for the end of the process.
func (c *Cmd) Wait() error {
	err := c.Cmd.Wait()
	if c.watchdog != nil {
		c.watchdog.end()
	}
	return err //nolint:wrapcheck // as of exec.Cmd
}

// Run starts the process and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns its standard output. An [exec.ExitError]
// has the standard error output, unless the command sends that elsewhere.
func (c *Cmd) Output() ([]byte, error) {
	var output, failure bytes.Buffer
	c.Stdout = &output
	isCaptured := c.Stderr == nil
	if isCaptured {
		c.Stderr = &failure
	}
	err := c.Run()
	var exit *exec.ExitError
	if isCaptured && errors.As(err, &exit) {
		exit.Stderr = failure.Bytes()
	}
	return output.Bytes(), err
}

// CombinedOutput runs the process and returns both of its outputs.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var output bytes.Buffer
	c.Stdout = &output
	c.Stderr = &output
	err := c.Run()
	return output.Bytes(), err
}

// starter runs functions on one thread that lives as long as this process does:
// the kernel sends the death signal when the thread ends that started the child.
var starter = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})
