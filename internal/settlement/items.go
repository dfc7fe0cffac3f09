package settlement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/pgtx"
	"truegreen/internal/programme"
	"truegreen/internal/timewindow"
)

// playersPerPage is how many players a calculation holds in memory.
const playersPerPage = 2000

// errArithmetic is the cause of every failure that is the same however often it
// is tried: an amount that leaves its range.
var errArithmetic = errors.New("the arithmetic fails")

// counted is what a calculation found.
type counted struct {
	EligibleMinor int64 `json:"eligible_minor,string"`
	NumEligible   int64 `json:"num_eligible"`
	NumEvaluated  int64 `json:"num_evaluated"`
}

// subject is what is calculated: whose terms, for which period, on whose behalf.
type subject struct {
	effectiveSince timewindow.Day // of the programme, by its first version
	endsAt         time.Time
	periodID       int64 // 0 in the preview of one that has never been settled
	programmeID    int64
	runID          int64 // 0 in a preview
	startsAt       time.Time
	terms          *programme.Terms
}

// eachPage works out what everybody whom the terms concern is owed, and hands it to fn page by page, in order of players. Fails with errArithmetic when
// an amount leaves its range.
func eachPage(ctx context.Context, tx pgx.Tx, of subject, fn func(items []*dbsqlc.SettlementItemInsertParams) error) error {
	query, args, err := activityOf(of)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, query, args...); err != nil {
		return arithmetic(fmt.Errorf("read activity: %w", err))
	}
	for {
		items, err := nextItems(ctx, tx, of)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			break
		}
		if err := fn(items); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, "CLOSE settlement_activity"); err != nil {
		return fmt.Errorf("end reading activity: %w", err)
	}
	return nil
}

// storeItems stores an item for everybody whom the terms concern, and counts them. inputsAt is the watermark that it rests on.
func storeItems(ctx context.Context, tx pgx.Tx, of subject, inputsAt time.Time) (*counted, error) {
	if err := queries.SettlementItemKeepPlans(ctx, tx); err != nil {
		return nil, fmt.Errorf("set up planner: %w", err)
	}
	err := eachPage(ctx, tx, of, func(items []*dbsqlc.SettlementItemInsertParams) error {
		numStored, err := queries.SettlementItemInsert(ctx, tx, items)
		if err != nil {
			return fmt.Errorf("store items: %w", err)
		}
		if numStored != int64(len(items)) {
			return fmt.Errorf("store items: %d of %d were stored: %w", numStored, len(items), pgtx.ErrRowCount)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	counts, err := queries.SettlementRunCalculated(ctx, tx, &dbsqlc.SettlementRunCalculatedParams{ID: of.runID, InputsAt: inputsAt})
	if err != nil {
		return nil, arithmetic(fmt.Errorf("count items: %w", err))
	}
	return &counted{
		EligibleMinor: valueOr(counts.EligibleMinor, 0),
		NumEligible:   valueOr(counts.NumEligible, 0),
		NumEvaluated:  valueOr(counts.NumEvaluated, 0),
	}, nil
}

// nextItems reads a page of players and works out what each is owed.
func nextItems(ctx context.Context, tx pgx.Tx, of subject) ([]*dbsqlc.SettlementItemInsertParams, error) {
	rows, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM settlement_activity", playersPerPage))
	if err != nil {
		return nil, arithmetic(fmt.Errorf("read activity: %w", err))
	}
	players, err := pgx.CollectRows(rows, scanPlayer)
	if err != nil {
		return nil, arithmetic(fmt.Errorf("read activity: %w", err))
	}
	items := make([]*dbsqlc.SettlementItemInsertParams, 0, len(players))
	for i := range players {
		item, err := entitle(of, &players[i])
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// entitle works out what one player is owed.
func entitle(of subject, p *player) (*dbsqlc.SettlementItemInsertParams, error) {
	activity, given := p.activity()
	owed, err := of.terms.Entitle(activity)
	if err != nil {
		return nil, fmt.Errorf("work out what player %s is owed: %w: %w", p.code, errArithmetic, err)
	}
	owed = owed.Less(p.earlier)
	encoded, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("store activity of player %s: %w", p.code, err)
	}
	item := &dbsqlc.SettlementItemInsertParams{
		Adj:           p.adj,
		AmountMinor:   int64(owed.Amount),
		BasisMinor:    millionths(owed.Basis),
		CappedMinor:   int64(owed.Capped),
		Currency:      of.terms.Currency,
		Disposition:   "excluded",
		EntitledMinor: int64(owed.Before),
		GrossMinor:    int64(owed.Gross),
		Inputs:        encoded,
		PeriodID:      of.periodID,
		PlayerID:      p.id,
		RatePpm:       int32(owed.Rate),
		RunID:         of.runID,
		TierFrom:      owed.TierFrom,
		TierValue:     pgtype.Numeric{Int: owed.TierValue, Valid: true},
	}
	if owed.Reason != "" {
		reason := string(owed.Reason)
		item.Reason = &reason
		return item, nil
	}
	pending := "pending"
	item.Delivery = &pending
	item.Disposition = "eligible"
	return item, nil
}

// millionths is an amount in millionths as a number of whole units.
func millionths(amount *big.Int) pgtype.Numeric {
	const exponent = -6
	return pgtype.Numeric{Exp: exponent, Int: amount, Valid: true}
}

// arithmetic marks an error of the database as one of arithmetic, where it is
// one.
func arithmetic(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "22003" {
		return fmt.Errorf("%w: %w", errArithmetic, err)
	}
	return err
}
