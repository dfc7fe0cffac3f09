package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Names in the home of a cluster.
const (
	dataFolder    = "data"
	newDataFolder = "data.new"
	passwordFile  = "password"
)

// chooseHome returns the folder that holds the cluster of a data folder, made
// and marked: pg in the data folder, or, when the account can't get there
// because a parent is closed to it, a folder under the temporary folder that
// the same data folder always leads to.
func chooseHome(ctx context.Context, dataDir string, who *account, notice func(string)) (string, error) {
	reachable, err := who.canEnter(ctx, dataDir)
	if err != nil {
		return "", err
	}
	if reachable {
		home := filepath.Join(dataDir, clusterFolder)
		return home, claimFolder(home, folderMode())
	}

	for _, home := range elsewhereCandidates(dataDir) {
		base := filepath.Dir(home)
		reachable, err := who.canEnter(ctx, base)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if !reachable {
			continue
		}
		if err := claimElsewhere(home); err != nil {
			return "", err
		}
		notice(fmt.Sprintf("user %s, which runs Postgres for root, cannot enter %s: the database is kept in %s",
			who.name, dataDir, home))
		return home, nil
	}
	return "", fmt.Errorf("user %s, which runs Postgres for root, can enter neither %s nor a temporary folder: "+
		"choose another folder with --data-dir", who.name, dataDir)
}

// elsewhereCandidates are the places for the cluster of a data folder that
// Postgres cannot reach, an existing one first.
func elsewhereCandidates(dataDir string) []string {
	sum := sha256.Sum256([]byte(dataDir))
	name := fmt.Sprintf("truegreen-%d-%s", os.Geteuid(), hex.EncodeToString(sum[:8]))
	var existing, others []string
	for _, base := range temporaryFolders() {
		home := filepath.Join(base, name)
		if isMarked(home) && checkOwned(home) == nil {
			existing = append(existing, home)
		} else {
			others = append(others, home)
		}
	}
	return append(existing, others...)
}

// temporaryFolders are the machine's folders for temporary files, the user's
// choice first.
func temporaryFolders() []string {
	var folders []string
	for _, folder := range []string{os.TempDir(), "/var/tmp", "/tmp"} {
		resolved, err := filepath.EvalSymlinks(folder)
		if err == nil && !slices.Contains(folders, resolved) {
			folders = append(folders, resolved)
		}
	}
	return folders
}

// elsewhereHomes are those candidates that exist and are ours.
func elsewhereHomes(dataDir string) []string {
	return slices.DeleteFunc(elsewhereCandidates(dataDir), func(home string) bool {
		return !isMarked(home) || checkOwned(home) != nil
	})
}

// claimElsewhere is claimFolder for a place where others can create names.
func claimElsewhere(home string) error {
	if _, err := os.Lstat(home); err == nil {
		if err := checkOwned(home); err != nil {
			return err
		}
	}
	if err := claimFolder(home, folderMode()); err != nil {
		return err
	}
	return checkOwned(home)
}

// checkOwned refuses a folder that another user laid out where ours would be:
// anybody can create names in a temporary folder.
func checkOwned(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || owner.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("folder %s belongs to another user: remove it, or choose a --data-dir "+
			"whose parents every user may pass", dir)
	}
	return nil
}
