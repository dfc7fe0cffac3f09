package appconfig_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"truegreen/internal/appconfig"
	"truegreen/internal/cli"
)

func TestSettings(t *testing.T) {
	t.Parallel()

	t.Run("EachIsDescribedAndNamedOnce", func(t *testing.T) {
		t.Parallel()

		seen := make(map[string]bool)
		for _, setting := range appconfig.Settings() {
			for _, name := range []string{setting.Name, setting.Flag} {
				require.NotEmpty(t, name)
				require.False(t, seen[name], "%s is there twice", name)
				seen[name] = true
			}
			require.NotEmpty(t, setting.Bound, setting.Name)
			require.NotEmpty(t, setting.Doc, setting.Name)
			require.NotEmpty(t, setting.Groups, setting.Name)
			require.NotEmpty(t, setting.Value, setting.Name)
			require.NotContains(t, setting.Bound+setting.Doc, "|", "it would break the table")
			if rest, ok := strings.CutPrefix(setting.Name, "TRUEGREEN_"); ok {
				require.Equal(t, strings.ReplaceAll(strings.ToLower(rest), "_", "-"), setting.Flag)
			}
			if setting.RequiredBy != "" {
				require.Contains(t, setting.Groups, setting.RequiredBy)
			}
		}
	})

	t.Run("DefaultsMeetTheirBounds", func(t *testing.T) {
		t.Parallel()

		for _, setting := range appconfig.Settings() {
			if setting.Default != "" {
				_, err := appconfig.Load(nil, []string{setting.Name + "=" + setting.Default})
				require.NoError(t, err)
			}
		}
	})
}

func TestBindFlags(t *testing.T) {
	t.Parallel()

	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	appconfig.BindFlags(flags, appconfig.GroupDatabase, appconfig.GroupLog)
	require.NotNil(t, flags.Lookup("database-url"))
	require.NotNil(t, flags.Lookup("log-level"))
	require.Nil(t, flags.Lookup("broker"))

	usage := flags.FlagUsages()
	require.Contains(t, usage, "[TRUEGREEN_LOG_LEVEL]")
	require.Contains(t, usage, "(default info)")
}

func TestBindFlags_OfTheCommands(t *testing.T) {
	t.Parallel()

	used := make(map[string]bool)
	// Making the tree also shows that no flag of a command is a setting's, too.
	cli.New(cli.Options{Bind: func(flags *pflag.FlagSet, groups ...string) {
		appconfig.BindFlags(flags, groups...)
		for _, group := range groups {
			used[group] = true
		}
	}})
	for group := range used {
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		appconfig.BindFlags(flags, group)
		require.True(t, flags.HasFlags(), "a command obeys group %s, which has no settings", group)
	}
	for _, setting := range appconfig.Settings() {
		require.True(t, slices.ContainsFunc(setting.Groups, func(group string) bool { return used[group] }), "no command has --%s", setting.Flag)
	}
}

func TestReference(t *testing.T) {
	t.Parallel()

	path := filepath.Join("..", "..", "docs", "reference", "settings.md")
	if os.Getenv("UPDATE_DOCS") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(appconfig.Reference()), 0o600))
	}
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, appconfig.Reference(), string(written),
		"docs/reference/settings.md is stale; run UPDATE_DOCS=1 go test ./internal/appconfig and commit it")
}
