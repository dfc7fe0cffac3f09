package archtest_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// queryHead begins a query of sql/queries.
var queryHead = regexp.MustCompile(`(?m)^-- name: (\w+) :(\w+)$`)

// uncounted are queries whose rows need no counting, and why.
var uncounted = map[string]string{
	"OutboxCursorNote": "a cursor that stays where it was makes searches slower, and not wrong",
	"RiverJobFetchTry": "it asks whether the database would let it, and is taken back",
}

// changing are the queries whose rows nobody would count: they change rows, return
// none, and are not content with those that are there already. True for those of which
// the number of rows is returned.
var changing = sync.OnceValues(func() (map[string]bool, error) {
	paths, err := filepath.Glob(filepath.Join(root, "sql", "queries", "*.sql"))
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		heads := queryHead.FindAllSubmatchIndex(text, -1)
		for i, head := range heads {
			end := len(text)
			if i+1 < len(heads) {
				end = heads[i+1][0]
			}
			name, kind, sql := string(text[head[2]:head[3]]), string(text[head[4]:head[5]]), string(text[head[1]:end])
			sql = regexp.MustCompile(`--[^\n]*`).ReplaceAllString(sql, "")
			isChange := regexp.MustCompile(`\b(INSERT INTO|UPDATE \w|DELETE FROM)`).MatchString(sql) && !strings.Contains(sql, "DO NOTHING")
			if isChange && uncounted[name] == "" && (kind == "exec" || kind == "execrows") {
				found[name] = kind == "execrows"
			}
		}
	}
	return found, nil
})

// countsRows: a trigger, a rule or a policy may keep a statement from its rows, and the
// database reports no error then.
func countsRows(s source) []string {
	if s.isTest() || filepath.Dir(s.name) == "internal/dbsqlc" {
		return nil
	}
	queries, err := changing()
	if err != nil {
		return []string{err.Error()}
	}
	return s.find("count the rows: pgtx.Exactly, a step of a pipeline, or the number that is returned", func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.CallExpr:
			name, ok := calledName(node)
			isCounted, isChange := queries[name]
			return ok && isChange && !isCounted && (len(node.Args) < 2 || !countsIn(node.Args[1]))
		case *ast.AssignStmt:
			if len(node.Rhs) != 1 || len(node.Lhs) != 2 {
				return false
			}
			call, isCall := node.Rhs[0].(*ast.CallExpr)
			blank, isName := node.Lhs[0].(*ast.Ident)
			if !isCall || !isName || blank.Name != "_" {
				return false
			}
			name, _ := calledName(call)
			return queries[name]
		}
		return false
	})
}

func calledName(call *ast.CallExpr) (string, bool) {
	called, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	return called.Sel.Name, true
}

// countsIn says whether a database, as it is given to a query, counts rows.
func countsIn(database ast.Expr) bool {
	switch database := database.(type) {
	case *ast.CallExpr:
		name, ok := calledName(database)
		return ok && (name == "Exactly" || name == "Step")
	case *ast.Ident:
		return database.Name == "step"
	}
	return false
}
