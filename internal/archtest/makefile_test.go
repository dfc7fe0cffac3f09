package archtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/childproc"
)

// hostileFolder has in its name what make and shells treat as their own.
const hostileFolder = `a b'c"d$e#f%g&h`

// stubGo stands in for the go command: it installs and builds programs that do nothing.
const stubGo = `#!/bin/sh
program() { mkdir -p "$(dirname "$1")" && printf '#!/bin/sh\n' > "$1" && chmod +x "$1"; }
case "$1" in
install)
	for package in "$@"; do :; done
	name=${package##*/}
	program "$GOBIN/${name%@*}"
	;;
build)
	while [ $# -gt 1 ]; do
		if [ "$1" = -o ]; then program "$2"; fi
		shift
	done
	;;
esac
`

func TestMakefile(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	targets := regexp.MustCompile(`(?m)^[a-z/-]+:`).FindAllString(string(text), -1)
	for i := range targets {
		targets[i] = strings.TrimSuffix(targets[i], ":")
	}
	require.Contains(t, targets, "test")

	for _, target := range targets {
		t.Run("WorksInAFolderOfAnyName/"+target, func(t *testing.T) {
			t.Parallel()

			top := t.TempDir()
			folder := filepath.Join(top, hostileFolder)
			require.NoError(t, os.MkdirAll(filepath.Join(folder, "bench", "peers"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "Makefile"), text, 0o600))
			for _, script := range regexp.MustCompile(`(?m)^\t(test/\S+)`).FindAllSubmatch(text, -1) {
				path := filepath.Join(folder, string(script[1]))
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755))
			}
			stubs := filepath.Join(top, "stubs")
			require.NoError(t, os.Mkdir(stubs, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(stubs, "go"), []byte(stubGo), 0o755))

			command := childproc.Command(t.Context(), "make", target)
			command.Dir = folder
			command.Env = []string{"HOME=" + top, fmt.Sprintf("PATH=%s:%s", stubs, os.Getenv("PATH"))}
			output, err := command.CombinedOutput()
			require.NoError(t, err, "%s", output)

			// A path that a shell took apart leaves its first half beside the folder.
			entries, err := os.ReadDir(top)
			require.NoError(t, err)
			require.Len(t, entries, 2, "%s", output)
		})
	}
}
