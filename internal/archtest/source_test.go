package archtest_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// maxFileLines is where a file of ours must be cut in two.
const maxFileLines = 500

// source is one Go file.
type source struct {
	file *ast.File
	name string // its path in the module
	set  *token.FileSet
	text []byte
}

// rule returns what breaks it, one line each.
type rule func(source) []string

func rules() map[string]rule {
	return map[string]rule{
		"CompletesJobsBehindTheFenceAlone": completesBehindFence,
		"ConnectsInOneWay":                 connectsInOneWay,
		"CountsRows":                       countsRows,
		"FilesAreShort":                    fileIsShort,
		"MoneyIsWhole":                     moneyIsWhole,
		"ProcessesEndWithTheirParent":      processEndsWithParent,
		"TestsAreOutsideTheirPackage":      testIsOutside,
		"TestsDoNotSleep":                  testDoesNotSleep,
		"TestsRunInParallel":               testRunsInParallel,
	}
}

func TestSources(t *testing.T) {
	t.Parallel()

	sources := readSources(t)
	for name, check := range rules() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var violations []string
			for _, one := range sources {
				violations = append(violations, check(one)...)
			}
			require.Empty(t, violations)
		})
	}
}

// TestRules shows each rule a source that breaks it and one that does not.
func TestRules(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct{ bad, good source }{
		"CompletesJobsBehindTheFenceAlone": {
			bad:  parse(t, "workers/outbox.go", "package workers\nfunc f() { river.JobCompleteTx[D](ctx, tx, job) }"),
			good: parse(t, "internal/freshness/complete.go", "package freshness\nfunc f() { river.JobCompleteTx[D](ctx, tx, job) }"),
		},
		"ConnectsInOneWay": {
			bad:  parse(t, "internal/app/x.go", "package app\nfunc f() { pgxpool.NewWithConfig(ctx, config) }"),
			good: parse(t, "internal/pgconnect/x.go", "package pgconnect\nfunc f() { pgxpool.NewWithConfig(ctx, config) }"),
		},
		"CountsRows": {
			bad:  parse(t, "internal/app/x.go", "package app\nfunc f() { q.SettlementRunWait(ctx, tx, p); q.SettlementRunWait(ctx, pgtx.Exactly(tx, 1), p) }"),
			good: parse(t, "internal/app/x.go", "package app\nfunc f() { q.SettlementRunWait(ctx, pipeline.Step(act, 1), p); n, err := q.OutboxShardRenew(ctx, tx, p) }"),
		},
		"FilesAreShort": {
			bad:  parse(t, "jobs/x.go", "package jobs"+strings.Repeat("\n", maxFileLines+1)),
			good: parse(t, "internal/dbsqlc/x.go", "package dbsqlc"+strings.Repeat("\n", maxFileLines+1)),
		},
		"MoneyIsWhole": {
			bad:  parse(t, "internal/wallet/x.go", "package wallet\nvar amount float64"),
			good: parse(t, "internal/devstack/sample/x.go", "package sample\nvar chance float64"),
		},
		"ProcessesEndWithTheirParent": {
			bad:  parse(t, "test/e2e/x_test.go", "package e2e_test\nfunc f() { exec.CommandContext(ctx, name).Run() }"),
			good: parse(t, "test/e2e/x_test.go", "package e2e_test\nfunc f() { childproc.Command(ctx, name).Run() }"),
		},
		"TestsAreOutsideTheirPackage": {
			bad:  parse(t, "jobs/x_test.go", "package jobs"),
			good: parse(t, "jobs/export_test.go", "package jobs"),
		},
		"TestsDoNotSleep": {
			bad:  parse(t, "jobs/x_test.go", "package jobs_test\nfunc f() { time.Sleep(1) }"),
			good: parse(t, "jobs/x.go", "package jobs\nfunc f() { time.Sleep(1) }"),
		},
		"TestsRunInParallel": {
			bad:  parse(t, "jobs/x_test.go", "package jobs_test\nfunc TestX(t *testing.T) { setup(); t.Parallel() }"),
			good: parse(t, "jobs/x_test.go", "package jobs_test\nfunc TestX(t *testing.T) { t.Parallel(); t.Run(name, func(t *testing.T) { t.Parallel() }) }"),
		},
	} {
		check := rules()[name]
		require.Len(t, check(tc.bad), 1, name)
		require.Empty(t, check(tc.good), name)
	}
	for subtest, num := range map[string]int{
		"t.Run(name, func(t *testing.T) {\nwork() })":                                               1,
		"t.Run(name, func(t *testing.T) { //nolint:paralleltest\nwork() })":                         1,
		"t.Run(name, func(t *testing.T) { //nolint:paralleltest // sets the environment\nwork() })": 0,
	} {
		text := "package jobs_test\nfunc TestX(t *testing.T) {\nt.Parallel()\n" + subtest + "\n}"
		require.Len(t, testRunsInParallel(parse(t, "jobs/x_test.go", text)), num, subtest)
	}
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

func (s source) at(node ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.name, s.set.Position(node.Pos()).Line, fmt.Sprintf(format, args...))
}

