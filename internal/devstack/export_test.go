package devstack

import (
	"context"
	"syscall"
)

// WithFetch makes a start fetch programs through fetch.
func WithFetch(config PostgresConfig, fetch func(context.Context, int) (string, error)) PostgresConfig {
	config.fetch = fetch
	return config
}

// WithoutInstalled makes a start find no installed programs.
func WithoutInstalled(config PostgresConfig) PostgresConfig {
	config.find = func(context.Context) []string { return nil }
	return config
}

// WithPortTakenMeanwhile makes a start believe that its preferred port is free.
func WithPortTakenMeanwhile(config PostgresConfig) PostgresConfig {
	config.isFree = func(int) bool { return true }
	return config
}

// WithNATSPortTakenMeanwhile makes a start believe that its preferred port is
// free.
func WithNATSPortTakenMeanwhile(config NATSConfig) NATSConfig {
	config.isFree = func(int) bool { return true }
	return config
}

// WithWatchdog makes a start use what systems without a death signal use.
func WithWatchdog(config PostgresConfig) PostgresConfig {
	config.watchdog = true
	return config
}

// InstalledDirs lists the folders of installed programs.
func InstalledDirs(ctx context.Context) []string { return installedDirs(ctx) }

// IsRunning tells whether a process lives.
func IsRunning(pid int) bool {
	_, running := commandLineOf(pid)
	return running
}

// Fetch fetches a major version from repository and keeps it in cache.
func Fetch(ctx context.Context, cache, repository string, major int) (string, error) {
	who, err := chooseAccount()
	if err != nil {
		return "", err
	}
	return fetcher{cache: cache, notice: func(string) {}, repository: repository, who: who}.fetch(ctx, major)
}

// LockFolderAndCopy locks a folder and copies the lock's descriptor, as the
// start of any child does for an instant.
func LockFolderAndCopy(dir string) (release func(), copied int, err error) {
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, 0, err
	}
	copied, err = syscall.Dup(int(lock.file.Fd()))
	return lock.release, copied, err
}
