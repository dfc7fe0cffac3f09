package freshness_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/dbtest"
	"truegreen/internal/freshness"
)

// TestCode_Runbook shows that every code has a page, and that its queries can be
// pasted.
func TestCode_Runbook(t *testing.T) {
	t.Parallel()

	const root = "../.."
	index, err := os.ReadFile(filepath.Join(root, "docs/runbooks/README.md"))
	require.NoError(t, err)
	queries := regexp.MustCompile("(?s)```sql\n(.*?)```")
	for _, code := range freshness.Codes() {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()

			page, err := os.ReadFile(filepath.Join(root, code.Runbook()))
			require.NoError(t, err)
			require.Contains(t, string(index), "["+string(code)+"]("+filepath.Base(code.Runbook())+")")
			var headings []string
			for line := range strings.SplitSeq(string(page), "\n") {
				if heading, ok := strings.CutPrefix(line, "## "); ok {
					headings = append(headings, heading)
				}
			}
			require.Equal(t, []string{"Meaning", "Impact", "Diagnosis", "Mitigation", "Do not"}, headings)

			ctx := t.Context()
			tx := dbtest.Tx(ctx, t)
			for _, block := range queries.FindAllStringSubmatch(string(page), -1) {
				sql := strings.TrimPrefix(block[1], "\\timing on\n")
				_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
				require.NoError(t, err, sql)
			}
		})
	}
}