// completesBehindFence: River's own completion guards nothing, so a job that
// runs twice would end twice.
func completesBehindFence(s source) []string {
	if filepath.Dir(s.name) == "internal/freshness" {
		return nil
	}
	return s.find("JobCompleteTx is for internal/freshness alone: complete through its closure", func(node ast.Node) bool {
		name, ok := node.(*ast.Ident)
		return ok && name.Name == "JobCompleteTx"
	})
}

// connectsInOneWay: a second parser of the URL, or a connection whose settings are
// the server's, works until somebody gives an option or changes a default.
func connectsInOneWay(s source) []string {
	if s.isTest() || filepath.Dir(s.name) == "internal/pgconnect" || strings.HasPrefix(s.name, "examples/") {
		return nil
	}
	opens := map[string][]string{
		"pgconn":  {"Connect", "ConnectConfig", "ParseConfig"},
		"pgx":     {"Connect", "ConnectConfig", "ParseConfig"},
		"pgxpool": {"New", "NewWithConfig", "ParseConfig"},
		"sql":     {"Open", "OpenDB"},
		"stdlib":  {"GetConnector", "OpenDB", "OpenDBFromPool"},
	}
	return s.find("internal/pgconnect opens connections to Postgres", func(node ast.Node) bool {
		called, ok := node.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		of, ok := called.X.(*ast.Ident)
		return ok && slices.Contains(opens[of.Name], called.Sel.Name)
	})
}

func fileIsShort(s source) []string {
	lines := bytes.Count(s.text, []byte("\n"))
	if lines <= maxFileLines || filepath.Dir(s.name) == "internal/dbsqlc" {
		return nil
	}
	return []string{fmt.Sprintf("%s has %d lines, more than %d", s.name, lines, maxFileLines)}
}

// moneyIsWhole: amounts are minor units and rates millionths. What is made up or
// measured may be a fraction.
func moneyIsWhole(s source) []string {
	for _, folder := range []string{"bench/", "internal/devstack/", "internal/telemetry/", "test/"} {
		if strings.HasPrefix(s.name, folder) {
			return nil
		}
	}
	if s.isTest() {
		return nil
	}
	return s.find("no floats: amounts and rates are whole numbers", func(node ast.Node) bool {
		name, ok := node.(*ast.Ident)
		return ok && (name.Name == "float32" || name.Name == "float64")
	})
}

// processEndsWithParent: a child that outlives a test that was cut off holds what
// it inherited, and may be stopped for good.
func processEndsWithParent(s source) []string {
	for _, folder := range []string{"bench/peers/", "internal/childproc/"} { // the first is a module of its own
		if strings.HasPrefix(s.name, folder) {
			return nil
		}
	}
	starts := map[string][]string{
		"exec":    {"Command", "CommandContext"},
		"os":      {"StartProcess"},
		"syscall": {"ForkExec", "StartProcess"},
	}
	return s.find("start programs through internal/childproc, so that they end with this process", func(node ast.Node) bool {
		called, ok := node.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		of, ok := called.X.(*ast.Ident)
		return ok && slices.Contains(starts[of.Name], called.Sel.Name)
	})
}

