package appconfig

import (
	"log/slog"
	"net/url"
	"strings"
)

// Secret is text that may hold a password. Printed, logged or marshalled it
// shows at most scheme, host and path of a URL; [Secret.Reveal] returns it
// whole, for the one who connects with it.
type Secret string

// Reveal returns the text as it was given.
func (secret Secret) Reveal() string { return string(secret) }

// String returns what may be shown: URLs without user, query and fragment,
// "[hidden]" for any other text, and nothing for none.
func (secret Secret) String() string {
	if secret == "" {
		return ""
	}
	var shown []string
	for text := range strings.SplitSeq(string(secret), ",") {
		parsed, err := url.Parse(strings.TrimSpace(text))
		// A password with a slash or a comma in it splits a URL in the wrong place,
		// and then there is a stray @.
		if err != nil || parsed.Scheme == "" || parsed.Host == "" || strings.Contains(parsed.Host+parsed.Path, "@") {
			return "[hidden]"
		}
		shown = append(shown, (&url.URL{Host: parsed.Host, Path: parsed.Path, Scheme: parsed.Scheme}).String())
	}
	return strings.Join(shown, ",")
}

// GoString is String, for %#v.
func (secret Secret) GoString() string { return secret.String() }

// LogValue is String, for log lines.
func (secret Secret) LogValue() slog.Value { return slog.StringValue(secret.String()) }

// MarshalText is String, for JSON.
func (secret Secret) MarshalText() ([]byte, error) { return []byte(secret.String()), nil }
