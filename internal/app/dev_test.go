package app_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
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

func TestTellProgress(t *testing.T) {
	t.Parallel()

	t.Run("SaysEveryFewSecondsHowManyLinesThereAre", func(t *testing.T) {
		t.Parallel()

		now := time.Date(2026, 11, 9, 2, 0, 0, 0, time.UTC)
		var said []string
		tell := app.TellProgress(func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }, func() time.Time { return now })
		for i := range 7 {
			now = now.Add(2 * time.Second)
			tell(activity.ImportProgress{NumLines: int64(5000 * (i + 1))})
		}
		require.Equal(t, []string{"imported 15000 lines so far, in 6s", "imported 30000 lines so far, in 12s"}, said)
	})
}
