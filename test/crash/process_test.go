package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
)

// process is a child as its parent sees it.
type process struct {
	command *childproc.Cmd
	err     error // of its end; set once exited is closed
	exited  chan struct{}
	order   order
	output  *lockedBuffer
	stdin   io.WriteCloser

	mu       sync.Mutex
	reports  map[reportKind]report
	withheld acknowledgement
}

// start runs a process that dies at a step, the nth time that it comes there.
func (w *world) start(t *testing.T, o order) *process {
	t.Helper()
	w.numProcesses++
	o.BrokerURL, o.DatabaseURL, o.WorkerID = w.proxy.url(), w.db.URL, fmt.Sprintf("crash-%d", w.numProcesses)
	if o.BatchSize == 0 {
		o.BatchSize = 40
	}
	text, err := json.Marshal(o)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)

	p := &process{
		command: childproc.Command(context.Background(), self),
		exited:  make(chan struct{}),
		order:   o,
		output:  &lockedBuffer{},
		reports: make(map[reportKind]report),
	}
	p.command.Env = append(os.Environ(), childVariable+"="+string(text))
	p.command.Stderr = p.output
	p.stdin, err = p.command.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.command.StdoutPipe()
	require.NoError(t, err)
	w.proxy.arm(nil)
	require.NoError(t, p.command.Start())
	go func() {
		defer close(p.exited)
		p.listen(w.proxy, stdout)
		p.err = p.command.Wait()
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("process %s, %q:\n%s", o.WorkerID, o.Step, p.output)
		}
	})
	return p
}

// listen reads what the process says to its end.
func (p *process) listen(proxy *proxy, stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var said report
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			_, _ = fmt.Fprintf(p.output, "%s\n", lines.Text())
			continue
		}
		if said.Kind == reportArm {
			proxy.arm(func(what acknowledgement) {
				p.mu.Lock()
				p.withheld = what
				p.mu.Unlock()
				p.tell(commandWithheld)
			})
			p.tell(commandArmed)
		}
		p.mu.Lock()
		p.reports[said.Kind] = said
		p.mu.Unlock()
	}
}

func (p *process) tell(command string) { _, _ = io.WriteString(p.stdin, command+"\n") }

// said returns the last report of a kind, if there was one.
func (p *process) said(kind reportKind) (report, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	said, ok := p.reports[kind]
	return said, ok
}

func (p *process) hasSaid(kind reportKind) bool { _, ok := p.said(kind); return ok }

// waitFor waits for a report.
func (p *process) waitFor(t *testing.T, kind reportKind) report {
	t.Helper()
	require.Eventually(t, func() bool { return p.hasSaid(kind) || p.hasExited() }, patience, poll)
	said, ok := p.said(kind)
	require.True(t, ok, "process %s ended before it was %s: %v", p.order.WorkerID, kind, p.err)
	return said
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// requireKilled waits for the end, which must have been a kill at the ordered step.
func (p *process) requireKilled(t *testing.T) report {
	t.Helper()
	p.waitUntilExited(t)
	var exit *exec.ExitError
	require.ErrorAs(t, p.err, &exit, "process %s ended by itself: %v", p.order.WorkerID, p.err)
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "process %s: %v", p.order.WorkerID, p.err)
	said, ok := p.said(reportDying)
	require.True(t, ok || p.order.Step == stepAnyTime, "process %s was killed, and not %s", p.order.WorkerID, p.order.Step)
	return said
}

// stop ends the process as a deployment would.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.stdin.Close() // closed already, if the process is gone
	p.waitUntilExited(t)
	require.NoError(t, p.err)
}

func (p *process) waitUntilExited(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.Fail(t, "a process does not end", "%s, %q", p.order.WorkerID, p.order.Step)
	}
}

// lockedBuffer is a buffer that a process writes and a test reads.
type lockedBuffer struct {
	buffer bytes.Buffer
	mu     sync.Mutex
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
