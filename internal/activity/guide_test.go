package activity_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
)

// TestGuide feeds what docs/guides/activity.md shows through an import.
func TestGuide(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("../../docs/guides/activity.md")
	require.NoError(t, err)
	guide := string(text)
	block := func(kind string) string {
		found := regexp.MustCompile("(?s)\n```" + kind + "\n(.*?)\n```\n").FindStringSubmatch(guide)
		require.NotNil(t, found, kind)
		return found[1]
	}

	t.Run("ItsExampleIsAppliedAndItsWrongLinesAreRefused", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		bundle := setup(ctx, t)
		result, err := bundle.imported(ctx, "x", block("jsonl"), 100)
		require.NoError(t, err)
		require.Equal(t, activity.Result{NumApplied: 11, NumLines: 12, NumRefused: 1}, result.Result)
		require.EqualValues(t, 900000, result.Refused[0].Amount)
		require.EqualValues(t, 5000, result.Refused[0].Balance)
		result, err = bundle.imported(ctx, "x", block("jsonl"), 100)
		require.NoError(t, err)
		require.Equal(t, activity.Result{NumKnown: 12, NumLines: 12}, result.Result)
		bundle.requireBalance(ctx, t, "p-1", 5000, 6)

		wrong := strings.Split(block("refused"), "\n")
		require.Zero(t, len(wrong)%2)
		for i := 0; i < len(wrong); i += 2 {
			_, err := bundle.imported(ctx, "x", wrong[i], 100)
			require.EqualError(t, err, "x, line 1: "+wrong[i+1]+"; no line of it is applied; once that is fixed, import the same file again", wrong[i])
		}
	})

	t.Run("ItNamesEveryTypeAndField", func(t *testing.T) {
		t.Parallel()

		// As the error about a field that there is not has them.
		_, err := activity.ParseLine([]byte(`{"nothing":1}`))
		require.Error(t, err)
		_, fields, _ := strings.Cut(err.Error(), "there are ")
		names := strings.Split(fields, ", ")
		require.Len(t, names, 16)
		for _, name := range names {
			require.Contains(t, guide, "\n| `"+name+"` | ")
		}
		_, err = activity.ParseLine([]byte(`{"type":"nothing"}`))
		require.Error(t, err)
		_, types, _ := strings.Cut(err.Error(), "is not one of ")
		for _, name := range strings.Split(types, ", ") {
			require.Contains(t, guide, "\n| `"+name+"` | ")
			require.Contains(t, block("jsonl"), `{"type":"`+name+`",`)
		}
	})
}
