package api

import (
	"log/slog"
	"net/http"
	"time"
)

// Bounds of one request, so that slow clients cannot hold the server.
const (
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	readHeaderTimeout = 5 * time.Second
)

// NewServer returns a server for handler with bounds on headers and on idle
// connections. It sets none on bodies, which are the handlers' to bound.
func NewServer(address string, handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Addr:              address,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		Handler:           handler,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
	}
}
