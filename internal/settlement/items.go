package settlement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/programme"
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

// activityOf reads who has a counted bet in a period, with everything that an
// entitlement depends on. It is read through a cursor, page by page and of one
// moment, which is why it is not among the generated queries.
//
// $1 and $2 are the period, $3 its currency, $4 whether promotion credits are
// deducted. Credits count when they were booked, by the database's clock.
const activityOf = `
DECLARE settlement_activity NO SCROLL CURSOR FOR
WITH played AS (
    SELECT
        rollup.player_id,
        rollup.category,
        sum(rollup.payout_minor)::bigint AS payout_minor,
        sum(rollup.stake_minor)::bigint AS stake_minor
    FROM activity_rollup AS rollup
    WHERE rollup.quarter_at >= $1
        AND rollup.quarter_at < $2
        AND rollup.num_bets > 0
    GROUP BY rollup.player_id, rollup.category
), per_player AS (
    SELECT
        played.player_id,
        array_agg(played.category ORDER BY played.category) AS categories,
        array_agg(played.payout_minor ORDER BY played.category) AS payouts,
        array_agg(played.stake_minor ORDER BY played.category) AS stakes
    FROM played
    GROUP BY played.player_id
), promoted AS (
    SELECT
        account.player_id,
        sum(theirs.amount_minor)::bigint AS amount_minor
    FROM ledger_account AS promotion
    JOIN ledger_entry AS ours ON ours.account_id = promotion.id
        AND ours.at >= $1
        AND ours.at < $2
    JOIN ledger_entry AS theirs ON theirs.txn_id = ours.txn_id
        AND theirs.account_id <> ours.account_id
    JOIN ledger_account AS account ON account.id = theirs.account_id
    WHERE $4
        AND promotion.kind = 'promotion'
        AND promotion.currency = $3
    GROUP BY account.player_id
)
SELECT
    player.id,
    player.code,
    player.status,
    coalesce((
        SELECT line.vip
        FROM player_line AS line
        WHERE line.player_id = player.id
            AND line.at < $2
        ORDER BY line.at DESC
        LIMIT 1
    ), 0) AS vip,
    coalesce(promoted.amount_minor, 0) AS promotions,
    per_player.categories,
    per_player.payouts,
    per_player.stakes
FROM per_player
JOIN player ON player.id = per_player.player_id
LEFT JOIN promoted ON promoted.player_id = player.id
WHERE player.currency = $3
ORDER BY player.id`

// subject is what is calculated: whose terms, for which period, on whose behalf.
type subject struct {
	endsAt   time.Time
	periodID int64 // 0 in a preview
	runID    int64 // 0 in a preview
	startsAt time.Time
	terms    *programme.Terms
}

// eachPage works out what everybody with a counted bet in the period is owed, and
// hands it to fn page by page, in order of players. Fails with errArithmetic when
// an amount leaves its range.
func eachPage(ctx context.Context, tx pgx.Tx, of subject, fn func(items []*dbsqlc.SettlementItemInsertParams) error) error {
	_, err := tx.Exec(ctx, activityOf, of.startsAt, of.endsAt, of.terms.Currency, of.terms.LessPromotions)
	if err != nil {
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

// storeItems stores an item for everybody who has a counted bet in the period,
// and counts them. inputsAt is the watermark that it rests on.
func storeItems(ctx context.Context, tx pgx.Tx, of subject, inputsAt time.Time) (*counted, error) {
	err := eachPage(ctx, tx, of, func(items []*dbsqlc.SettlementItemInsertParams) error {
		if _, err := queries.SettlementItemInsert(ctx, tx, items); err != nil {
			return fmt.Errorf("store items: %w", err)
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

// player is one player's activity as it is read.
type player struct {
	categories []string
	code       string
	id         int64
	payouts    []int64
	promotions int64
	stakes     []int64
	status     string
	vip        int32
}

// nextItems reads a page of players and works out what each is owed.
func nextItems(ctx context.Context, tx pgx.Tx, of subject) ([]*dbsqlc.SettlementItemInsertParams, error) {
	rows, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM settlement_activity", playersPerPage))
	if err != nil {
		return nil, arithmetic(fmt.Errorf("read activity: %w", err))
	}
	players, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (player, error) {
		var p player
		if err := row.Scan(&p.id, &p.code, &p.status, &p.vip, &p.promotions, &p.categories, &p.payouts, &p.stakes); err != nil {
			return player{}, fmt.Errorf("read player: %w", err)
		}
		return p, nil
	})
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

// itemInputs is what settlement_item.inputs holds.
type itemInputs struct {
	Categories []categoryInputs `json:"categories"`
	Promotions string           `json:"promotions"`
	Status     string           `json:"status"`
}

type categoryInputs struct {
	Category string `json:"category"`
	Payout   string `json:"payout"`
	Stake    string `json:"stake"`
}

// entitle works out what one player is owed.
func entitle(of subject, p *player) (*dbsqlc.SettlementItemInsertParams, error) {
	activity := programme.Activity{Promotions: money.Minor(p.promotions), Status: p.status, VIP: int(p.vip)}
	given := itemInputs{Promotions: strconv.FormatInt(p.promotions, 10), Status: p.status}
	for i, category := range p.categories {
		activity.Categories = append(activity.Categories, programme.CategorySum{
			Category: category,
			Payout:   money.Minor(p.payouts[i]),
			Stake:    money.Minor(p.stakes[i]),
		})
		given.Categories = append(given.Categories, categoryInputs{
			Category: category,
			Payout:   strconv.FormatInt(p.payouts[i], 10),
			Stake:    strconv.FormatInt(p.stakes[i], 10),
		})
	}
	owed, err := of.terms.Entitle(activity)
	if err != nil {
		return nil, fmt.Errorf("work out what player %s is owed: %w: %w", p.code, errArithmetic, err)
	}
	encoded, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("store activity of player %s: %w", p.code, err)
	}
	item := &dbsqlc.SettlementItemInsertParams{
		AmountMinor: int64(owed.Amount),
		BasisMinor:  millionths(owed.Basis),
		CappedMinor: int64(owed.Capped),
		Currency:    of.terms.Currency,
		Disposition: "excluded",
		GrossMinor:  int64(owed.Gross),
		Inputs:      encoded,
		PeriodID:    of.periodID,
		PlayerID:    p.id,
		RatePpm:     int32(owed.Rate),
		RunID:       of.runID,
		TierFrom:    owed.TierFrom,
		TierValue:   pgtype.Numeric{Int: owed.TierValue, Valid: true},
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
