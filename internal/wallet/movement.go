package wallet

import (
	"time"

	"truegreen/internal/money"
)

// Kind is what a movement is for.
type Kind string

// The kinds. There are no others.
const (
	KindDeposit    Kind = "deposit"    // money from outside
	KindWithdrawal Kind = "withdrawal" // money to outside; refused without funds
	KindStake      Kind = "stake"      // of a bet; refused without funds
	KindPayout     Kind = "payout"     // of a settled bet, 0 for a lost one
	KindRefund     Kind = "refund"     // of a voided bet
	KindCredit     Kind = "credit"     // given by a promotion
)

// Movement is money that comes into a wallet or leaves it.
type Movement struct {
	// Amount in minor units of the wallet's currency; never negative, the kind
	// says which way it goes.
	Amount money.Minor

	// At is when it happened by its source; zero for the database's clock when the
	// wallet was locked.
	At time.Time

	// Bet and Category are the id of the bet and its game's category, for stakes,
	// payouts, and refunds.
	Bet      string
	Category string

	Kind Kind

	// Reference is unique among all movements for ever.
	Reference string
}

// Deposit is the movement of a deposit with the id of its source.
func Deposit(id string, amount money.Minor, at time.Time) Movement {
	return Movement{Amount: amount, At: at, Kind: KindDeposit, Reference: "deposit/" + id}
}

// Withdrawal is the movement of a withdrawal with the id of its source.
func Withdrawal(id string, amount money.Minor, at time.Time) Movement {
	return Movement{Amount: amount, At: at, Kind: KindWithdrawal, Reference: "withdrawal/" + id}
}

// Stake is the movement of placing a bet.
func Stake(bet, category string, amount money.Minor, at time.Time) Movement {
	return Movement{Amount: amount, At: at, Bet: bet, Category: category, Kind: KindStake, Reference: "stake/" + bet}
}

// Payout is the movement of settling a bet.
func Payout(bet, category string, amount money.Minor, at time.Time) Movement {
	return Movement{Amount: amount, At: at, Bet: bet, Category: category, Kind: KindPayout, Reference: "payout/" + bet}
}

// Refund is the movement of voiding a bet: its stake comes back.
func Refund(bet, category string, amount money.Minor, at time.Time) Movement {
	return Movement{Amount: amount, At: at, Bet: bet, Category: category, Kind: KindRefund, Reference: "refund/" + bet}
}

// outgoing reports whether money leaves the wallet, which needs funds.
func (kind Kind) outgoing() bool { return kind == KindWithdrawal || kind == KindStake }

// counterKind is the kind of the account on the other side.
func (kind Kind) counterKind() string {
	switch kind {
	case KindDeposit, KindWithdrawal:
		return "cash"
	case KindStake, KindPayout, KindRefund:
		return "house"
	case KindCredit:
		return "promotion"
	}
	return ""
}

// eventType is the type of the event that tells of it.
func (kind Kind) eventType() string {
	switch kind {
	case KindDeposit:
		return "wallet.deposited.v1"
	case KindWithdrawal:
		return "wallet.withdrawn.v1"
	case KindStake:
		return "wallet.staked.v1"
	case KindPayout:
		return "wallet.settled.v1"
	case KindRefund:
		return "wallet.refunded.v1"
	case KindCredit:
		return "wallet.credited.v1"
	}
	return ""
}