func testIsOutside(s source) []string {
	if !s.isTest() || filepath.Base(s.name) == "export_test.go" || strings.HasSuffix(s.file.Name.Name, "_test") {
		return nil
	}
	return []string{fmt.Sprintf("%s must be in package %s_test", s.name, s.file.Name.Name)}
}

func testDoesNotSleep(s source) []string {
	if !s.isTest() {
		return nil
	}
	return s.find("a test must not sleep: wait for the thing, with a deadline", func(node ast.Node) bool {
		called, ok := node.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		of, ok := called.X.(*ast.Ident)
		return ok && of.Name == "time" && called.Sel.Name == "Sleep"
	})
}

// testRunsInParallel looks at every function of a *testing.T that is a test, or
// is given to Run. One that cannot may say so, and why, as the linter
// paralleltest wants it.
func testRunsInParallel(s source) []string {
	if !s.isTest() {
		return nil
	}
	return s.find("t.Parallel() must come first", func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			return node.Recv == nil && strings.HasPrefix(node.Name.Name, "Test") && isOfT(node.Type) && !startsParallel(node.Body) && !setsEnvironment(node.Body) && !s.isExcused(node)
		case *ast.CallExpr:
			called, ok := node.Fun.(*ast.SelectorExpr)
			if !ok || called.Sel.Name != "Run" || len(node.Args) != 2 {
				return false
			}
			function, ok := node.Args[1].(*ast.FuncLit)
			return ok && isOfT(function.Type) && !startsParallel(function.Body) && !s.isExcused(node)
		default:
			return false
		}
	})
}

// setsEnvironment: such a test cannot run beside others.
func setsEnvironment(body *ast.BlockStmt) bool {
	sets := false
	ast.Inspect(body, func(node ast.Node) bool {
		called, ok := node.(*ast.SelectorExpr)
		sets = sets || (ok && called.Sel.Name == "Setenv")
		return !sets
	})
	return sets
}

func (s source) isExcused(node ast.Node) bool {
	lines := strings.Split(string(s.text), "\n")
	return strings.Contains(lines[s.set.Position(node.Pos()).Line-1], "//nolint:paralleltest // ")
}

func isOfT(function *ast.FuncType) bool {
	if function.Params.NumFields() != 1 {
		return false
	}
	pointer, ok := function.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	name, ok := pointer.X.(*ast.SelectorExpr)
	return ok && name.Sel.Name == "T"
}

func startsParallel(body *ast.BlockStmt) bool {
	if len(body.List) == 0 {
		return false
	}
	statement, ok := body.List[0].(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := statement.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	called, ok := call.Fun.(*ast.SelectorExpr)
	return ok && called.Sel.Name == "Parallel"
}

func (s source) find(message string, isWrong func(ast.Node) bool) []string {
	var violations []string
	ast.Inspect(s.file, func(node ast.Node) bool {
		if node != nil && isWrong(node) {
			violations = append(violations, s.at(node, "%s", message))
		}
		return true
	})
	return violations
}

// TestQueries_HaveNoMerge: sqlc binds no parameter of a MERGE, and says nothing.
func TestQueries_HaveNoMerge(t *testing.T) {
	t.Parallel()

	merge := regexp.MustCompile(`(?im)^[^-\n]*\bMERGE\s+INTO\b`)
	require.True(t, merge.MatchString("-- name: X :exec\n  merge into x USING y"))
	require.False(t, merge.MatchString("-- no MERGE INTO here\nINSERT INTO x"))

	names, err := filepath.Glob(filepath.Join(root, "sql", "queries", "*.sql"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.False(t, merge.Match(text), "%s has a MERGE: sqlc would leave its parameters unbound", name)
	}
}

func readSources(t *testing.T) []source {
	t.Helper()
	var sources []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		sources = append(sources, parse(t, filepath.ToSlash(name), string(text)))
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, len(sources), 20, "the walk finds the sources of the house")
	return sources
}

func parse(t *testing.T, name, text string) source {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	require.NoError(t, err)
	return source{file: file, name: name, set: set, text: []byte(text)}
}
