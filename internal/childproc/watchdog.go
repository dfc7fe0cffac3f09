package childproc

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// watchdog is a shell that signals a child when this process ends. It notices by
// the end of a pipe whose other side nobody but this process has open.
type watchdog struct {
	command *exec.Cmd
	pipe    io.Closer
}

func watch(pid int, signal syscall.Signal) (*watchdog, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe for watchdog: %w", err)
	}
	defer func() { _ = reader.Close() }()

	//nolint:noctx // it ends with the child, or with this process
	command := exec.Command("/bin/sh", "-c", `read line; kill -"$1" "$2"; kill -CONT "$2"`, "sh", strconv.Itoa(int(signal)), strconv.Itoa(pid))
	command.Stdin = reader
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		_ = writer.Close()
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	return &watchdog{command: command, pipe: writer}, nil
}

// end ends the shell, killed before the pipe closes: the child has ended, and its
// pid may be somebody else's by now.
func (w *watchdog) end() {
	_ = w.command.Process.Kill()
	_ = w.command.Wait()
	_ = w.pipe.Close()
}
