package devstack

import (
	"fmt"
	"os"
	"strings"
)

// commandLineOf returns the command line of a running process, its arguments
// separated by spaces. Not found are pids of nobody and of zombies: processes
// that have ended, though their parent has not asked how.
func commandLineOf(pid int) (line string, found bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The name, in parentheses, may hold anything; the state follows it.
	_, rest, ok := cutLast(string(stat), ") ")
	if !ok || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X") {
		return "", false
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", false
	}
	return strings.ReplaceAll(strings.TrimRight(string(arguments), "\x00"), "\x00", " "), true
}

func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}
