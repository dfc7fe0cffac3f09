package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"truegreen/internal/childproc"
)

// Limits of starting a server.
const (
	// startTimeout bounds one attempt, recovery after a crash included.
	startTimeout = 2 * time.Minute
	// startAttempts bounds how often a start is tried again because somebody
	// took the port, or the end of an earlier server took its time.
	startAttempts = 20
	retryInterval = 250 * time.Millisecond
	// maxLogBytes is the size above which a log is set aside at a start.
	maxLogBytes = 16 << 20
)

func (c PostgresConfig) withDefaults() (PostgresConfig, error) {
	if c.DataDir == "" {
		return c, errors.New("DataDir is required")
	}
	if err := validatePort(c.Port); err != nil {
		return c, err
	}
	if c.Notice == nil {
		c.Notice = func(string) {}
	}
	if c.isFree == nil {
		c.isFree = isPortFree
	}
	if c.find == nil {
		c.find = installedDirs
	}
	if c.BinDir != "" {
		c.find = func(context.Context) []string { return []string{c.BinDir} }
		c.fetch = func(context.Context, int) (string, error) {
			return "", errors.New("nothing is fetched when the folder of the programs is given")
		}
	}
	return c, nil
}

func startPostgres(ctx context.Context, config PostgresConfig) (server *Postgres, err error) {
	dataDir, err := PrepareDataDir(config.DataDir)
	if err != nil {
		return nil, err
	}
	who, err := chooseAccount()
	if err != nil {
		return nil, err
	}
	home, err := chooseHome(ctx, dataDir, who, config.Notice)
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(home)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()

	ready, err := openCluster(ctx, config, home, who)
	if err != nil {
		return nil, err
	}
	log, closer, err := openLog(config, dataDir)
	if err != nil {
		return nil, err
	}
	running, port, err := ready.run(ctx, config, log)
	if err != nil {
		_ = closer.Close()
		return nil, err
	}
	server = &Postgres{
		child:    running,
		dataDir:  ready.dataDir,
		lock:     lock,
		logFile:  closer,
		password: ready.password,
		port:     port,
		stopping: make(chan struct{}),
	}
	return server, nil
}

// openCluster finds the cluster in home, or makes one, and clears away what an
// earlier run left in it.
func openCluster(ctx context.Context, config PostgresConfig, home string, who *account) (*cluster, error) {
	dataDir := filepath.Join(home, dataFolder)
	major, err := existingMajor(dataDir)
	if err != nil {
		return nil, err
	}
	if major != 0 {
		if who, err = ownerOf(dataDir, who); err != nil {
			return nil, err
		}
	}
	fetch := config.fetch
	if fetch == nil {
		fetch = fetcher{notice: config.Notice, who: who}.fetch
	}
	programs, err := findBinaries(ctx, config.find(ctx), major, who, fetch)
	if err != nil {
		return nil, err
	}
	found := &cluster{binaries: programs, dataDir: dataDir, home: home, who: who}
	if err := stopOrphan(dataDir, config.Notice); err != nil {
		return nil, err
	}
	if err := found.ensurePassword(ctx); err != nil {
		return nil, err
	}
	if major == 0 {
		if err := found.create(ctx, config.Settings["fsync"] != "off"); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// openLog returns where the server's output goes, and what to close after it.
func openLog(config PostgresConfig, dataDir string) (io.Writer, io.Closer, error) {
	if config.Log != nil {
		return config.Log, io.NopCloser(nil), nil
	}
	path := filepath.Join(dataDir, logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, filepath.Join(dataDir, oldLogFile)); err != nil {
			return nil, nil, fmt.Errorf("set aside log %s: %w", path, err)
		}
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return file, file, nil
}

// run starts the server and waits until it takes connections. It starts again,
// on another port if need be, when somebody was faster.
func (c *cluster) run(ctx context.Context, config PostgresConfig, log io.Writer) (*child, int, error) {
	port, err := choosePort(config.Port, "Postgres", config.isFree, config.Notice)
	if err != nil {
		return nil, 0, err
	}
	for attempt := 1; ; attempt++ {
		running, err := startChild(c.command(ctx, config, port), c.who, log, config.watchdog)
		if err != nil {
			return nil, 0, err
		}
		err = c.waitReady(ctx, running)
		if err == nil {
			return running, port, nil
		}
		running.stopSoon(ctx)

		output := running.output.String()
		switch {
		case ctx.Err() != nil || attempt == startAttempts:
			return nil, 0, err
		case strings.Contains(output, "could not create any TCP/IP sockets"):
			if port, err = FreePort(); err != nil {
				return nil, 0, err
			}
			config.Notice(fmt.Sprintf("the chosen port was taken meanwhile: trying %d", port))
		case strings.Contains(output, "pre-existing shared memory block"):
			// Backends of a server that was killed need a moment to notice.
			select {
			case <-ctx.Done():
			case <-time.After(retryInterval):
			}
		default:
			return nil, 0, err
		}
	}
}

func (c *cluster) command(ctx context.Context, config PostgresConfig, port int) *childproc.Cmd {
	arguments := []string{
		"-D", c.dataDir,
		"-c", "cluster_name=" + clusterName,
		"-c", "listen_addresses=" + loopback,
		"-c", "port=" + strconv.Itoa(port),
		"-c", "unix_socket_directories=",
	}
	names := make([]string, 0, len(config.Settings))
	for name := range config.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		arguments = append(arguments, "-c", name+"="+config.Settings[name])
	}
	// The server outlives the context of its start.
	command := childproc.Command(context.WithoutCancel(ctx), c.binaries.path("postgres"), arguments...)
	command.Dir = c.home
	command.Env = childEnvironment()
	return command
}

// waitReady waits until the server has written to its pid file that it takes
// connections: a connection alone could be to somebody else's server.
func (c *cluster) waitReady(ctx context.Context, running *child) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	timeout := time.After(startTimeout)
	for {
		select {
		case <-running.done:
			return fmt.Errorf("%s ended at its start on %s (%w); %s",
				c.binaries.path("postgres"), c.dataDir, running.exit(), lastWords(running.output.String()))
		case <-ctx.Done():
			return fmt.Errorf("wait for the server on %s: %w", c.dataDir, ctx.Err())
		case <-timeout:
			return fmt.Errorf("the server on %s takes no connections after %s; %s",
				c.dataDir, startTimeout, lastWords(running.output.String()))
		case <-ticker.C:
			if isReady(filepath.Join(c.dataDir, pidFile), running.process.Pid) {
				return nil
			}
		}
	}
}

// isReady reads the pid file: its first line is the pid, its eighth the state.
func isReady(path string, pid int) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}
