package activity

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"truegreen/internal/fault"
	"truegreen/internal/money"
)

// Type says what a line reports.
type Type string

// The types of lines. There are no others.
const (
	TypeAgent      Type = "agent"
	TypePlayer     Type = "player"
	TypeDeposit    Type = "deposit"
	TypeWithdrawal Type = "withdrawal"
	TypeBet        Type = "bet"
	TypeResult     Type = "result"
	TypeVoid       Type = "void"
	TypeWatermark  Type = "watermark"
)

// Status is the standing of a player. Facts are booked whatever it is; only
// promotional credits are refused for it.
type Status string

// The statuses. There are no others.
const (
	StatusActive       Status = "active"
	StatusFrozen       Status = "frozen"
	StatusClosed       Status = "closed"
	StatusSelfExcluded Status = "self_excluded"
)

// Bounds of a line's fields, in characters.
const (
	MaxCodeLength     = 128 // ids of payments and bets, codes of players and agents
	MaxCategoryLength = 64
	MaxSourceLength   = 64
)

// Years that a line's time may lie in; what is outside is a slip.
const (
	minYear = 1970
	maxYear = 9999
)

// Line is one line of activity. Which fields count depends on Type:
//
//	agent       Agent, Parent, RollingPPM
//	player      Player, Agent, Currency, VIP, RollingPPM, Status
//	deposit     ID, Player, Amount
//	withdrawal  ID, Player, Amount
//	bet         ID, Player, Category, Stake
//	result      Bet, Payout
//	void        Bet
//	watermark   Source
//
// and At in each. The others stay zero. Amounts are minor units of the player's
// currency.
type Line struct {
	Type Type

	Agent      string        // code of an agent; of a player's agent, "" for none
	Amount     money.Minor   // above 0
	At         time.Time     // when it happened; UTC, whole microseconds
	Bet        string        // id of the bet that is settled or voided
	Category   string        // of the game
	Currency   string        // three capital letters
	ID         string        // of the payment or bet, unique per type
	Parent     string        // code of the agent above, "" for none
	Payout     money.Minor   // 0 or more
	Player     string        // code of a player
	RollingPPM money.RatePPM // share of the turnover
	Source     string        // whose watermark it is: "bets", "cash", …
	Stake      money.Minor   // above 0
	Status     Status
	VIP        int32 // 0 or more
}

// Validate says which field of a line is out of its bounds. Fields that do not
// count for the type are not looked at. Fails with [fault.KindInvalid].
func (line *Line) Validate() error {
	fields := fieldsOf(line.Type)
	if fields == 0 {
		return unknownType(string(line.Type))
	}
	for field := range fields.all {
		if reason := line.check(field); reason != "" {
			return fault.Invalid("%s %s", field, reason)
		}
	}
	return nil
}

func unknownType(given string) error {
	return fault.Invalid("type %q is not one of agent, player, deposit, withdrawal, bet, result, void, watermark", shorten(given))
}

// check returns what is wrong with one field, "" if nothing is.
func (line *Line) check(field field) string {
	switch field {
	case fieldType: // known by its fields
	case fieldAgent:
		if line.Agent == "" && line.Type == TypePlayer {
			return ""
		}
		return checkText(line.Agent, MaxCodeLength)
	case fieldAmount:
		return checkAboveZero(line.Amount)
	case fieldAt:
		return checkTime(line.At)
	case fieldBet:
		return checkText(line.Bet, MaxCodeLength)
	case fieldCategory:
		return checkText(line.Category, MaxCategoryLength)
	case fieldCurrency:
		return checkCurrency(line.Currency)
	case fieldID:
		return checkText(line.ID, MaxCodeLength)
	case fieldParent:
		if line.Parent == "" {
			return ""
		}
		if line.Parent == line.Agent {
			return "must be another agent"
		}
		return checkText(line.Parent, MaxCodeLength)
	case fieldPayout:
		if line.Payout < 0 {
			return "must not be negative"
		}
	case fieldPlayer:
		return checkText(line.Player, MaxCodeLength)
	case fieldRollingPPM:
		if !line.RollingPPM.Valid() {
			return "must be from 0 to 1000000"
		}
	case fieldSource:
		return checkText(line.Source, MaxSourceLength)
	case fieldStake:
		return checkAboveZero(line.Stake)
	case fieldStatus:
		return checkStatus(line.Status)
	case fieldVIP:
		if line.VIP < 0 {
			return "must not be negative"
		}
	}
	return ""
}

func checkAboveZero(amount money.Minor) string {
	if amount <= 0 {
		return "must be above 0"
	}
	return ""
}

func checkCurrency(currency string) string {
	if len(currency) == 3 && strings.Trim(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return ""
	}
	return "must be three capital letters"
}

func checkStatus(status Status) string {
	switch status {
	case StatusActive, StatusFrozen, StatusClosed, StatusSelfExcluded:
		return ""
	}
	return "must be active, frozen, closed, or self_excluded"
}

// checkText refuses what the database does not store or a broker's header does not
// carry as it is. Line and paragraph separators count as control characters, as they do
// there. A space at either end would be removed on the way, so that consumers read one
// text where we have two.
func checkText(text string, maxLength int) string {
	plain := len(text) <= maxLength
	for i := 0; plain && i < len(text); i++ {
		plain = text[i] > ' ' && text[i] < 0x7f
	}
	if plain && text != "" {
		return ""
	}

	switch {
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	case text == "":
		return "must not be empty"
	case utf8.RuneCountInString(text) > maxLength:
		if maxLength == MaxCodeLength {
			return "must have at most 128 characters"
		}
		return "must have at most 64 characters"
	case strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	}):
		return "must not contain control characters"
	}
	switch trimmed := strings.TrimFunc(text, isSpace); trimmed {
	case text:
		return ""
	case "":
		return "must not consist of spaces"
	default:
		return "must not begin or end with a space, which the broker does not carry: it is " + strconv.Quote(text) + ", import it as " + strconv.Quote(trimmed)
	}
}

// isSpace reports what some client of a broker removes. Some count the byte order mark
// as a space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' }

func checkTime(at time.Time) string {
	switch {
	case at.Year() < minYear || at.Year() > maxYear:
		return "must lie in the years 1970 to 9999"
	case at.Nanosecond()%int(time.Microsecond) != 0:
		return "must be a whole microsecond"
	}
	return ""
}
