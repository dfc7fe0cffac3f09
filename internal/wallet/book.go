package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
)

// ErrInsufficientFunds is returned by [Book.Move] when a withdrawal or stake
// would bring the balance below its floor.
var ErrInsufficientFunds = errors.New("insufficient funds")

// Account is a wallet in a [Book], as the movements so far leave it.
type Account struct {
	balance    money.Minor
	currency   string
	floor      money.Minor
	id         int64
	lockedAt   time.Time
	oldVersion int64
	player     string
	playerID   int64
	version    int64
}

// Balance is what the wallet holds, in minor units of its currency.
func (account *Account) Balance() money.Minor { return account.balance }

// Currency is three capital letters.
func (account *Account) Currency() string { return account.currency }

// Player is the player's code.
func (account *Account) Player() string { return account.player }

// PlayerID is the player's key; 0 until [Book.CreateWallets] for an opened one.
func (account *Account) PlayerID() int64 { return account.playerID }

// Version counts the wallet's movements.
func (account *Account) Version() int64 { return account.version }

// Book is a unit of work: locked wallets, and movements of them that are kept
// in memory until they are flushed. It serves one transaction and one
// goroutine.
type Book struct {
	accounts  map[string]*Account // by player code
	movements []booked
	opened    []*Account
	queries   *dbsqlc.Queries
}

// booked is a movement with what it left behind.
type booked struct {
	Movement

	account *Account
	balance money.Minor
	delta   money.Minor
	version int64
}

func (book *Book) add(row *dbsqlc.WalletLockRow) {
	book.accounts[row.Code] = &Account{
		balance:    money.Minor(row.BalanceMinor),
		currency:   row.Currency,
		floor:      money.Minor(row.FloorMinor),
		id:         row.AccountID,
		lockedAt:   row.LockedAt,
		oldVersion: row.Version,
		player:     row.Code,
		playerID:   row.PlayerID,
		version:    row.Version,
	}
}

// Account returns a player's wallet, nil if it is not in the book.
func (book *Book) Account(player string) *Account { return book.accounts[player] }

// Accounts returns all wallets of the book, in no promised order.
func (book *Book) Accounts() func(yield func(*Account) bool) {
	return func(yield func(*Account) bool) {
		for _, account := range book.accounts {
			if !yield(account) {
				return
			}
		}
	}
}

// Open adds an empty wallet for a player who has none. It can be moved at once;
// the database learns of it by [Book.CreateWallets].
func (book *Book) Open(player, currency string) *Account {
	account := &Account{currency: currency, player: player}
	book.accounts[player] = account
	book.opened = append(book.opened, account)
	return account
}

// Move applies a movement to a wallet of the book. A movement that fails
// changes nothing. The movement's reference is not checked before the flush.
//
// Fails with [ErrInsufficientFunds], and with [fault.KindInvalid] for a negative
// amount, and for a balance that would leave 64 bits.
func (book *Book) Move(account *Account, movement Movement) error {
	if movement.Amount < 0 {
		return fault.Invalid("book %s: amount %d is negative", movement.Reference, movement.Amount)
	}
	delta := movement.Amount
	if movement.Kind.outgoing() {
		delta = -delta
	}
	balance, err := account.balance.Add(delta)
	if err != nil {
		return fault.Invalid("book %s for player %s: %w", movement.Reference, account.player, err)
	}
	if movement.Kind.outgoing() && balance < account.floor {
		return ErrInsufficientFunds
	}

	account.balance = balance
	account.version++
	book.movements = append(book.movements, booked{
		Movement: movement,
		account:  account,
		balance:  balance,
		delta:    delta,
		version:  account.version,
	})
	return nil
}

// CreateWallets stores the wallets that were opened, for players whose ids are
// now known, and makes sure that their currencies have accounts of cash, house,
// and promotion. It comes before [Book.Flush].
func (book *Book) CreateWallets(ctx context.Context, tx pgx.Tx, playerIDs map[string]int64) error {
	if len(book.opened) == 0 {
		return nil
	}
	byPlayerID := make(map[int64]*Account, len(book.opened))
	var params dbsqlc.WalletInsertParams
	var currencies []string
	for _, account := range book.opened {
		account.playerID = playerIDs[account.player]
		byPlayerID[account.playerID] = account
		currencies = append(currencies, account.currency)
		params.Currency = append(params.Currency, account.currency)
		params.PlayerID = append(params.PlayerID, account.playerID)
	}

	slices.Sort(currencies)
	currencies = slices.Compact(currencies)
	err := book.queries.LedgerAccountEnsure(ctx, tx, &dbsqlc.LedgerAccountEnsureParams{Currencies: currencies})
	if err != nil {
		return fmt.Errorf("add ledger accounts of %v: %w", currencies, err)
	}
	rows, err := book.queries.WalletInsert(ctx, tx, &params)
	if err != nil {
		return fmt.Errorf("open %d wallets: %w", len(book.opened), err)
	}
	for _, row := range rows {
		account := byPlayerID[row.PlayerID]
		account.id = row.AccountID
		account.lockedAt = row.OpenedAt
	}
	book.opened = nil
	return nil
}

// Flush writes all movements since the last flush: their ledger transactions,
// the wallets' balances and versions, and their events, which are published
// after the commit. The statements go into pipeline; what they need, in order
// of the movements, is complete once it is sent.
//
// Sending fails with a unique violation when a reference was booked before.
func (book *Book) Flush(ctx context.Context, pipeline *pgtx.Pipeline) error {
	if len(book.movements) == 0 {
		return nil
	}
	for _, write := range []func(context.Context, *pgtx.Pipeline) error{
		book.flushLedger, book.flushWallets, book.flushEvents,
	} {
		if err := write(ctx, pipeline); err != nil {
			return err
		}
	}
	book.movements = nil
	return nil
}
