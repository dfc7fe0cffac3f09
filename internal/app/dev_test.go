package app_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/app"
	"truegreen/internal/childproc"
)

func TestWriteEnv(t *testing.T) {
	t.Parallel()

	t.Run("GivesAShellExactlyTheseValues", func(t *testing.T) {
		t.Parallel()

		dir := t.TempDir()
		value := `postgres://a:it's"$HOME"` + "`id`" + `\#%20@h/d e`
		require.NoError(t, app.WriteEnv(dir, [][2]string{{"FIRST", value}, {"SECOND", "2"}}))

		command := childproc.Command(t.Context(), "/bin/sh", "-c", `. "$1"; printf '%s|%s' "$FIRST" "$SECOND"`, "sh", filepath.Join(dir, "env"))
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s", output)
		require.Equal(t, value+"|2", string(output))
	})
}
