package activity_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
)

// documentedLines is one line of each type, as the documentation shows them.
func documentedLines() []string {
	return []string{
		`{"type":"agent","agent":"a-1","parent":null,"rolling_ppm":9000,"at":"2026-11-01T00:00:00Z"}`,
		`{"type":"agent","agent":"a-2","parent":"a-1","rolling_ppm":9000,"at":"2026-11-01T00:00:00.000001Z"}`,
		`{"type":"player","player":"p-1","agent":"a-1","currency":"KRW","vip":2,"rolling_ppm":2000,"status":"active","at":"2026-11-02T00:00:00Z"}`,
		`{"type":"player","player":"p-2","agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"self_excluded","at":"2026-11-02T00:00:00Z"}`,
		`{"type":"deposit","id":"d-1","player":"p-1","amount":500000,"at":"2026-11-02T01:00:00Z"}`,
		`{"type":"withdrawal","id":"w-1","player":"p-1","amount":9223372036854775807,"at":"2026-11-02T02:00:00Z"}`,
		`{"type":"bet","id":"b-1","player":"p-1","category":"slots","stake":1000,"at":"2026-11-02T03:00:00Z"}`,
		`{"type":"bet","id":"한글 \"é\"","player":"p\\1","category":"slots","stake":1,"at":"2026-11-02T03:00:00Z"}`,
		`{"type":"result","bet":"b-1","payout":0,"at":"2026-11-02T03:00:05Z"}`,
		`{"type":"void","bet":"b-2","at":"2026-11-02T03:01:00Z"}`,
		`{"type":"watermark","source":"bets","at":"2026-11-09T00:00:00Z"}`,
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()

	t.Run("ReadsWhatAppendJSONWrites", func(t *testing.T) {
		t.Parallel()
		for _, text := range documentedLines() {
			line, err := activity.ParseLine([]byte(text))
			require.NoError(t, err, text)
			require.Equal(t, text, string(line.AppendJSON(nil)))
		}
	})

	t.Run("TakesAnyOrderAndSpace", func(t *testing.T) {
		t.Parallel()
		line, err := activity.ParseLine([]byte(" {\t\"at\" : \"2026-11-02T03:01:00+09:00\" , \"bet\":\"b\\u002d2\",\"type\":\"void\" } \r"))
		require.NoError(t, err)
		require.Equal(t, activity.Line{
			At:   time.Date(2026, 11, 1, 18, 1, 0, 0, time.UTC),
			Bet:  "b-2",
			Type: activity.TypeVoid,
		}, line)
	})

	t.Run("CutsTimesToMicroseconds", func(t *testing.T) {
		t.Parallel()
		line, err := activity.ParseLine([]byte(`{"type":"void","bet":"b","at":"2026-11-02T03:01:00.123456789Z"}`))
		require.NoError(t, err)
		require.Equal(t, 123456000, line.At.Nanosecond())
	})

	t.Run("SaysWhatIsWrong", func(t *testing.T) {
		t.Parallel()
		for _, tt := range wrongLines() {
			_, err := activity.ParseLine([]byte(tt.text))
			require.EqualError(t, err, tt.want, tt.text)
			require.True(t, fault.Is(err, fault.KindInvalid), tt.text)
		}
	})
}

type wrongLine struct{ text, want string }

func wrongLines() []wrongLine {
	void := func(fields string) string { return `{"type":"void",` + fields + `}` }
	bet := func(fields string) string {
		return `{"type":"bet","player":"p","category":"c","at":"2026-11-02T00:00:00Z",` + fields + `}`
	}
	player := func(fields string) string {
		return `{"type":"player","player":"p","at":"2026-11-02T00:00:00Z",` + fields + `}`
	}
	const at = `"at":"2026-11-02T00:00:00Z"`
	wrongTime := func(text string) wrongLine {
		return wrongLine{void(`"bet":"b","at":"` + text + `"`), `at must be a time like 2026-11-02T03:00:00Z (RFC 3339), not "` + text + `"`}
	}

	return []wrongLine{
		{``, `the line is empty`},
		{`{"type":"void"`, `not JSON: {"type":"void"`},
		{`nonsense`, `not JSON: nonsense`},
		{"\ufeff" + void(`"bet":"b",`+at), `begins with a byte-order mark (BOM), which editors do not show: save the file as UTF-8 without it`},
		{"\xff\xfe{\x00", `begins with the byte-order mark of UTF-16: save the file as UTF-8 without a byte-order mark`},
		{`{"colour":1,"type":"void"`, `not JSON: {"colour":1,"type":"void"`},
		{void(`"bet":"b",`+at) + `{}`, `not JSON: ` + void(`"bet":"b",`+at) + `{}`},
		{void(`"bet":"b",`), `not JSON: {"type":"void","bet":"b",}`},
		{`[1]`, `not a JSON object: [1]`},
		{`null`, `not a JSON object: null`},
		{"{\"type\":\"\xff\"}", `not valid UTF-8`},
		{`{"type":"\ud800"}`, `a string in it is no valid text: {"type":"\ud800"}`},
		{`{}`, `type is missing`},
		{`{"type":7}`, `type must be a string, not a number`},
		{`{"type":"refund"}`, `type "refund" is not one of agent, player, deposit, withdrawal, bet, result, void, watermark`},
		{void(at), `bet is missing`},
		{void(`"bet":"b"`), `at is missing`},
		{void(`"bet":"b","colour":"red",` + at), `field "colour" is not known; there are agent, amount, at, bet, category, currency, id, parent, payout, player, rolling_ppm, source, stake, status, type, vip`},
		{void(`"bet":"b","stake":1,` + at), `a void line has no field "stake"; it has type, bet, at`},
		{void(`"Bet":"b",` + at), `field "Bet" is not known; did you mean "bet"?`},
		{void(`"bet":"b","bet":"c",` + at), `field "bet" is there twice`},
		{void(`"bet":null,` + at), `bet must be a string, not null`},
		{void(`"bet":["b"],` + at), `bet must be a string, not an object or array`},
		{void(`"bet":{"a":"}"},` + at), `bet must be a string, not an object or array`},
		{void(`"bet":true,` + at), `bet must be a string, not true or false`},
		{void(`"bet":"",` + at), `bet must not be empty`},
		{void(`"bet":"` + strings.Repeat("é", 129) + `",` + at), `bet must have at most 128 characters`},
		{void(`"bet":"a\nb",` + at), `bet must not contain control characters`},
		{void(`"bet":"a\u2028b",` + at), `bet must not contain control characters`},
		{void(`"bet":"a\u0000b",` + at), `bet must not contain control characters`},
		{void(`"bet":"trail ",` + at), `bet must not begin or end with a space, which the broker does not carry: it is "trail ", import it as "trail"`},
		{bet(`"id":" b","stake":1`), `id must not begin or end with a space, which the broker does not carry: it is " b", import it as "b"`},
		{bet(`"id":"b\u3000","stake":1`), `id must not begin or end with a space, which the broker does not carry: it is "b\u3000", import it as "b"`},
		{bet(`"id":"\ufeffb","stake":1`), `id must not begin or end with a space, which the broker does not carry: it is "\ufeffb", import it as "b"`},
		{`{"type":"deposit","id":"d","player":"p ","amount":1,` + at + `}`, `player must not begin or end with a space, which the broker does not carry: it is "p ", import it as "p"`},
		{`{"type":"bet","id":"b","player":"p","category":" ","stake":1,` + at + `}`, `category must not consist of spaces`},
		{`{"type":"agent","agent":"a\u00a0","parent":null,"rolling_ppm":0,` + at + `}`, `agent must not begin or end with a space, which the broker does not carry: it is "a\u00a0", import it as "a"`},
		{`{"type":"agent","agent":"a","parent":"b ","rolling_ppm":0,` + at + `}`, `parent must not begin or end with a space, which the broker does not carry: it is "b ", import it as "b"`},
		{player(`"agent":" a","currency":"KRW","vip":0,"rolling_ppm":0,"status":"active"`), `agent must not begin or end with a space, which the broker does not carry: it is " a", import it as "a"`},
		{`{"type":"watermark","source":"bets ",` + at + `}`, `source must not begin or end with a space, which the broker does not carry: it is "bets ", import it as "bets"`},
		{bet(`"id":"b","stake":-5`), `stake must be above 0`},
		{bet(`"id":"b","stake":0`), `stake must be above 0`},
		{bet(`"id":"b","stake":"5"`), `stake must be a whole number, not a string`},
		{bet(`"id":"b","stake":1.0`), `stake must be a whole number without fraction or exponent, not 1.0`},
		{bet(`"id":"b","stake":1e3`), `stake must be a whole number without fraction or exponent, not 1e3`},
		{bet(`"id":"b","stake":9223372036854775808`), `stake must not be beyond 9223372036854775807`},
		{bet(`"id":"b"`), `stake is missing`},
		{`{"type":"bet","id":"b","player":"p","category":"` + strings.Repeat("c", 65) + `","stake":1,` + at + `}`, `category must have at most 64 characters`},
		{`{"type":"result","bet":"b","payout":-1,` + at + `}`, `payout must not be negative`},
		{`{"type":"deposit","id":"d","player":"p","amount":-1,` + at + `}`, `amount must be above 0`},
		{player(`"agent":null,"currency":"krw","vip":0,"rolling_ppm":0,"status":"active"`), `currency must be three capital letters`},
		{player(`"agent":null,"currency":"KRW","vip":-1,"rolling_ppm":0,"status":"active"`), `vip must not be negative`},
		{player(`"agent":null,"currency":"KRW","vip":2147483648,"rolling_ppm":0,"status":"active"`), `vip must not be beyond 2147483647`},
		{player(`"agent":null,"currency":"KRW","vip":0,"rolling_ppm":1000001,"status":"active"`), `rolling_ppm must be from 0 to 1000000`},
		{player(`"agent":null,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"asleep"`), `status must be active, frozen, closed, or self_excluded`},
		{player(`"agent":"","currency":"KRW","vip":0,"rolling_ppm":0,"status":"active"`), `agent must be null or not empty`},
		{player(`"agent":7,"currency":"KRW","vip":0,"rolling_ppm":0,"status":"active"`), `agent must be a string or null, not a number`},
		{`{"type":"agent","agent":"a","parent":"a","rolling_ppm":0,` + at + `}`, `parent must be another agent`},
		{`{"type":"agent","agent":null,"parent":"a","rolling_ppm":0,` + at + `}`, `agent must be a string, not null`},
		{`{"type":"watermark","source":"` + strings.Repeat("s", 65) + `",` + at + `}`, `source must have at most 64 characters`},
		{void(`"bet":"b","at":"1969-12-31T00:00:00Z"`), `at must lie in the years 1970 to 9999`},
		{void(`"bet":"b","at":1793577600`), `at must be a string, not a number`},
		wrongTime("2026-11-02"),
		wrongTime("2026-11-02T03:00:00"),
		wrongTime("2026-11-02T3:00:00Z"),
		wrongTime("2026-11-02T03:00:00,5Z"),
		wrongTime("2026-02-30T03:00:00Z"),
		wrongTime("2026-11-02T03:00:00+25:00"),
	}
}

// FuzzParseLine holds the scanner against the library's: what it takes is JSON,
// it does not panic, and what it took it takes again in its own words.
func FuzzParseLine(f *testing.F) {
	for _, text := range documentedLines() {
		f.Add(text)
	}
	for _, wrong := range wrongLines() {
		f.Add(wrong.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, err := activity.ParseLine([]byte(text))
		if err != nil {
			return
		}
		require.True(t, json.Valid([]byte(text)))
		again, err := activity.ParseLine(line.AppendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, line, again)
	})
}

func BenchmarkParseLine(b *testing.B) {
	lines := documentedLines()
	for i := 0; b.Loop(); i++ {
		if _, err := activity.ParseLine([]byte(lines[i%len(lines)])); err != nil {
			b.Fatal(err)
		}
	}
}
