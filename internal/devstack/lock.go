package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const lockName = "lock"

// folderLock is held on a folder by the process that uses it. The kernel lets
// go of it when the process ends in whatever way, so it can't be left behind.
type folderLock struct{ file *os.File }

// lockFolder takes the lock of a folder at once or fails, naming the process
// that has it. A second lock in the same process fails too.
func lockFolder(dir string) (*folderLock, error) {
	path := filepath.Join(dir, lockName)
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, unusableFolder(dir, err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder := lockHolder(path)
			_ = file.Close()
			return nil, fmt.Errorf("folder %s is in use by another truegreen%s: "+
				"stop that one, or choose another folder with --data-dir", dir, holder)
		}
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		if !isStillAt(file, path) {
			// The last holder removed the folder between our open and our lock.
			_ = file.Close()
			continue
		}
		if err := writeHolder(file); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		return &folderLock{file: file}, nil
	}
}

// release lets go; the file stays, since removing it would let two processes
// hold locks on two files of one name.
//
// Closing alone would not do: a child that another goroutine is just starting
// holds a copy of the descriptor until it becomes its own program, and a lock
// lasts as long as any copy.
func (l *folderLock) release() {
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	_ = l.file.Close()
}

func isStillAt(file *os.File, path string) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}

func writeHolder(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("empty %s: %w", file.Name(), err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write to %s: %w", file.Name(), err)
	}
	return nil
}

// lockHolder is for the error text only: the pid may be missing or outdated.
func lockHolder(path string) string {
	text, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return ""
	}
	return " (process " + pid + ")"
}
