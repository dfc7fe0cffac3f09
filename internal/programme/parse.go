package programme

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"truegreen/internal/fault"
)

// Bounds of a file. The YAML reader takes time that grows with the square of how
// deep and how long one value is, so these are kept before it starts.
const (
	MaxFileBytes  = 1 << 20
	maxFileDepth  = 32      // of values within brackets, or behind dashes of one line
	maxFileTokens = 100_000 // some hundreds of programmes
	maxProblems   = 50      // told at once
)

// Parse reads the programmes of a YAML file, in its order, with every default
// filled in. source names the file in errors.
//
// Fails with [fault.KindInvalid] when anything in the file is wrong. The text
// has a line for each thing, up to 50, in the order of the file:
//
//	source:line: code: field, what it must be, what it is
//
// Unknown fields, fields and codes that come twice, numbers that are not plain
// whole ones, fields that do not go together, and a file without programmes are
// all wrong. What YAML has beside mappings, lists, and plain or quoted values
// (anchors, tags, several documents) is not taken. A file has at most 1 MiB.
func Parse(source string, data io.Reader) ([]Terms, error) {
	text, err := io.ReadAll(io.LimitReader(data, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", source, err)
	}
	if len(text) > MaxFileBytes {
		return nil, fault.Invalid("%s: must have at most %d bytes", source, MaxFileBytes)
	}
	root, err := parseYAML(source, text)
	if err != nil {
		return nil, err
	}

	file := fileReader{source: source}
	programmes := file.programmes(root)
	if err := file.err(); err != nil {
		return nil, err
	}
	return programmes, nil
}

// parseYAML returns the value that the file holds.
func parseYAML(source string, text []byte) (ast.Node, error) {
	if !utf8.Valid(text) {
		return nil, fault.Invalid("%s: must be valid UTF-8", source)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	tokens := lexer.Tokenize(string(text))
	if err := checkTokens(source, tokens); err != nil {
		return nil, err
	}

	// Keys that come twice are found later, each with its programme.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	var known yaml.Error
	switch {
	case errors.As(err, &known) && known.GetToken() != nil:
		return nil, fault.Invalid("%s:%d: %s", source, known.GetToken().Position.Line, known.GetMessage())
	case err != nil:
		return nil, fault.Invalid("%s: %w", source, err)
	}

	var root ast.Node
	for _, document := range file.Docs {
		if document.Body == nil {
			continue
		}
		if root != nil {
			return nil, fault.Invalid("%s:%d: must be a single document", source, lineOf(document.Body))
		}
		root = document.Body
	}
	if root == nil {
		return nil, fault.Invalid("%s: has no programmes", source)
	}
	return root, nil
}

// checkTokens keeps the bounds of what the YAML reader is given.
func checkTokens(source string, tokens token.Tokens) error {
	if len(tokens) > maxFileTokens {
		return fault.Invalid("%s: has too many values, more than fit %d words and marks; split it", source, maxFileTokens)
	}
	brackets, dashes, line := 0, 0, 0
	for _, one := range tokens {
		if one.Position.Line != line {
			dashes, line = 0, one.Position.Line
		}
		switch one.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType:
			dashes++
		default:
		}
		if brackets+dashes > maxFileDepth {
			return fault.Invalid("%s:%d: has values within values, more than %d deep", source, line, maxFileDepth)
		}
	}
	return nil
}

// fileReader reads one file, and collects what is wrong with it.
type fileReader struct {
	problems []fileProblem
	source   string
}

type fileProblem struct {
	line int
	text string
}

func (file *fileReader) report(line int, format string, args ...any) {
	file.problems = append(file.problems, fileProblem{line: line, text: fmt.Sprintf(format, args...)})
}

// err returns all problems as one error, nil if there are none.
func (file *fileReader) err() error {
	if len(file.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(file.problems, func(a, b fileProblem) int { return cmp.Compare(a.line, b.line) })
	var told []error
	for i, problem := range file.problems {
		if i == maxProblems {
			told = append(told, fmt.Errorf("%s: and %d more", file.source, len(file.problems)-maxProblems))
			break
		}
		told = append(told, fmt.Errorf("%s:%d: %s", file.source, problem.line, problem.text))
	}
	return fault.Invalid("%w", errors.Join(told...))
}

// programmes reads the root of a file.
func (file *fileReader) programmes(root ast.Node) []Terms {
	var list []ast.Node
	entries, reason := entriesOf(root)
	if reason != "" {
		file.report(lineOf(root), "must be a mapping with programmes, %s", reason)
		return nil
	}
	for _, entry := range entries {
		switch {
		case entry.key != "programmes":
			file.report(entry.line, "has no field %s: all it has is programmes", quote(entry.key))
		case list != nil:
			file.report(entry.line, "programmes must come once")
		default:
			if list, reason = listOf(entry.value); reason != "" {
				file.report(entry.line, "programmes must be a list, %s", reason)
				return nil
			}
			if len(list) == 0 {
				file.report(entry.line, "has no programmes")
			}
		}
	}
	if list == nil {
		file.report(lineOf(root), "has no programmes")
	}
	return file.readAll(list)
}

func (file *fileReader) readAll(list []ast.Node) []Terms {
	var all []Terms
	lines := map[string]int{} // of codes
	for i, node := range list {
		terms, line := file.readProgramme(i+1, node)
		if first, taken := lines[terms.Code]; taken && terms.Code != "" {
			file.report(line, "%s: code must be unique, line %d has it too", terms.Code, first)
		} else {
			lines[terms.Code] = line
		}
		all = append(all, terms)
	}
	return all
}
