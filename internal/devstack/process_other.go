//go:build !linux

package devstack

import (
	"context"
	"strconv"
	"strings"

	"truegreen/internal/childproc"
)

// commandLineOf returns the command line of a running process, its arguments
// separated by spaces. Not found are pids of nobody and of zombies: processes
// that have ended, though their parent has not asked how.
func commandLineOf(pid int) (line string, found bool) {
	output, err := childproc.Command(context.Background(), "ps", "-ww", "-o", "state=,command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", false
	}
	state, line, _ := strings.Cut(strings.TrimSpace(string(output)), " ")
	if state == "" || strings.HasPrefix(state, "Z") {
		return "", false
	}
	return strings.TrimSpace(line), true
}
