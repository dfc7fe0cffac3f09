package devstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsStartTimeout bounds a start, recovery of the stored streams included.
const natsStartTimeout = time.Minute

// NATSConfig says where an in-process NATS server keeps its streams and how it
// is run. Only StoreDir is required.
type NATSConfig struct {
	// Logger gets the server's warnings and errors. Nil drops them.
	Logger *slog.Logger

	// Notice is called with what a user should be told, one plain sentence at a
	// time, during the start only.
	Notice func(string)

	// Port is the preferred port on 127.0.0.1. When it is taken, or 0, a free
	// one is used.
	Port int

	// StoreDir is the folder of the JetStream store. It is made when missing,
	// and must be empty or made by this package. To have [RemoveData] remove it,
	// let it be nats in a folder that [PrepareDataDir] was called for.
	StoreDir string

	// SyncAlways syncs each message to disk before it is acknowledged, as a
	// broker that must not lose any is set up. Otherwise a crash of the machine,
	// not of the process, may lose the last minutes.
	SyncAlways bool

	isFree func(port int) bool
}

// NATS is a running in-process server.
type NATS struct {
	lock     *folderLock
	port     int
	server   *server.Server
	stopOnce sync.Once
}

// StartNATS starts a NATS server with JetStream inside this process and returns
// once it takes connections. It listens on 127.0.0.1 without a password, so
// that any local user can connect, handles no signals, and ends with the
// process; what is in the store outlives it.
//
// One server at a time can use a store, and a second one is told so. Fails when
// the store can't be used, saying what to do.
func StartNATS(config NATSConfig) (*NATS, error) {
	started, err := startNATS(config)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	return started, nil
}

func startNATS(config NATSConfig) (*NATS, error) {
	if config.StoreDir == "" {
		return nil, errors.New("StoreDir is required")
	}
	if err := validatePort(config.Port); err != nil {
		return nil, err
	}
	if config.Notice == nil {
		config.Notice = func(string) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.isFree == nil {
		config.isFree = isPortFree
	}
	storeDir, err := filepath.Abs(config.StoreDir)
	if err != nil {
		return nil, fmt.Errorf("resolve store %s: %w", config.StoreDir, err)
	}
	if err := claimFolder(storeDir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFolder(storeDir)
	if err != nil {
		return nil, err
	}

	// Random ports are chosen by the listening itself, so that none is lost to
	// somebody faster; only the preferred one can be.
	running, err := runNATS(config, storeDir, config.firstPort())
	if err != nil && config.Port != 0 && strings.Contains(err.Error(), "Error listening on port") {
		running, err = runNATS(config, storeDir, server.RANDOM_PORT)
	}
	if err != nil {
		lock.release()
		return nil, err
	}
	address, ok := running.Addr().(*net.TCPAddr)
	if !ok {
		panic("unreachable: a server that takes connections has a TCP address")
	}
	if config.Port != 0 && address.Port != config.Port {
		config.Notice(fmt.Sprintf("port %d is taken: NATS listens on %d instead", config.Port, address.Port))
	}
	return &NATS{lock: lock, port: address.Port, server: running}, nil
}

// firstPort is the port to try first.
func (c NATSConfig) firstPort() int {
	if c.Port == 0 || !c.isFree(c.Port) {
		return server.RANDOM_PORT
	}
	return c.Port
}

func runNATS(config NATSConfig, storeDir string, port int) (*server.Server, error) {
	created, err := server.NewServer(&server.Options{
		Host:       loopback,
		JetStream:  true,
		NoSigs:     true,
		Port:       port,
		ServerName: "truegreen-dev",
		StoreDir:   storeDir,
		SyncAlways: config.SyncAlways,
	})
	if err != nil {
		return nil, fmt.Errorf("set up server: %w", err)
	}
	log := &natsLogger{fatal: make(chan string, 1), logger: config.Logger}
	created.SetLoggerV2(log, false, false, false)

	returned := make(chan struct{})
	go func() {
		defer close(returned)
		created.Start()
	}()
	ready := make(chan bool, 1)
	go func() { ready <- created.ReadyForConnections(natsStartTimeout) }()

	select {
	case reason := <-log.fatal:
		<-returned
		created.Shutdown()
		created.WaitForShutdown()
		return nil, fmt.Errorf("use store %s: %s: check that this user can read and write all of it, "+
			"or choose another folder with --data-dir", storeDir, reason)
	case isReady := <-ready:
		if !isReady {
			created.Shutdown()
			return nil, fmt.Errorf("no connections are taken after %s; is the disk of %s very slow?",
				natsStartTimeout, storeDir)
		}
	}
	return created, nil
}

// Port returns the port on 127.0.0.1.
func (n *NATS) Port() int { return n.port }

// URL returns the URL that clients connect to.
func (n *NATS) URL() string {
	return "nats://" + net.JoinHostPort(loopback, strconv.Itoa(n.port))
}

// Stop disconnects the clients, writes everything to disk, and lets go of the
// store, which another server may use then. Stopping twice is harmless.
func (n *NATS) Stop() {
	n.stopOnce.Do(func() {
		n.server.Shutdown()
		n.server.WaitForShutdown()
		n.lock.release()
	})
}

// natsLogger passes on what somebody has to know, and catches the reason of a
// failed start, which the server only logs.
type natsLogger struct {
	fatal  chan string
	logger *slog.Logger
}

// Debugf drops what is for the broker's own developers.
func (l *natsLogger) Debugf(string, ...any) {}

// Noticef drops what is no trouble.
func (l *natsLogger) Noticef(string, ...any) {}

// Tracef drops what is for the broker's own developers.
func (l *natsLogger) Tracef(string, ...any) {}

// Errorf passes on an error.
func (l *natsLogger) Errorf(format string, v ...any) {
	l.logger.Error("broker reports an error", "detail", fmt.Sprintf(format, v...))
}

// Warnf passes on a warning.
func (l *natsLogger) Warnf(format string, v ...any) {
	l.logger.Warn("broker warns", "detail", fmt.Sprintf(format, v...))
}

// Fatalf catches the reason of a failed start; the server stops by itself then.
func (l *natsLogger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
