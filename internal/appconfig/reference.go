package appconfig

import (
	"fmt"
	"strings"
)

// Reference is docs/reference/settings.md: the table of all settings, in
// Markdown.
func Reference() string {
	var page strings.Builder
	page.WriteString(`<!-- Made from internal/appconfig; UPDATE_DOCS=1 go test ./internal/appconfig makes it anew. -->
# Settings

A flag counts before the environment, the environment before the default. An
empty variable counts as not set. Everything that is wrong is reported at once,
with exit code 64, and a ` + "`TRUEGREEN_`" + ` name that is not in this table is wrong too.
Passwords and tokens are never printed.

Durations are written as in ` + "`250ms`, `5s`, `1m30s`" + `. A command has the flags of the
settings that it obeys: ` + "`truegreen COMMAND --help`" + ` lists them.

| environment | flag | default | must be | what it is for |
|---|---|---|---|---|
`)
	for _, setting := range Settings() {
		standard := "–"
		if setting.Default != "" {
			standard = "`" + setting.Default + "`"
		}
		fmt.Fprintf(&page, "| `%s` | `--%s` | %s | %s | %s%s |\n",
			setting.Name, setting.Flag, standard, setting.Bound, setting.Doc, requirement(setting))
	}
	fmt.Fprintf(&page, `
`+"`truegreen dev`"+` brings a database and a broker of its own. It obeys `+"`--database-url`"+`, but
never a `+"`DATABASE_URL`"+` or `+"`TRUEGREEN_BROKER`"+` that happens to be set.

Two more names are known and change nothing here: `+"`%s`"+` is the
database that the tests use, as a superuser, instead of one of their own, and `+"`NATS_URL`"+`, which
`+"`truegreen dev`"+` writes to its env file, is for NATS's own tools.
`, testDatabaseName)
	return page.String()
}

func requirement(setting Setting) string {
	if setting.RequiredBy == "" {
		return ""
	}
	return fmt.Sprintf(" Required by every command that has `--%s`, but for `dev`.", setting.Flag)
}
