package nearest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/nearest"
)

func TestOf(t *testing.T) {
	t.Parallel()

	candidates := []string{"LOG", "LOOPS", "OUTBOX_LEASE", "status", "settlement", "up", "dev", "broker", "worker"}
	for word, want := range map[string]string{
		"":             "",
		"FOO":          "",
		"LGO":          "LOG",
		"LOGG":         "LOG",
		"OUTBOX_LAESE": "OUTBOX_LEASE",
		"OUTBOX_SWEEP": "",
		"bogus":        "",
		"dve":          "dev",
		"ls":           "",
		"nosuch":       "",
		"settelmnt":    "settlement",
		"statsu":       "status",
		"wroker":       "worker",
		"xx":           "",
	} {
		require.Equal(t, want, nearest.Of(word, candidates), word)
	}
}
