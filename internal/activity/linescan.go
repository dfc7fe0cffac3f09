package activity

import (
	"encoding/json"
	"slices"
	"strings"

	"truegreen/internal/fault"
	"truegreen/internal/nearest"
)

// tokenKind is the kind of a JSON value.
type tokenKind uint8

const (
	tokenNull tokenKind = iota
	tokenBool
	tokenNumber
	tokenString
	tokenNested // an object or array
)

func (k tokenKind) describe() string {
	switch k {
	case tokenNull:
		return "null"
	case tokenBool:
		return "true or false"
	case tokenNumber:
		return "a number"
	case tokenString:
		return "a string"
	case tokenNested:
		return "an object or array"
	}
	return "something else"
}

// token is a JSON value: a string's content, or the text of anything else.
type token struct {
	raw  string
	kind tokenKind
}

// scanner goes through a JSON object of one level. encoding/json would take
// field names in any case and twice, and three times as long.
type scanner struct {
	pos  int
	text string
}

// scanObject fills values with the fields of the object that text is. Fails
// with [errSyntax], or with [fault.KindInvalid] for a field that is unknown or
// there twice.
func scanObject(text string, values *[numFields]token) (fieldSet, error) {
	s := scanner{text: text}
	if !s.accept('{') {
		return 0, errSyntax
	}
	var given fieldSet
	for open := !s.accept('}'); open; open = s.accept(',') {
		f, err := s.scanField(values)
		if err != nil {
			return 0, err
		}
		if given.has(f) {
			return 0, fault.Invalid("field %q is there twice", f)
		}
		given |= fieldSet(f)
	}
	if given != 0 && !s.accept('}') {
		return 0, errSyntax
	}
	s.skipSpace()
	if s.pos != len(text) {
		return 0, errSyntax
	}
	return given, nil
}

// scanField takes a name and its value.
func (s *scanner) scanField(values *[numFields]token) (field, error) {
	s.skipSpace()
	name, ok := s.scanString()
	if !ok || !s.accept(':') {
		return 0, errSyntax
	}
	value, ok := s.scanValue()
	if !ok {
		return 0, errSyntax
	}
	f := fieldNamed(name)
	if f != 0 {
		values[f.index()] = value
		return f, nil
	}
	// Text that breaks off later is no JSON, whatever its fields are called.
	if !json.Valid([]byte(s.text)) {
		return 0, errSyntax
	}
	if near := nearest.Of(strings.ToLower(name), allFields.names()); near != "" {
		return 0, fault.Invalid("field %q is not known; did you mean %q?", shorten(name), near)
	}
	return 0, fault.Invalid("field %q is not known; there are %s", shorten(name), strings.Join(slices.Sorted(slices.Values(allFields.names())), ", "))
}

func (s *scanner) skipSpace() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// accept skips space and takes the byte if it comes next.
func (s *scanner) accept(want byte) bool {
	s.skipSpace()
	if s.pos < len(s.text) && s.text[s.pos] == want {
		s.pos++
		return true
	}
	return false
}

// scanString takes a string that begins at the very next byte.
func (s *scanner) scanString() (string, bool) {
	if s.pos >= len(s.text) || s.text[s.pos] != '"' {
		return "", false
	}
	start := s.pos + 1
	for i := start; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.pos = i + 1
			return s.text[start:i], true
		case c == '\\':
			return s.scanEscaped()
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// scanEscaped takes a string that has a backslash in it, with the library's
// help. Halves of surrogate pairs are refused: they would silently turn into
// another character.
func (s *scanner) scanEscaped() (string, bool) {
	rest := s.text[s.pos:]
	end := closingQuote(rest)
	if end < 0 {
		return "", false
	}
	literal := rest[:end+1]
	var content string
	if json.Unmarshal([]byte(literal), &content) != nil {
		return "", false
	}
	if strings.ContainsRune(content, '\uFFFD') && !strings.Contains(literal, "\uFFFD") && !strings.Contains(strings.ToLower(literal), `\ufffd`) {
		return "", false
	}
	s.pos += end + 1
	return content, true
}

// closingQuote returns the index of the quote that ends the string literal at
// the start of text, or -1.
func closingQuote(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// scanValue takes any value. A nested one is taken as a whole, to be refused by
// name later.
func (s *scanner) scanValue() (token, bool) {
	s.skipSpace()
	if s.pos >= len(s.text) {
		return token{}, false
	}
	switch c := s.text[s.pos]; {
	case c == '"':
		content, ok := s.scanString()
		return token{kind: tokenString, raw: content}, ok
	case c == '{' || c == '[':
		return s.scanOther(tokenNested)
	case c == '-' || c >= '0' && c <= '9':
		return s.scanNumber()
	case c == 'n':
		return s.scanOther(tokenNull)
	default:
		return s.scanOther(tokenBool)
	}
}

// scanNumber takes a number; a whole one without the library's help.
func (s *scanner) scanNumber() (token, bool) {
	start, end := s.pos, s.pos
	if s.text[end] == '-' {
		end++
	}
	firstDigit := end
	for end < len(s.text) && s.text[end] >= '0' && s.text[end] <= '9' {
		end++
	}
	leadingZero := end-firstDigit > 1 && s.text[firstDigit] == '0'
	if end == firstDigit || leadingZero {
		return token{}, false
	}
	if end < len(s.text) && (s.text[end] == '.' || s.text[end] == 'e' || s.text[end] == 'E') {
		return s.scanOther(tokenNumber)
	}
	s.pos = end
	return token{kind: tokenNumber, raw: s.text[start:end]}, true
}

// scanOther takes the next value with the library's decoder.
func (s *scanner) scanOther(kind tokenKind) (token, bool) {
	decoder := json.NewDecoder(strings.NewReader(s.text[s.pos:]))
	var value json.RawMessage
	if decoder.Decode(&value) != nil {
		return token{}, false
	}
	s.pos += int(decoder.InputOffset())
	return token{kind: kind, raw: string(value)}, true
}
