package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clusterName is a setting that only servers started here have; it shows in
// their command line and tells them from those that somebody started by hand.
const clusterName = "truegreen"

const pidFile = "postmaster.pid"

// stopOrphan clears the way for a server on dataDir. The caller holds the lock,
// so whoever runs there was left behind by a process that is gone.
//
// A pid file whose pid is now another program's is removed: Postgres would take
// it for itself. A server of ours that is still running is stopped. One that
// somebody started by hand is left alone and is an error.
func stopOrphan(dataDir string, notice func(string)) error {
	path := filepath.Join(dataDir, pidFile)
	pid, err := readPID(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	line, running := commandLineOf(pid)
	if !running || !strings.Contains(line+" ", "-D "+dataDir+" ") {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove outdated %s: %w", path, err)
		}
		return nil
	}
	if !strings.Contains(line, "cluster_name="+clusterName) {
		return fmt.Errorf("cluster %s is in use by process %d, which truegreen did not start: "+
			"stop it, or choose another folder with --data-dir", dataDir, pid)
	}

	notice(fmt.Sprintf("stopping the Postgres server (process %d) that an earlier run left behind", pid))
	return endProcess(pid)
}

// readPID returns 0, which is nobody's, for a file that was cut short.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		pid = 0
	}
	// A stand-alone backend writes its pid with a minus.
	return max(pid, -pid), nil
}

// endProcess stops a server that is no child of ours: fast, then at once, then
// by force.
func endProcess(pid int) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w: stop it by hand", pid, err)
		}
		// A process that was suspended would not hear of it.
		_ = syscall.Kill(pid, syscall.SIGCONT)
		ended := waitUntil(step.wait, func() bool {
			_, running := commandLineOf(pid)
			return !running
		})
		if ended {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end: stop it by hand", pid)
}

// pollInterval is how often things are looked at that give no signal.
const pollInterval = 10 * time.Millisecond

func waitUntil(limit time.Duration, isDone func() bool) bool {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	timeout := time.After(limit)
	for !isDone() {
		select {
		case <-ticker.C:
		case <-timeout:
			return isDone()
		}
	}
	return true
}
