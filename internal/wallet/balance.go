package wallet

import (
	"context"
	"fmt"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
)

// Balance is what one player has.
type Balance struct {
	Balance  money.Minor
	Currency string
	Player   string // code
}

// Balances returns up to limit wallets of players of one status, in order of
// their codes.
func (service *Service) Balances(ctx context.Context, db dbsqlc.DBTX, status string, limit int32) ([]Balance, error) {
	rows, err := service.queries.WalletBalanceList(ctx, db, &dbsqlc.WalletBalanceListParams{MaxWallets: limit, Status: status})
	if err != nil {
		return nil, fmt.Errorf("list balances of %s players: %w", status, err)
	}
	balances := make([]Balance, len(rows))
	for i, row := range rows {
		balances[i] = Balance{Balance: money.Minor(row.BalanceMinor), Currency: row.Currency, Player: row.Player}
	}
	return balances, nil
}
