package settle_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

	mu         sync.Mutex
	isWithheld bool // the answer to its commit
	reports    map[reportKind]report
}

// start runs a process.
func (w *world) start(t *testing.T, o order) *process {
	t.Helper()
	w.numProcesses++
	o.Ask, o.DatabaseURL, o.Period, o.WorkerID = w.ask, w.proxy.url(t, w.db.URL), period(), fmt.Sprintf("settle-%d", w.numProcesses)
	if o.ChunkSize == 0 {
		o.ChunkSize = 4
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
			t.Logf("process %s, %+v:\n%s", o.WorkerID, o.Place, p.output)
		}
	})
	return p
}

// listen reads what the process says to its end.
func (p *process) listen(proxy *proxy, stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var said report
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			_, _ = fmt.Fprintf(p.output, "%s\n", lines.Text())
			continue
		}
		if said.Kind == reportArm {
			proxy.arm(said.Address, func() {
				p.mu.Lock()
				p.isWithheld = true
				p.mu.Unlock()
				if p.order.Act == actDie {
					_ = p.command.Process.Kill()
				}
			})
			_, _ = io.WriteString(p.stdin, commandArmed+"\n")
		}
		p.mu.Lock()
		p.reports[said.Kind] = said
		p.mu.Unlock()
	}
}

func (p *process) hasSaid(kind reportKind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.reports[kind]
	return ok
}

// said is the last report of a kind.
func (p *process) said(kind reportKind) report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports[kind]
}

func (p *process) hasWithheld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isWithheld
}

// waitFor waits for a report.
func (p *process) waitFor(t *testing.T, kind reportKind) {
	t.Helper()
	require.Eventually(t, func() bool { return p.hasSaid(kind) || p.hasExited() }, patience, poll)
	require.True(t, p.hasSaid(kind), "process %s ended before it was %s: %v", p.order.WorkerID, kind, p.err)
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// requireKilled waits for the end, which must have been a kill at the ordered place.
func (p *process) requireKilled(t *testing.T) {
	t.Helper()
	p.waitUntilExited(t)
	var exit *exec.ExitError
	require.ErrorAs(t, p.err, &exit, "process %s ended by itself: %v", p.order.WorkerID, p.err)
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "process %s: %v", p.order.WorkerID, p.err)
	require.True(t, p.hasSaid(reportDying) || p.hasWithheld() || p.order.Act == "", "process %s was killed, and not at its place", p.order.WorkerID)
}

// isStopped reports whether all its threads stand still. What a process says before it
// stops is heard while it still runs.
func (p *process) isStopped(t *testing.T) bool {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.command.Process.Pid))
	require.NoError(t, err)
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if _, rest, _ := bytes.Cut(text, []byte(") ")); err != nil || !bytes.HasPrefix(rest, []byte("T")) {
			return false
		}
	}
	return len(stats) > 0
}

// goOn lets a stopped process go on.
func (p *process) goOn(t *testing.T) {
	t.Helper()
	require.NoError(t, p.command.Process.Signal(syscall.SIGCONT))
}

// stop lets the jobs of the process come to their ends, and ends it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.stdin.Close(); err != nil {
		require.ErrorIs(t, err, os.ErrClosed)
	}
	p.waitUntilExited(t)
	require.NoError(t, p.err)
}

func (p *process) waitUntilExited(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.Fail(t, "a process does not end", "%s, %+v", p.order.WorkerID, p.order.Place)
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
