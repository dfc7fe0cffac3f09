package wallet_test

import (
	"context"
	"encoding/json"
	"math"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/dbfactory"
	"truegreen/internal/dbtest"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

type testBundle struct {
	service *wallet.Service
	tx      pgx.Tx
}

func setup(ctx context.Context, t *testing.T) *testBundle {
	t.Helper()
	tx, err := dbtest.Database(ctx, t).Pool.Begin(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) })
	return &testBundle{service: wallet.New(), tx: tx}
}

func (b *testBundle) locked(ctx context.Context, t *testing.T, players ...string) *wallet.Book {
	t.Helper()
	var pipeline pgtx.Pipeline
	book, err := b.service.Lock(ctx, &pipeline, wallet.Owners{Players: players})
	require.NoError(t, err)
	require.NoError(t, pipeline.Send(ctx, b.tx))
	return book
}

func flush(ctx context.Context, t *testing.T, tx pgx.Tx, book *wallet.Book) error {
	t.Helper()
	var pipeline pgtx.Pipeline
	require.NoError(t, book.Flush(ctx, &pipeline))
	return pipeline.Send(ctx, tx)
}

func (b *testBundle) stored(ctx context.Context, t *testing.T, player string) (balance, version int64) {
	t.Helper()
	err := b.tx.QueryRow(ctx, "SELECT balance, version FROM wallet_balances WHERE player = $1", player).Scan(&balance, &version)
	require.NoError(t, err)
	return balance, version
}

func TestService_Lock(t *testing.T) {
	t.Parallel()

	t.Run("FindsWalletsByPlayerAndByBet", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		named := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Balance: 700})
		better := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Balance: 1000, Currency: "USD"})
		bet := dbfactory.SettledBet(ctx, t, bundle.tx, dbfactory.BetOpts{Player: better, Payout: 250})
		other := dbfactory.Player(ctx, t, bundle.tx, nil)

		var pipeline pgtx.Pipeline
		book, err := bundle.service.Lock(ctx, &pipeline, wallet.Owners{Bets: []string{bet, "none"}, Players: []string{named, named, "nobody"}})
		require.NoError(t, err)
		require.NoError(t, pipeline.Send(ctx, bundle.tx))
		require.Nil(t, book.Account("nobody"))
		require.Nil(t, book.Account(other))
		require.Equal(t, money.Minor(700), book.Account(named).Balance())
		require.Equal(t, "KRW", book.Account(named).Currency())
		require.Equal(t, money.Minor(250), book.Account(better).Balance())
		require.Equal(t, int64(3), book.Account(better).Version())
		require.Equal(t, better, book.Account(better).Player())
		require.NotZero(t, book.Account(better).PlayerID())
	})
}

func TestBook_Move(t *testing.T) {
	t.Parallel()

	at := dbfactory.Epoch()

	t.Run("RefusesToGoBelowTheFloorAndChangesNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Balance: 100})
		book := bundle.locked(ctx, t, player)
		account := book.Account(player)
		require.ErrorIs(t, book.Move(account, wallet.Withdrawal("w-1", 101, at)), wallet.ErrInsufficientFunds)
		require.ErrorIs(t, book.Move(account, wallet.Stake("b-1", "slots", 101, at)), wallet.ErrInsufficientFunds)
		require.NoError(t, book.Move(account, wallet.Stake("b-2", "slots", 60, at)))
		require.ErrorIs(t, book.Move(account, wallet.Stake("b-3", "slots", 41, at)), wallet.ErrInsufficientFunds)
		require.NoError(t, book.Move(account, wallet.Stake("b-4", "slots", 40, at)))
		require.NoError(t, flush(ctx, t, bundle.tx, book))

		balance, version := bundle.stored(ctx, t, player)
		require.Equal(t, []int64{0, 3}, []int64{balance, version})
	})

	t.Run("HonoursAFloorOtherThanZero", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, nil)
		_, err := bundle.tx.Exec(ctx, "UPDATE wallet SET floor_minor = -50")
		require.NoError(t, err)
		book := bundle.locked(ctx, t, player)
		account := book.Account(player)
		require.ErrorIs(t, book.Move(account, wallet.Stake("b-1", "slots", 51, at)), wallet.ErrInsufficientFunds)
		require.NoError(t, book.Move(account, wallet.Stake("b-2", "slots", 50, at)))
		// What comes in is taken even when it does not lift the balance to the floor.
		require.NoError(t, book.Move(account, wallet.Payout("b-2", "slots", 0, at)))
		require.NoError(t, flush(ctx, t, bundle.tx, book))
		balance, version := bundle.stored(ctx, t, player)
		require.Equal(t, []int64{-50, 2}, []int64{balance, version})
	})

	t.Run("RefusesWhatIsNoAmount", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Balance: 1})
		book := bundle.locked(ctx, t, player)
		err := book.Move(book.Account(player), wallet.Deposit("d-1", -1, at))
		require.True(t, fault.Is(err, fault.KindInvalid))
		err = book.Move(book.Account(player), wallet.Deposit("d-1", math.MaxInt64, at))
		require.ErrorIs(t, err, money.ErrOverflow)
		require.True(t, fault.Is(err, fault.KindInvalid))
		require.Equal(t, money.Minor(1), book.Account(player).Balance())
	})
}

