package activity

import (
	"encoding/json"
	"strconv"
	"time"
)

// AppendJSON appends the line to dst as [ParseLine] reads it, without a newline
// at its end. The line must be one that [Line.Validate] accepts.
func (line *Line) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for f := range fieldsOf(line.Type).all {
		if f != fieldType {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, f.String()...)
		dst = append(dst, '"', ':')
		dst = line.appendValue(dst, f)
	}
	return append(dst, '}')
}

func (line *Line) appendValue(dst []byte, f field) []byte {
	switch f {
	case fieldAgent:
		return appendTextOrNull(dst, line.Agent)
	case fieldAmount:
		return strconv.AppendInt(dst, int64(line.Amount), 10)
	case fieldAt:
		dst = append(dst, '"')
		dst = line.At.UTC().AppendFormat(dst, time.RFC3339Nano)
		return append(dst, '"')
	case fieldBet:
		return appendText(dst, line.Bet)
	case fieldCategory:
		return appendText(dst, line.Category)
	case fieldCurrency:
		return appendText(dst, line.Currency)
	case fieldID:
		return appendText(dst, line.ID)
	case fieldParent:
		return appendTextOrNull(dst, line.Parent)
	case fieldPayout:
		return strconv.AppendInt(dst, int64(line.Payout), 10)
	case fieldPlayer:
		return appendText(dst, line.Player)
	case fieldRollingPPM:
		return strconv.AppendInt(dst, int64(line.RollingPPM), 10)
	case fieldSource:
		return appendText(dst, line.Source)
	case fieldStake:
		return strconv.AppendInt(dst, int64(line.Stake), 10)
	case fieldStatus:
		return appendText(dst, string(line.Status))
	case fieldType:
		return appendText(dst, string(line.Type))
	case fieldVIP:
		return strconv.AppendInt(dst, int64(line.VIP), 10)
	}
	return dst
}

func appendTextOrNull(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return appendText(dst, text)
}

func appendText(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic("unreachable: a string is always JSON: " + err.Error())
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}
