package settlement

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/fault"
	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// Explanation is how one run came to what it owes one player.
type Explanation struct {
	Adj         int
	Amount      int64
	Currency    string
	Delivery    string // empty for who is excluded
	Disposition string
	Failure     string   // code of a refusal
	Lines       []string // of arithmetic; see [programme.Terms.Explain]
	Reason      string   // of who is excluded
	Reference   string   // of the credit in the ledger; empty for who is excluded
	RunID       int64
	Version     int
}

// Explain tells the arithmetic of everything that runs of a period found a player to be
// owed, oldest run first. It is worked out again from the stored inputs and terms, and
// lines say where an item differs from that.
//
// Fails with [fault.KindNotFound] when no run of the period has calculated the player.
func (service *Service) Explain(ctx context.Context, code, key, player string) ([]Explanation, error) {
	rows, err := queries.SettlementItemExplain(ctx, service.pool, &dbsqlc.SettlementItemExplainParams{Code: code, Key: key, Player: player})
	if err != nil {
		return nil, fmt.Errorf("explain player %s in period %s of programme %s: %w", player, key, code, err)
	}
	if len(rows) == 0 {
		if err := service.checkCode(ctx, code); err != nil {
			return nil, err
		}
		return nil, fault.NotFound("no run of period %s of programme %s has an item of player %s: see truegreen settlement list --programme %s", key, code, player, code)
	}
	explanations := make([]Explanation, len(rows))
	for i, row := range rows {
		lines, err := explain(row)
		if err != nil {
			return nil, fmt.Errorf("explain player %s in run %d: %w", player, row.RunID, err)
		}
		explanations[i] = Explanation{
			Adj:         int(row.Adj),
			Amount:      row.AmountMinor,
			Currency:    row.Currency,
			Delivery:    row.Delivery,
			Disposition: row.Disposition,
			Failure:     row.FailureCode,
			Lines:       lines,
			Reason:      row.Reason,
			Reference:   row.Reference,
			RunID:       row.RunID,
			Version:     int(row.Version),
		}
	}
	return explanations, nil
}

func explain(row *dbsqlc.SettlementItemExplainRow) ([]string, error) {
	terms, err := programme.Decode(row.Rules)
	if err != nil {
		return nil, fmt.Errorf("read its terms: %w", err)
	}
	var given itemInputs
	if err := json.Unmarshal(row.Inputs, &given); err != nil {
		return nil, fmt.Errorf("read its inputs: %w", err)
	}
	activity, err := given.activity()
	if err != nil {
		return nil, fmt.Errorf("read its inputs: %w", err)
	}
	basis, err := scaled(row.BasisMinor, 6)
	if err != nil {
		return nil, fmt.Errorf("read its basis: %w", err)
	}
	tierValue, err := scaled(row.TierValue, 0)
	if err != nil {
		return nil, fmt.Errorf("read its tier value: %w", err)
	}
	if terms.TierBy == programme.TierByVIP {
		activity.VIP = int(tierValue.Int64())
	}
	return terms.Explain(programme.Entitlement{
		Amount:    money.Minor(row.AmountMinor),
		Basis:     basis,
		Before:    money.Minor(row.EntitledMinor),
		Capped:    money.Minor(row.CappedMinor),
		Gross:     money.Minor(row.GrossMinor),
		Rate:      money.RatePPM(row.RatePpm),
		Reason:    programme.Reason(row.Reason),
		TierFrom:  row.TierFrom,
		TierValue: tierValue,
	}, activity), nil
}

// scaled is a number of the database with so many decimal places, as a whole number.
func scaled(number pgtype.Numeric, places int32) (*big.Int, error) {
	if !number.Valid || number.NaN || number.Int == nil {
		return nil, fmt.Errorf("%v is no number", number)
	}
	value := new(big.Int).Set(number.Int)
	exponent := number.Exp + places
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent, -exponent))), nil)
	if exponent >= 0 {
		return value.Mul(value, power), nil
	}
	var rest big.Int
	value.QuoRem(value, power, &rest)
	if rest.Sign() != 0 {
		return nil, fmt.Errorf("%v has more than %d decimal places", number, places)
	}
	return value, nil
}

// activity is what the arithmetic takes, of what was stored of it.
func (given *itemInputs) activity() (programme.Activity, error) {
	var err error
	number := func(text string) money.Minor {
		parsed, parseErr := strconv.ParseInt(text, 10, 64)
		if parseErr != nil && err == nil {
			err = fmt.Errorf("read amount %q: %w", text, parseErr)
		}
		return money.Minor(parsed)
	}
	activity := programme.Activity{Promotions: number(given.Promotions), Status: given.Status}
	if cash := given.Cash; cash != nil {
		activity.Cash = &programme.Cash{
			Closing: number(cash.Closing), Deposits: number(cash.Deposits), Opening: number(cash.Opening), Withdrawals: number(cash.Withdrawals),
		}
	}
	if given.FirstDeposit != nil {
		activity.FirstDeposit = number(given.FirstDeposit.Amount)
	}
	for _, category := range given.Categories {
		sum := programme.CategorySum{Category: category.Category, Payout: number(category.Payout), Stake: number(category.Stake)}
		if category.Risk != "" { // items of earlier versions have none, and need none
			sum.Risk = number(category.Risk)
		}
		activity.Categories = append(activity.Categories, sum)
	}
	return activity, err
}

// Export writes the items of a run as CSV, in order of players: what each was found to
// be owed and what became of it; of a retry, those of its parent that it was to attempt.
// Amounts are minor units, instants UTC.
//
// Fails with [fault.KindNotFound] for an unknown run; what was written until a failure
// is not all.
func (service *Service) Export(ctx context.Context, runID int64, to io.Writer) error {
	if _, err := service.Get(ctx, runID); err != nil {
		return err
	}
	conn, err := service.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("export run %d: %w", runID, err)
	}
	defer conn.Release()
	// COPY takes no parameters; a number needs no quoting.
	_, err = conn.Conn().PgConn().CopyTo(ctx, to, fmt.Sprintf(`
		COPY (
			SELECT credit.run_id, credit.programme, credit.period, credit.player, credit.currency, credit.adj, credit.basis, credit.rate_ppm,
				credit.gross, credit.capped, credit.amount, credit.disposition, credit.reason, credit.delivery,
				credit.failure_class, credit.failure_code, credit.attempts, credit.reference,
				to_char(credit.credited_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS credited_at, credit.entitled
			FROM settlement_run_items AS item
			JOIN settlement_credits AS credit ON credit.item_id = item.item_id
			WHERE item.run_id = %d
			ORDER BY credit.player, credit.adj
		) TO STDOUT WITH (FORMAT csv, HEADER)`, runID))
	if err != nil {
		return fmt.Errorf("export run %d: %w", runID, err)
	}
	return nil
}