func TestBook_Flush(t *testing.T) {
	t.Parallel()

	t.Run("WritesEveryKindWithItsOtherSideAndItsEvent", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, nil)
		book := bundle.locked(ctx, t, player)
		account := book.Account(player)
		for _, movement := range []wallet.Movement{
			wallet.Deposit("d-1", 1000, dbfactory.Epoch()),
			wallet.Withdrawal("w-1", 100, dbfactory.Epoch()),
			wallet.Stake("b-1", "slots", 200, dbfactory.Epoch()),
			wallet.Payout("b-1", "slots", 50, dbfactory.Epoch()),
			wallet.Refund("b-2", "live", 30, dbfactory.Epoch()),
			{Amount: 7, Kind: wallet.KindCredit, Reference: "settle/x"},
		} {
			require.NoError(t, book.Move(account, movement))
		}
		require.NoError(t, flush(ctx, t, bundle.tx, book))
		require.NoError(t, flush(ctx, t, bundle.tx, book), "nothing is left to flush")

		rows, err := bundle.tx.Query(ctx, `
			SELECT e.key_seq || ' ' || e.type || ' ' || (e.payload ->> 'amount') || ' ' || (e.payload ->> 'balance') || ' ' || l.reference || ' ' || l.account || ' ' || l.amount
			FROM outbox_event AS e JOIN ledger_lines AS l ON l.reference = e.payload ->> 'reference'
			WHERE l.account <> 'player' ORDER BY e.id`)
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, []string{
			"1 wallet.deposited.v1 1000 1000 deposit/d-1 cash -1000",
			"2 wallet.withdrawn.v1 100 900 withdrawal/w-1 cash 100",
			"3 wallet.staked.v1 200 700 stake/b-1 house 200",
			"4 wallet.settled.v1 50 750 payout/b-1 house -50",
			"5 wallet.refunded.v1 30 780 refund/b-2 house -30",
			"6 wallet.credited.v1 7 787 settle/x promotion -7",
		}, lines)

		// A credit without a time of its own has that of the lock, in both places.
		var ofEntry, ofEvent string
		err = bundle.tx.QueryRow(ctx, `
			SELECT max(l.at)::text, max(e.payload ->> 'at')::timestamptz::text
			FROM outbox_event AS e JOIN ledger_lines AS l ON l.reference = e.payload ->> 'reference'
			WHERE l.reference = 'settle/x' AND l.at > now() - interval '1 hour'`).Scan(&ofEntry, &ofEvent)
		require.NoError(t, err)
		require.Equal(t, ofEntry, ofEvent)
	})

	t.Run("WritesPayloadsThatKeepEveryDigit", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, &dbfactory.PlayerOpts{Code: `<p>"\1/é`})
		book := bundle.locked(ctx, t, player)
		require.NoError(t, book.Move(book.Account(player), wallet.Deposit("d&1", math.MaxInt64, dbfactory.Epoch())))
		require.NoError(t, flush(ctx, t, bundle.tx, book))

		var key string
		var payload wallet.Payload
		var body json.RawMessage
		require.NoError(t, bundle.tx.QueryRow(ctx, "SELECT key, payload FROM outbox_event").Scan(&key, &body))
		require.NoError(t, json.Unmarshal(body, &payload))
		require.Equal(t, wallet.Payload{
			Amount: "9223372036854775807", At: dbfactory.Epoch(), Balance: "9223372036854775807",
			Currency: "KRW", Player: player, Reference: "deposit/d&1",
		}, payload)
		require.Equal(t, player+"/KRW", key)
	})

	t.Run("RefusesAReferenceThatWasBookedBefore", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, nil)
		book := bundle.locked(ctx, t, player)
		require.NoError(t, book.Move(book.Account(player), wallet.Deposit("d-1", 5, dbfactory.Epoch())))
		require.NoError(t, book.Move(book.Account(player), wallet.Deposit("d-1", 5, dbfactory.Epoch())))
		err := flush(ctx, t, bundle.tx, book)
		require.ErrorContains(t, err, "book 2 movements: ")
		require.True(t, pgtx.Collides(err))
	})

	t.Run("RefusesAWalletThatSomebodyChangedWithoutItsLock", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		player := dbfactory.Player(ctx, t, bundle.tx, nil)
		book := bundle.locked(ctx, t, player)
		_, err := bundle.tx.Exec(ctx, "UPDATE wallet SET version = version + 1")
		require.NoError(t, err)
		require.NoError(t, book.Move(book.Account(player), wallet.Deposit("d-1", 5, dbfactory.Epoch())))
		require.EqualError(t, flush(ctx, t, bundle.tx, book), "store balances of 1 wallets: 0 rows affected, want 1: the rows are not as they should be")
	})
}
