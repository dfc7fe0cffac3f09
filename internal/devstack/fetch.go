package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchTimeout bounds the download of one Postgres, some 10 MB.
const fetchTimeout = 5 * time.Minute

// fetchFunc returns the folder of the programs of a major version.
type fetchFunc func(ctx context.Context, major int) (string, error)

// fetcher gets the programs of Postgres for machines that have none.
type fetcher struct {
	// cache is where to keep them; empty means the user's cache folder.
	cache  string
	notice func(string)
	// repository is where the archives are; empty means the library's default.
	repository string
	who        *account
}

// fetch returns the folder of the programs of one major version, downloaded
// once and kept in the user's cache.
func (f fetcher) fetch(ctx context.Context, major int) (string, error) {
	version, err := fetchableVersion(major)
	if err != nil {
		return "", err
	}
	cache, err := f.cacheDir(ctx)
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, "postgres-"+string(version))
	bin := filepath.Join(kept, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}

	f.notice(fmt.Sprintf("no Postgres is installed: fetching version %d into %s, once", major, cache))
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	fetched := make(chan error, 1)
	go func() { fetched <- f.download(version, cache, kept) }()
	select {
	case err := <-fetched:
		if err != nil {
			return "", err
		}
		return bin, nil
	case <-ctx.Done():
		// The library takes no context; its download dies with the process.
		return "", fmt.Errorf("fetch Postgres %s: %w", version, ctx.Err())
	}
}

// download has the library fetch and unpack, and nothing else: it is pointed at
// a folder that looks like a cluster and is none, so that its attempt to start
// a server, which comes after unpacking, ends at once. The library would delete
// a data folder of another version, and can't be started as root.
func (f fetcher) download(version embeddedpostgres.PostgresVersion, cache, kept string) error {
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make folder to fetch Postgres into: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	unpacked := filepath.Join(work, "unpacked")
	decoy := filepath.Join(work, "decoy")
	if err := os.Mkdir(decoy, 0o700); err != nil {
		return fmt.Errorf("make folder to fetch Postgres into: %w", err)
	}
	major, _, _ := strings.Cut(string(version), ".")
	if err := os.WriteFile(filepath.Join(decoy, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return fmt.Errorf("make folder to fetch Postgres into: %w", err)
	}

	config := embeddedpostgres.DefaultConfig().
		BinariesPath(unpacked).
		CachePath(filepath.Join(work, "archive")).
		DataPath(decoy).
		Logger(io.Discard).
		Port(0).
		RuntimePath(filepath.Join(work, "runtime")).
		Version(version)
	if f.repository != "" {
		config = config.BinaryRepositoryURL(f.repository)
	}
	err = embeddedpostgres.NewDatabase(config).Start()
	if err == nil {
		return errors.New("unreachable: a server started on a folder without a cluster")
	}
	if !strings.HasPrefix(err.Error(), "could not start postgres") {
		return fmt.Errorf("fetch Postgres %s: %w", version, err)
	}
	if err := os.Chmod(unpacked, 0o755); err != nil {
		return fmt.Errorf("fetch Postgres %s: %w", version, err)
	}
	if err := os.Rename(unpacked, kept); err != nil {
		// Somebody else fetched the same meanwhile.
		if _, statErr := os.Stat(filepath.Join(kept, "bin", "postgres")); statErr != nil {
			return fmt.Errorf("keep fetched Postgres %s: %w", version, err)
		}
	}
	return nil
}

// cacheDir is where fetched programs are kept: the user's cache folder, or a
// temporary one when the user that runs Postgres for root can't get there.
func (f fetcher) cacheDir(ctx context.Context) (string, error) {
	if f.cache != "" {
		return f.cache, nil
	}
	var candidates []string
	if base, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, filepath.Join(base, "truegreen"))
	}
	for _, base := range temporaryFolders() {
		candidates = append(candidates, filepath.Join(base, fmt.Sprintf("truegreen-cache-%d", os.Geteuid())))
	}
	for _, dir := range candidates {
		if os.MkdirAll(dir, 0o755) != nil || checkOwned(dir) != nil {
			continue
		}
		reachable, err := f.who.canEnter(ctx, dir)
		if err != nil {
			return "", err
		}
		if reachable {
			return dir, nil
		}
		// Only an empty folder goes, and one that holds something has its reason.
		_ = os.Remove(dir)
	}
	return "", fmt.Errorf("none of the folders to keep it in can be used: %s", strings.Join(candidates, ", "))
}

func fetchableVersion(major int) (embeddedpostgres.PostgresVersion, error) {
	for _, version := range []embeddedpostgres.PostgresVersion{
		embeddedpostgres.V15, embeddedpostgres.V16, embeddedpostgres.V17, embeddedpostgres.V18,
	} {
		if strings.HasPrefix(string(version), fmt.Sprintf("%d.", major)) {
			return version, nil
		}
	}
	return "", fmt.Errorf("version %d can't be fetched", major)
}
