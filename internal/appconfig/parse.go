package appconfig

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"truegreen/internal/pgconnect"
)

// duration completes setting, of the workers' group, for a duration of least to
// most.
func duration(setting Setting, least, most time.Duration, field func(*Config) *time.Duration) Setting {
	setting.Bound = fmt.Sprintf("a duration with its unit, from %s to %s", shortDuration(least), shortDuration(most))
	setting.Groups = []string{GroupWorker}
	setting.Value = "duration"
	setting.set = func(config *Config, text string) bool {
		parsed, err := time.ParseDuration(text)
		*field(config) = parsed
		return err == nil && parsed >= least && parsed <= most
	}
	return setting
}

// shortDuration leaves out the zeroes that String ends with: 10m, not 10m0s.
func shortDuration(duration time.Duration) string {
	text := duration.String()
	if trimmed, ok := strings.CutSuffix(text, "m0s"); ok {
		text = trimmed + "m"
	}
	if trimmed, ok := strings.CutSuffix(text, "h0m"); ok {
		text = trimmed + "h"
	}
	return text
}

// count completes setting, of the workers' group, for a whole number of least to
// most.
func count(setting Setting, least, most int, field func(*Config) *int) Setting {
	setting.Bound = fmt.Sprintf("a whole number from %d to %d", least, most)
	setting.Groups = []string{GroupWorker}
	setting.Value = "number"
	setting.set = func(config *Config, text string) bool {
		parsed, err := strconv.Atoi(text)
		*field(config) = parsed
		return err == nil && parsed >= least && parsed <= most
	}
	return setting
}

// parseDatabaseURL takes what connections are opened with, key=value pairs
// included.
func parseDatabaseURL(field *Secret, text string) bool {
	*field = Secret(text)
	_, err := pgconnect.Parse(text)
	return err == nil
}

// whyNotDatabaseURL names the option that is wrong, "" if all is.
func whyNotDatabaseURL(text string) string {
	_, err := pgconnect.Parse(text)
	if err == nil || errors.Is(err, pgconnect.ErrSyntax) {
		return ""
	}
	return err.Error()
}

func parseBrokerURL(field *Secret, text string) bool {
	*field = Secret(text)
	for server := range strings.SplitSeq(text, ",") {
		parsed, err := url.Parse(strings.TrimSpace(server))
		if err != nil || parsed.Hostname() == "" || (parsed.Scheme != "nats" && parsed.Scheme != "tls") {
			return false
		}
	}
	return true
}

func parseAddress(field *string, text string) bool {
	*field = text
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func parseHTTPURL(field *string, text string) bool {
	*field = strings.TrimRight(text, "/")
	parsed, err := url.Parse(text)
	return err == nil && parsed.Hostname() != "" && (parsed.Scheme == "http" || parsed.Scheme == "https")
}

func parseToken(field *Secret, text string) bool {
	*field = Secret(text)
	return isVisibleASCII(text, 16, 256)
}

func parseLevel(field *slog.Level, text string) bool {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "error": slog.LevelError, "info": slog.LevelInfo, "warn": slog.LevelWarn,
	}
	level, ok := levels[text]
	*field = level
	return ok
}

func isVisibleASCII(text string, least, most int) bool {
	for _, character := range []byte(text) {
		if character <= ' ' || character > '~' {
			return false
		}
	}
	return len(text) >= least && len(text) <= most
}
