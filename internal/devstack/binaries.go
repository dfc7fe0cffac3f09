package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"truegreen/internal/childproc"
)

// Majors of Postgres: the oldest that the schema runs on, and the one fetched
// when none is installed.
const (
	oldestMajor = 15
	fetchMajor  = 18
)

// binaries are the programs of one Postgres installation.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// findBinaries looks for initdb and postgres in dirs, in order, and fetches
// them when there are none. wanted is the major that an existing cluster needs,
// or 0 for any that will do.
func findBinaries(
	ctx context.Context, dirs []string, wanted int, who *account, fetch fetchFunc,
) (binaries, error) {
	var seen []string
	for _, dir := range dirs {
		major, err := majorOf(ctx, dir, who)
		if err != nil {
			continue
		}
		if major == wanted || wanted == 0 && major >= oldestMajor {
			return binaries{dir: dir, major: major}, nil
		}
		seen = append(seen, fmt.Sprintf("%d in %s", major, dir))
	}

	major := fetchMajor
	if wanted != 0 {
		major = wanted
	}
	dir, fetchErr := fetch(ctx, major)
	if fetchErr == nil {
		found, err := majorOf(ctx, dir, who)
		if err == nil && found != major {
			err = fmt.Errorf("they are of version %d", found)
		}
		if err == nil {
			return binaries{dir: dir, major: major}, nil
		}
		fetchErr = fmt.Errorf("try the fetched programs in %s: %w", dir, err)
	}
	return binaries{}, missingBinaries(wanted, dirs, seen, fetchErr)
}

func missingBinaries(wanted int, dirs, seen []string, fetchErr error) error {
	need := fmt.Sprintf("PostgreSQL %d or newer", oldestMajor)
	install := fmt.Sprintf("install it (Debian: apt install postgresql; macOS: brew install postgresql@%d)", fetchMajor)
	if wanted != 0 {
		need = fmt.Sprintf("PostgreSQL %d, which made this cluster,", wanted)
		install = fmt.Sprintf("install it (Debian: postgresql-%d; macOS: brew install postgresql@%d), "+
			"start over with --fresh", wanted, wanted)
	}
	looked := "in PATH and the usual folders"
	if len(dirs) > 0 {
		looked = "in " + strings.Join(dirs, ", ")
	}
	if len(seen) > 0 {
		looked += " (found " + strings.Join(seen, ", ") + ")"
	}
	return fmt.Errorf("%s is needed: looked for initdb and postgres %s, and could not fetch them: %w: "+
		"%s, or name a server with --database-url (tests: TRUEGREEN_TEST_DATABASE_URL)",
		need, looked, fetchErr, install)
}

// majorOf returns the major version of the installation in dir. Fails unless it
// has both programs and they run.
func majorOf(ctx context.Context, dir string, who *account) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, fmt.Errorf("look for initdb: %w", err)
	}
	command := childproc.Command(ctx, filepath.Join(dir, "postgres"), "-V")
	command.Dir = "/" // this process's own may be closed to the account
	command.Env = childEnvironment()
	command.SysProcAttr = &syscall.SysProcAttr{Credential: who.credential()}
	output, err := command.Output()
	if err != nil {
		return 0, fmt.Errorf("ask postgres in %s for its version: %w", dir, err)
	}
	// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	_, version, _ := strings.Cut(string(output), "(PostgreSQL) ")
	return parseMajor(version)
}

// parseMajor reads the digits that a version starts with: 15.18, 19beta1, 18.
func parseMajor(version string) (int, error) {
	version = strings.TrimSpace(version)
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		version = version[:end]
	}
	major, err := strconv.Atoi(version)
	if err != nil {
		return 0, fmt.Errorf("read version %q: %w", version, err)
	}
	return major, nil
}

// installedDirs are the folders where a Postgres installation may be, those in
// PATH first. Only existing ones that hold a program postgres are listed.
func installedDirs(ctx context.Context) []string {
	var dirs []string
	add := func(dir string) {
		// Links are followed because initdb looks for postgres beside itself.
		resolved, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			return
		}
		if dir = filepath.Dir(resolved); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	if output, err := childproc.Command(ctx, "pg_config", "--bindir").Output(); err == nil {
		add(strings.TrimSpace(string(output)))
	}
	for _, pattern := range usualPlaces() {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			panic("unreachable: the patterns are constant and well-formed")
		}
		// Two digits each for many years: newest first.
		slices.Sort(matches)
		slices.Reverse(matches)
		for _, dir := range matches {
			add(dir)
		}
	}
	return dirs
}

func usualPlaces() []string {
	places := []string{
		"/usr/lib/postgresql/[1-9][0-9]/bin",
		"/usr/pgsql-[1-9][0-9]/bin",
		"/usr/local/pgsql/bin",
	}
	if runtime.GOOS == "darwin" {
		places = append(places,
			"/opt/homebrew/opt/postgresql@[1-9][0-9]/bin",
			"/usr/local/opt/postgresql@[1-9][0-9]/bin",
			"/Applications/Postgres.app/Contents/Versions/[1-9][0-9]/bin",
		)
	}
	return places
}
