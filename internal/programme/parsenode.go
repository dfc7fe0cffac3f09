package programme

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// entry is one key of a mapping, with its value.
type entry struct {
	isText bool // the key, and not a number or such
	key    string
	line   int // of the key
	value  ast.Node
}

// entriesOf returns the entries of a mapping, or what the node is instead.
func entriesOf(node ast.Node) (entries []entry, reason string) {
	var mapping ast.MapNode
	switch node := node.(type) {
	case *ast.MappingNode:
		mapping = node
	case *ast.MappingValueNode:
		mapping = node
	default:
		return nil, "got " + describe(node)
	}
	for iter := mapping.MapRange(); iter.Next(); {
		read := entry{key: iter.Key().GetToken().Value, line: lineOf(iter.Key()), value: iter.Value()}
		if key, isText := iter.Key().(*ast.StringNode); isText {
			read.isText, read.key = true, key.Value
		}
		entries = append(entries, read)
	}
	return entries, ""
}

// listOf returns the items of a list, or what the node is instead.
func listOf(node ast.Node) (items []ast.Node, reason string) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return nil, "got " + describe(node)
	}
	return append([]ast.Node{}, list.Values...), ""
}

// textOf returns the text of a plain or quoted value, or what the node is
// instead.
func textOf(node ast.Node) (text, reason string) {
	value, ok := node.(*ast.StringNode)
	if !ok {
		return "", "must be text, got " + describe(node)
	}
	return value.Value, ""
}

// numberOf returns a whole number in plain digits from least to most, or what is
// wrong with it. What else YAML takes for a number, such as 0x10, 1_000 or 1e6,
// is refused: amounts are to be read by people.
func numberOf(node ast.Node, least, most int64) (number int64, reason string) {
	digits, isPlain := plainOf(node)
	unsigned := strings.TrimPrefix(digits, "-")
	if !isPlain || unsigned == "" || strings.Trim(unsigned, "0123456789") != "" || (unsigned[0] == '0' && digits != "0") {
		return 0, "must be a whole number in plain digits, got " + describe(node)
	}
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || number < least || number > most {
		return 0, fmt.Sprintf("must be from %d to %d, got %s", least, most, shorten(digits))
	}
	return number, ""
}

// boolOf returns true or false, or what is wrong with the node.
func boolOf(node ast.Node) (value bool, reason string) {
	switch text, _ := plainOf(node); text {
	case "true":
		return true, ""
	case "false":
		return false, ""
	default:
		return false, "must be true or false, got " + describe(node)
	}
}

// plainOf returns a value as it is written; false if it is quoted, or no single
// value.
func plainOf(node ast.Node) (text string, ok bool) {
	scalar, isScalar := node.(ast.ScalarNode)
	if !isScalar {
		return "", false
	}
	switch written := scalar.GetToken(); written.Type {
	case token.SingleQuoteType, token.DoubleQuoteType, token.LiteralType, token.FoldedType:
		return "", false
	default:
		return written.Value, true
	}
}

// describe says what a node is, for a message.
func describe(node ast.Node) string {
	switch node := node.(type) {
	case nil, *ast.NullNode:
		return "no value"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias, which is not taken: write the value out"
	case *ast.TagNode:
		return "a tag, which is not taken: write the value out"
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.StringNode:
		return quote(node.Value)
	default:
		return shorten(node.GetToken().Value)
	}
}

func shorten(text string) string { return strings.Trim(quote(text), `"`) }

func isNothing(node ast.Node) bool {
	_, isNull := node.(*ast.NullNode)
	return isNull || node == nil
}

// lineOf returns the line that the node begins in.
func lineOf(node ast.Node) int {
	if node == nil || node.GetToken() == nil || node.GetToken().Position == nil {
		return 1
	}
	return node.GetToken().Position.Line
}
