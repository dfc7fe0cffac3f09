package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// markerName is the file that says a folder was made by this package.
const markerName = ".truegreen-data"

const markerText = "Made by truegreen, which keeps its development data here and may delete it.\n"

// Names of what the parts of the stack keep in the data folder.
const (
	clusterFolder = "pg"
	logFile       = "postgres.log"
	oldLogFile    = "postgres.log.1"
	streamFolder  = "nats"
)

// PrepareDataDir makes dir, with its parents and the marker, unless that was
// done before, and returns its absolute path with symbolic links resolved.
//
// An existing empty folder is taken over. Fails when dir holds something that
// this package did not make, is not a folder, or cannot be written to; the
// error says what to do.
func PrepareDataDir(dir string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve data folder %s: %w", dir, err)
	}
	if err := claimFolder(absolute, folderMode()); err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return "", fmt.Errorf("resolve data folder %s: %w", dir, err)
	}
	return resolved, nil
}

// folderMode keeps others out. Run by root, it lets them pass through without
// looking in: Postgres has to reach its own folder as another user.
func folderMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// claimFolder makes dir ours: created or empty, it gets the marker; marked, it
// stays as it is; anything else is refused.
func claimFolder(dir string, mode fs.FileMode) error {
	_, statErr := os.Stat(dir)
	if err := os.MkdirAll(dir, mode); err != nil {
		return unusableFolder(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return unusableFolder(dir, err)
	}
	if isMarked(dir) {
		return nil
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %s is not empty and was not made by truegreen: "+
			"nothing was touched; choose an empty or new folder with --data-dir", dir)
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		// The umask may have taken the bits that let Postgres through.
		if err := os.Chmod(dir, mode); err != nil {
			return unusableFolder(dir, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, markerName), []byte(markerText), 0o600); err != nil {
		return unusableFolder(dir, err)
	}
	return nil
}

func unusableFolder(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("write to folder %s: %w: make it writable for this user, "+
			"or choose another one with --data-dir", dir, err)
	}
	return fmt.Errorf("use folder %s: %w: choose another one with --data-dir", dir, err)
}

func isMarked(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, markerName))
	return err == nil && info.Mode().IsRegular()
}

// RemoveData removes what this package keeps in the data folder dir (the
// Postgres cluster, also one that had to be kept elsewhere, its logs, and the
// JetStream store) and the entries of dir named in also, so that the next start
// begins with nothing. The folder itself goes too once it is empty; entries
// that nobody named stay, and keep it.
//
// A folder that does not exist is no error. Fails without removing anything
// when dir was not made by this package, or is in use.
func RemoveData(dir string, also ...string) error {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve data folder %s: %w", dir, err)
	}
	if _, err := os.Stat(absolute); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return fmt.Errorf("resolve data folder %s: %w", dir, err)
	}
	if !isMarked(resolved) {
		return fmt.Errorf("folder %s was not made by truegreen: nothing was removed; "+
			"remove it by hand if that is what you want", dir)
	}
	for _, name := range also {
		if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
			return fmt.Errorf("remove %q from %s: only names of entries of the folder can be removed", name, dir)
		}
	}

	folders := append(elsewhereHomes(resolved),
		filepath.Join(resolved, clusterFolder), filepath.Join(resolved, streamFolder))
	release, err := lockForRemoval(folders)
	if err != nil {
		return err
	}
	defer release()

	for _, folder := range folders {
		if err := stopOrphan(filepath.Join(folder, dataFolder), func(string) {}); err != nil {
			return err
		}
	}
	paths := folders
	for _, name := range append([]string{logFile, oldLogFile}, also...) {
		paths = append(paths, filepath.Join(resolved, name))
	}
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return removeIfEmpty(resolved)
}

// lockForRemoval locks those of the folders that exist, so that no running
// server loses its files. Fails when one of them was not made by this package.
func lockForRemoval(folders []string) (release func(), err error) {
	var locks []*folderLock
	release = func() {
		for _, lock := range locks {
			lock.release()
		}
	}
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			continue
		}
		if !isMarked(folder) {
			release()
			return nil, fmt.Errorf("folder %s was not made by truegreen: nothing was removed; "+
				"move it away, or remove it by hand", folder)
		}
		lock, err := lockFolder(folder)
		if err != nil {
			release()
			return nil, err
		}
		locks = append(locks, lock)
	}
	return release, nil
}

func removeIfEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	if len(entries) > 1 {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
