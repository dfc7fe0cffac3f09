package wallet

import (
	"context"
	"fmt"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
)

// Service locks wallets for movements.
type Service struct {
	queries *dbsqlc.Queries
}

// New returns a Service. It holds no state and needs no settings.
func New() *Service { return &Service{queries: dbsqlc.New()} }

// Owners say whose wallets to lock.
type Owners struct {
	Bets    []string // ids of bets: the wallets of the players who placed them
	Players []string // codes of players
}

// Lock locks the wallets of owners until the transaction ends and puts them into
// the returned [Book], which is complete once pipeline is sent. Who has no wallet
// is not in it; that is no error. Wallets are locked in id order, so that callers
// never deadlock, as long as each transaction locks only once.
//
// What the pipeline reads behind the lock is what the transaction left that held
// it before.
//
// For the rest of the transaction the planner prefers indexes and keeps its
// plans, which suits lookups by key and nothing else.
func (service *Service) Lock(ctx context.Context, pipeline *pgtx.Pipeline, owners Owners) (*Book, error) {
	if err := service.queries.WalletPlanLookups(ctx, pipeline.Step("set up planner", pgtx.AnyRows)); err != nil {
		return nil, fmt.Errorf("lock wallets: %w", err)
	}
	book := service.NewBook()
	params := dbsqlc.WalletLockParams{BetRefs: owners.Bets, PlayerCodes: owners.Players}
	err := pipeline.Ask("lock wallets", func(db pgtx.DB) error {
		rows, err := service.queries.WalletLock(ctx, db, &params)
		if err != nil {
			return err
		}
		for _, row := range rows {
			book.add(row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return book, nil
}

// NewBook returns a book without wallets, for a transaction that locks none.
func (service *Service) NewBook() *Book {
	return &Book{accounts: make(map[string]*Account), queries: service.queries}
}
