package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"truegreen/internal/childproc"
)

// outputGrace is how long output of a child that has ended is still read, in
// case a process of its own holds on to it.
const outputGrace = 2 * time.Second

// Limits of ending a child.
const (
	// quitTimeout is how long a server may take that was told to end at once.
	quitTimeout = 5 * time.Second
	// stopTimeout is how long a server whose start went wrong may take.
	stopTimeout = 10 * time.Second
)

// child is a server process that ends when this process ends.
type child struct {
	// done is closed when the process has ended; err is set before.
	done chan struct{}
	err  error

	output  *tailWriter
	process *os.Process
}

// startChild starts the command in a process group of its own, so that a Ctrl-C
// meant for this process doesn't reach it, and arranges that it gets a SIGINT
// when this process ends.
func startChild(command *childproc.Cmd, who *account, log io.Writer, useWatchdog bool) (*child, error) {
	output := &tailWriter{next: log}
	command.DeathSignal = syscall.SIGINT
	command.Stderr = output
	command.Stdout = output
	command.SysProcAttr = &syscall.SysProcAttr{Credential: who.credential(), Setpgid: true}
	command.UseWatchdog = useWatchdog
	command.WaitDelay = outputGrace
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, err)
	}
	c := &child{done: make(chan struct{}), output: output, process: command.Process}
	go func() {
		defer close(c.done)
		c.err = command.Wait()
	}()
	return c, nil
}

// exit says how the child ended, to be wrapped. It must have ended.
func (c *child) exit() error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// stopSoon ends a child whose start went wrong, perhaps because ctx is done.
func (c *child) stopSoon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	c.stop(ctx)
}

// stop ends the child, politely until ctx is done and then with force, and
// returns once it has ended: true when force was needed.
func (c *child) stop(ctx context.Context) (forced bool) {
	_ = c.process.Signal(syscall.SIGINT)
	select {
	case <-c.done:
		return false
	case <-ctx.Done():
	}
	_ = c.process.Signal(syscall.SIGQUIT)
	// A process that was suspended would not hear of it.
	_ = c.process.Signal(syscall.SIGCONT)
	select {
	case <-c.done:
	case <-time.After(quitTimeout):
		_ = c.process.Kill()
		<-c.done
	}
	return true
}

// runToEnd runs a command that ends by itself and returns its output. The
// command is killed when the context that it was made with is done, and gets a
// SIGINT when this process ends.
func runToEnd(ctx context.Context, command *childproc.Cmd, who *account) (string, error) {
	c, err := startChild(command, who, io.Discard, false)
	if err != nil {
		return "", err
	}
	<-c.done
	if ctx.Err() != nil {
		return c.output.String(), ctx.Err()
	}
	return c.output.String(), c.err
}

// tailSize bounds what is remembered of a child's output, in bytes.
const tailSize = 8 << 10

// tailWriter passes everything on and remembers the end of it.
type tailWriter struct {
	mu   sync.Mutex
	next io.Writer
	tail []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tail = append(w.tail, p...)
	if len(w.tail) > tailSize {
		w.tail = append([]byte(nil), w.tail[len(w.tail)-tailSize:]...)
	}
	// A log that cannot be written, as on a full disk, must not stop the server.
	_, _ = w.next.Write(p)
	return len(p), nil
}

// String returns the remembered end of the output.
func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.tail)
}

// lastWords picks the lines of a server's output that explain its end.
func lastWords(output string) string {
	var fatal, all []string
	for _, line := range strings.Split(output, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		all = append(all, line)
		for _, mark := range []string{"FATAL:", "PANIC:", "HINT:", "error:"} {
			if strings.Contains(line, mark) {
				fatal = append(fatal, line)
				break
			}
		}
	}
	if len(fatal) == 0 {
		fatal = all
	}
	if len(fatal) == 0 {
		return "it said nothing"
	}
	return "it said: " + strings.Join(fatal[max(0, len(fatal)-4):], " | ")
}

// childEnvironment is this process's environment without what would change how
// Postgres behaves or in which language it speaks.
func childEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "LANG") {
			continue
		}
		kept = append(kept, entry)
	}
	return append(kept, "LC_ALL=C")
}
