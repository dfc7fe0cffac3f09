package activity

import (
	"errors"
	"fmt"
	"time"

	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

// paymentKey: ids are unique per type.
type paymentKey struct {
	id       string
	lineType Type
}

// payment is a deposit or withdrawal.
type payment struct {
	paymentKey

	account *wallet.Account // nil for a stored one of a player whom no line names
	amount  money.Minor
	at      time.Time
	refused bool
}

func (b *batch) applyPayment(line *Line) (outcome, error) {
	what := string(line.Type)
	key := paymentKey{id: line.ID, lineType: line.Type}
	account := b.book.Account(line.Player)
	if stored := b.payments[key]; stored != nil {
		switch {
		case stored.account == nil && isJustOpened(account):
			return 0, metAnother(what, line.ID, line.Player)
		case stored.account == nil || stored.account != account:
			return 0, otherPlayer(what, line.ID, line.Player)
		case stored.amount != line.Amount:
			return 0, differs(what, line.ID, "amount", stored.amount, line.Amount)
		case !stored.at.Equal(line.At):
			return 0, differs(what, line.ID, "at", formatTime(stored.at), formatTime(line.At))
		}
		return known, nil
	}
	if account == nil {
		return 0, fault.Invalid("%s %s: player %s is not known", what, line.ID, line.Player)
	}

	movement := wallet.Deposit(line.ID, line.Amount, line.At)
	if line.Type == TypeWithdrawal {
		movement = wallet.Withdrawal(line.ID, line.Amount, line.At)
	}
	became, err := b.move(account, movement)
	if err != nil {
		return 0, err
	}
	added := &payment{paymentKey: key, account: account, amount: line.Amount, at: line.At, refused: became == refused}
	b.payments[key] = added
	b.paymentsNew = append(b.paymentsNew, added)
	return became, nil
}

// fate is what became of a bet.
type fate string

const (
	fateOpen    fate = "open"
	fateRefused fate = "refused"
	fateSettled fate = "settled"
	fateVoided  fate = "voided"
)

type bet struct {
	account  *wallet.Account // nil for a stored one whose wallet is not locked
	category string
	fate     fate
	fatedAt  time.Time // of a settled or voided one
	id       string
	isNew    bool
	payout   money.Minor // of a settled one
	placedAt time.Time
	stake    money.Minor
}

func (b *batch) applyBet(line *Line) (outcome, error) {
	account := b.book.Account(line.Player)
	if stored := b.bets[line.ID]; stored != nil {
		switch {
		case stored.account == nil && isJustOpened(account):
			return 0, metAnother("bet", line.ID, line.Player)
		case stored.account == nil || stored.account != account:
			return 0, otherPlayer("bet", line.ID, line.Player)
		case stored.category != line.Category:
			return 0, differs("bet", line.ID, "category", stored.category, line.Category)
		case stored.stake != line.Stake:
			return 0, differs("bet", line.ID, "stake", stored.stake, line.Stake)
		case !stored.placedAt.Equal(line.At):
			return 0, differs("bet", line.ID, "at", formatTime(stored.placedAt), formatTime(line.At))
		}
		return known, nil
	}
	if account == nil {
		return 0, fault.Invalid("bet %s: player %s is not known", line.ID, line.Player)
	}

	became, err := b.move(account, wallet.Stake(line.ID, line.Category, line.Stake, line.At))
	if err != nil {
		return 0, err
	}
	added := &bet{
		account:  account,
		category: line.Category,
		fate:     fateOpen,
		id:       line.ID,
		isNew:    true,
		placedAt: line.At,
		stake:    line.Stake,
	}
	if became == refused {
		added.fate = fateRefused
	}
	b.bets[line.ID] = added
	b.betsNew = append(b.betsNew, added)
	return became, nil
}

func (b *batch) applyResult(line *Line) (outcome, error) {
	settled := b.bets[line.Bet]
	switch {
	// A bet whose wallet is not locked was not there yet when the locks were
	// taken: this line came first.
	case settled == nil || settled.account == nil:
		return 0, fault.Invalid("result of bet %s: the bet is not known", line.Bet)
	case settled.fate == fateRefused:
		return 0, fault.Invalid("result of bet %s: the bet was refused for insufficient funds", line.Bet)
	case settled.fate == fateVoided:
		return 0, fault.Invalid("result of bet %s: the bet is void since %s", line.Bet, formatTime(settled.fatedAt))
	case settled.fate == fateSettled && settled.payout != line.Payout:
		return 0, differs("result of bet", line.Bet, "payout", settled.payout, line.Payout)
	case settled.fate == fateSettled && !settled.fatedAt.Equal(line.At):
		return 0, differs("result of bet", line.Bet, "at", formatTime(settled.fatedAt), formatTime(line.At))
	case settled.fate == fateSettled:
		return known, nil
	}

	if _, err := b.move(settled.account, wallet.Payout(line.Bet, settled.category, line.Payout, line.At)); err != nil {
		return 0, err
	}
	settled.payout = line.Payout
	b.decide(settled, fateSettled, line.At)
	return applied, b.addToRollup(settled)
}

func (b *batch) applyVoid(line *Line) (outcome, error) {
	voided := b.bets[line.Bet]
	switch {
	case voided == nil || voided.account == nil:
		return 0, fault.Invalid("void of bet %s: the bet is not known", line.Bet)
	case voided.fate == fateRefused:
		return 0, fault.Invalid("void of bet %s: the bet was refused for insufficient funds", line.Bet)
	case voided.fate == fateSettled:
		return 0, fault.Invalid("void of bet %s: the bet has its result since %s", line.Bet, formatTime(voided.fatedAt))
	case voided.fate == fateVoided && !voided.fatedAt.Equal(line.At):
		return 0, differs("void of bet", line.Bet, "at", formatTime(voided.fatedAt), formatTime(line.At))
	case voided.fate == fateVoided:
		return known, nil
	}

	if _, err := b.move(voided.account, wallet.Refund(line.Bet, voided.category, voided.stake, line.At)); err != nil {
		return 0, err
	}
	b.decide(voided, fateVoided, line.At)
	return applied, nil
}

// decide ends an open bet. Only once, so a stored bet is changed only once.
func (b *batch) decide(decided *bet, became fate, at time.Time) {
	decided.fate = became
	decided.fatedAt = at
	if !decided.isNew {
		b.betsChanged = append(b.betsChanged, decided)
	}
}

// move books a movement, or says that it is refused.
func (b *batch) move(account *wallet.Account, movement wallet.Movement) (outcome, error) {
	err := b.book.Move(account, movement)
	if errors.Is(err, wallet.ErrInsufficientFunds) {
		return refused, nil
	}
	return applied, err
}

// isJustOpened reports whether a wallet is that of a player whom the batch itself
// adds.
func isJustOpened(account *wallet.Account) bool { return account != nil && account.PlayerID() == 0 }

// metAnother is what the batch finds when the player whom it adds was added
// meanwhile, after it looked for players and before it looked for their payments
// and bets.
func metAnother(what, id, player string) error {
	return fmt.Errorf("%s %s is known, and player %s was not a moment ago: %w", what, id, player, pgtx.ErrCollision)
}

// otherPlayer does not say whose it is: that player's wallet may not be locked,
// and then is not known here.
func otherPlayer(what, id, given string) error {
	return fault.Invalid("%s %s is known with another player, this line says %s", what, id, given)
}
