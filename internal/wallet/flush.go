package wallet

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// entriesPerMovement: one on the player's account, one on the other side.
const entriesPerMovement = 2

func (book *Book) flushLedger(ctx context.Context, pipeline *pgtx.Pipeline) error {
	n := len(book.movements)
	params := dbsqlc.LedgerBookParams{
		AccountID:   make([]int64, n),
		AmountMinor: make([]int64, n),
		At:          make([]time.Time, n),
		CounterKind: make([]string, n),
		Currency:    make([]string, n),
		Kind:        make([]string, n),
		Reference:   make([]string, n),
	}
	for i := range book.movements {
		movement := &book.movements[i]
		params.AccountID[i] = movement.account.id
		params.AmountMinor[i] = int64(movement.delta)
		params.At[i] = movement.when()
		params.CounterKind[i] = movement.Kind.counterKind()
		params.Currency[i] = movement.account.currency
		params.Kind[i] = string(movement.Kind)
		params.Reference[i] = movement.Reference
	}
	step := pipeline.Step(fmt.Sprintf("book %d movements", n), n*entriesPerMovement)
	return book.queries.LedgerBook(ctx, step, &params)
}

func (book *Book) flushWallets(ctx context.Context, pipeline *pgtx.Pipeline) error {
	var params dbsqlc.WalletUpdateParams
	for i := range book.movements {
		account := book.movements[i].account
		// The last movement of a wallet leaves what is to be stored.
		if book.movements[i].version != account.version {
			continue
		}
		params.AccountID = append(params.AccountID, account.id)
		params.BalanceMinor = append(params.BalanceMinor, int64(account.balance))
		params.OldVersion = append(params.OldVersion, account.oldVersion)
		params.Version = append(params.Version, account.version)
		account.oldVersion = account.version
	}
	n := len(params.AccountID)
	step := pipeline.Step(fmt.Sprintf("store balances of %d wallets", n), n)
	return book.queries.WalletUpdate(ctx, step, &params)
}

// flushEvents is the only place that appends to the wallet stream.
func (book *Book) flushEvents(ctx context.Context, pipeline *pgtx.Pipeline) error {
	n := len(book.movements)
	params := dbsqlc.WalletEventAppendParams{
		KeySeqs:  make([]int64, n),
		Keys:     make([]string, n),
		Payloads: make([]string, n),
		Types:    make([]string, n),
	}
	for i := range book.movements {
		movement := &book.movements[i]
		payload, err := movement.payload()
		if err != nil {
			return err
		}
		params.KeySeqs[i] = movement.version
		params.Keys[i] = movement.account.player + "/" + movement.account.currency
		params.Payloads[i] = payload
		params.Types[i] = movement.Kind.eventType()
	}
	step := pipeline.Step(fmt.Sprintf("append %d wallet events", n), pgtx.AnyRows)
	return book.queries.WalletEventAppend(ctx, step, &params)
}

// when is the movement's time, or that of the lock.
func (movement *booked) when() time.Time {
	if movement.At.IsZero() {
		return movement.account.lockedAt
	}
	return movement.At
}

// Payload is the body of every wallet event. Amounts are minor units of the
// currency, as strings: they may be too large for a JSON reader's numbers.
type Payload struct {
	Amount    string    `json:"amount"`  // what was moved; the event's type says which way
	At        time.Time `json:"at"`      // by the movement's source
	Balance   string    `json:"balance"` // after the movement
	Bet       string    `json:"bet,omitempty"`
	Category  string    `json:"category,omitempty"`
	Currency  string    `json:"currency"`
	Player    string    `json:"player"`
	Reference string    `json:"reference"`
}

func (movement *booked) payload() (string, error) {
	encoded, err := json.Marshal(Payload{
		Amount:    strconv.FormatInt(int64(movement.Amount), 10),
		At:        movement.when().UTC(),
		Balance:   strconv.FormatInt(int64(movement.balance), 10),
		Bet:       movement.Bet,
		Category:  movement.Category,
		Currency:  movement.account.currency,
		Player:    movement.account.player,
		Reference: movement.Reference,
	})
	if err != nil {
		return "", fmt.Errorf("encode event of %s: %w", movement.Reference, err)
	}
	return string(encoded), nil
}
