package activity

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// errSyntax stands for text that is no flat JSON object; the message to the
// sender is made by explainSyntax.
var errSyntax = errors.New("not a flat JSON object")

// ParseLine reads one line: a JSON object with exactly the fields of its type,
// each of the right kind and within its bounds. Field names are taken to the
// letter. Times are brought to UTC and cut to whole microseconds.
//
// Fails with [fault.KindInvalid]; the text names the field.
func ParseLine(data []byte) (Line, error) {
	// Every string of the line is a part of this one.
	text := string(data)
	if !utf8.ValidString(text) {
		if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
			return Line{}, fault.Invalid("begins with the byte-order mark of UTF-16: save the file as UTF-8 without a byte-order mark")
		}
		return Line{}, fault.Invalid("not valid UTF-8")
	}

	var values [numFields]token
	given, err := scanObject(text, &values)
	if errors.Is(err, errSyntax) {
		return Line{}, explainSyntax(text)
	}
	if err != nil {
		return Line{}, err
	}

	line, err := assemble(given, &values)
	if err != nil {
		return Line{}, err
	}
	if err := line.Validate(); err != nil {
		return Line{}, err
	}
	return line, nil
}

// assemble makes a line of the values of its fields.
func assemble(given fieldSet, values *[numFields]token) (Line, error) {
	var line Line
	if !given.has(fieldType) {
		return line, fault.Invalid("type is missing")
	}
	typeName, reason := values[fieldType.index()].text(false)
	if reason != "" {
		return line, fault.Invalid("type %s", reason)
	}
	line.Type = Type(typeName)
	wanted := fieldsOf(line.Type)
	if wanted == 0 {
		return line, unknownType(typeName)
	}
	for f := range (given &^ wanted).all {
		return line, fault.Invalid("a %s line has no field %q; it has %s", line.Type, f, wanted)
	}
	for f := range (wanted &^ given).all {
		return line, fault.Invalid("%s is missing", f)
	}
	for f := range wanted.all {
		if reason := line.set(f, values[f.index()]); reason != "" {
			return line, fault.Invalid("%s %s", f, reason)
		}
	}
	return line, nil
}

// set puts a value into its field, and returns what is wrong with it.
func (line *Line) set(f field, value token) (reason string) {
	var number int64
	switch f {
	case fieldAgent:
		line.Agent, reason = value.text(line.Type == TypePlayer)
	case fieldAmount:
		number, reason = value.integer(math.MaxInt64)
		line.Amount = money.Minor(number)
	case fieldAt:
		line.At, reason = value.time()
	case fieldBet:
		line.Bet, reason = value.text(false)
	case fieldCategory:
		line.Category, reason = value.text(false)
	case fieldCurrency:
		line.Currency, reason = value.text(false)
	case fieldID:
		line.ID, reason = value.text(false)
	case fieldParent:
		line.Parent, reason = value.text(true)
	case fieldPayout:
		number, reason = value.integer(math.MaxInt64)
		line.Payout = money.Minor(number)
	case fieldPlayer:
		line.Player, reason = value.text(false)
	case fieldRollingPPM:
		number, reason = value.integer(math.MaxInt32)
		line.RollingPPM = money.RatePPM(number)
	case fieldSource:
		line.Source, reason = value.text(false)
	case fieldStake:
		number, reason = value.integer(math.MaxInt64)
		line.Stake = money.Minor(number)
	case fieldStatus:
		var status string
		status, reason = value.text(false)
		line.Status = Status(status)
	case fieldVIP:
		number, reason = value.integer(math.MaxInt32)
		line.VIP = int32(number)
	case fieldType: // read before
	}
	return reason
}

// text returns the string that the token holds. null stands for none where it
// may; then the empty string is refused, which would look the same.
func (t token) text(nullable bool) (text, reason string) {
	switch {
	case t.kind == tokenNull && nullable:
		return "", ""
	case t.kind != tokenString && nullable:
		return "", "must be a string or null, not " + t.kind.describe()
	case t.kind != tokenString:
		return "", "must be a string, not " + t.kind.describe()
	case t.raw == "" && nullable:
		return "", "must be null or not empty"
	}
	return t.raw, ""
}

// integer returns the whole number that the token holds, up to most.
func (t token) integer(most int64) (number int64, reason string) {
	if t.kind != tokenNumber {
		return 0, "must be a whole number, not " + t.kind.describe()
	}
	number, err := strconv.ParseInt(t.raw, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && (number > most || number < -most):
		return 0, "must not be beyond " + strconv.FormatInt(most, 10)
	case err != nil:
		return 0, "must be a whole number without fraction or exponent, not " + t.raw
	}
	return number, ""
}

// time returns the instant that the token holds.
func (t token) time() (at time.Time, reason string) {
	if t.kind != tokenString {
		return at, "must be a string, not " + t.kind.describe()
	}
	at, err := time.Parse(time.RFC3339, t.raw)
	if err != nil || !strictRFC3339(t.raw) {
		return at, "must be a time like 2026-11-02T03:00:00Z (RFC 3339), not " + strconv.Quote(shorten(t.raw))
	}
	return at.UTC().Truncate(time.Microsecond), ""
}

// strictRFC3339 refuses what time.Parse lets pass: hours of one digit, a comma
// before the fraction, offsets of a day and more.
func strictRFC3339(text string) bool {
	const offsetLength = len("+09:00")
	if len(text) < len("2026-11-02T03:00:00Z") || text[13] != ':' || strings.Contains(text, ",") {
		return false
	}
	if strings.HasSuffix(text, "Z") {
		return true
	}
	offset := text[len(text)-offsetLength:]
	return offset[1:3] < "24" && offset[4:] < "60"
}

// byteOrderMark is what some editors put at the start of a file.
const byteOrderMark = "\ufeff"

// explainSyntax says why a text could not be read as a line.
func explainSyntax(text string) error {
	trimmed := strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(trimmed, byteOrderMark):
		return fault.Invalid("begins with a byte-order mark (BOM), which editors do not show: save the file as UTF-8 without it")
	case trimmed == "":
		return fault.Invalid("the line is empty")
	case !json.Valid([]byte(text)):
		return fault.Invalid("not JSON: %s", shorten(trimmed))
	case trimmed[0] != '{':
		return fault.Invalid("not a JSON object: %s", shorten(trimmed))
	default:
		return fault.Invalid("a string in it is no valid text: %s", shorten(trimmed))
	}
}

// shorten keeps a message from growing with the input.
func shorten(text string) string {
	const most = 80
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}
