package settlement

import (
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/money"
	"truegreen/internal/programme"
)

// What follows is read through a cursor, page by page and of one moment, which is why
// it is not among the generated queries. $1 and $2 are the period, $3 the currency, $4
// the period's id; 0 for one that has none yet.

// played are the sums of who has a counted bet in the period, per player.
const played = `
played AS (
    SELECT
        rollup.player_id,
        rollup.category,
        sum(rollup.payout_minor)::bigint AS payout_minor,
        sum(rollup.risk_minor)::bigint AS risk_minor,
        sum(rollup.stake_minor)::bigint AS stake_minor
    FROM activity_rollup AS rollup
    WHERE rollup.quarter_at >= $1
        AND rollup.quarter_at < $2
        AND rollup.num_bets > 0
    GROUP BY rollup.player_id, rollup.category
), per_player AS (` + perPlayer + `)`

const perPlayer = `
    SELECT
        played.player_id,
        array_agg(played.category ORDER BY played.category) AS categories,
        array_agg(played.payout_minor ORDER BY played.category) AS payouts,
        array_agg(played.risk_minor ORDER BY played.category) AS risks,
        array_agg(played.stake_minor ORDER BY played.category) AS stakes
    FROM played
    GROUP BY played.player_id
`

// earlier is what runs of the period have found their players to be owed, as far as it
// was credited or still may be. A regular run finds none.
const earlier = `
earlier AS (
    SELECT
        item.player_id,
        max(item.adj) + 1 AS adj,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery <> 'withheld'), 0)::bigint AS entitled_minor,
        bool_or(item.delivery IN ('pending', 'failed')) AS is_undelivered
    FROM settlement_item AS item
    WHERE item.period_id = $4
        AND item.disposition = 'eligible'
        AND item.voided_at IS NULL
    GROUP BY item.player_id
)`

const joinEarlier = `
LEFT JOIN earlier ON earlier.player_id = player.id`

// who a player is, with the VIP level of the period's end.
const who = `
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
    coalesce(earlier.adj, 0) AS adj,
    coalesce(earlier.entitled_minor, 0) AS entitled,
    coalesce(earlier.is_undelivered, false) AS is_undelivered`

// turnoverOf is for rebates, and for cashbacks of basis game. $5 says whether promotion
// credits are deducted; they count when they were booked, by the database's clock.
const turnoverOf = `
DECLARE settlement_activity NO SCROLL CURSOR FOR
WITH ` + played + `, ` + earlier + `, promoted AS (
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
    WHERE $5
        AND promotion.kind = 'promotion'
        AND promotion.currency = $3
    GROUP BY account.player_id
)
SELECT ` + who + `,
    coalesce(promoted.amount_minor, 0) AS promotions,
    per_player.categories, per_player.payouts, per_player.risks, per_player.stakes,
    NULL::bigint AS opening, NULL::bigint AS deposits, NULL::bigint AS withdrawals, NULL::bigint AS closing,
    0::bigint AS first_deposit, NULL::timestamptz AS first_deposit_at
FROM per_player
JOIN player ON player.id = per_player.player_id
LEFT JOIN promoted ON promoted.player_id = player.id` + joinEarlier + `
WHERE player.currency = $3
ORDER BY player.id`

// cashOf is for cashbacks of basis cash: who played, paid in or took out. The closing
// balance is today's without what was booked since, so that the cost is that of the
// time since the period's start.
const cashOf = `
DECLARE settlement_activity NO SCROLL CURSOR FOR
WITH ` + played + `, ` + earlier + `, paid AS (
    SELECT
        payment.player_id,
        coalesce(sum(payment.amount_minor) FILTER (WHERE payment.kind = 'deposit'), 0)::bigint AS deposits,
        coalesce(sum(payment.amount_minor) FILTER (WHERE payment.kind = 'withdrawal'), 0)::bigint AS withdrawals
    FROM payment
    WHERE payment.at >= $1
        AND payment.at < $2
        AND payment.refusal IS NULL
    GROUP BY payment.player_id
), concerned AS (
    SELECT per_player.player_id FROM per_player
    UNION
    SELECT paid.player_id FROM paid
)
SELECT ` + who + `,
    0::bigint AS promotions,
    per_player.categories, per_player.payouts, per_player.risks, per_player.stakes,
    (wallet.balance_minor - since.start_minor)::bigint AS opening,
    coalesce(paid.deposits, 0) AS deposits,
    coalesce(paid.withdrawals, 0) AS withdrawals,
    (wallet.balance_minor - since.end_minor)::bigint AS closing,
    0::bigint AS first_deposit, NULL::timestamptz AS first_deposit_at
FROM concerned
JOIN player ON player.id = concerned.player_id
JOIN wallet ON wallet.player_id = player.id
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(entry.amount_minor), 0) AS start_minor,
        coalesce(sum(entry.amount_minor) FILTER (WHERE entry.at >= $2), 0) AS end_minor
    FROM ledger_entry AS entry
    WHERE entry.account_id = wallet.account_id
        AND entry.at >= $1
) AS since
LEFT JOIN per_player ON per_player.player_id = player.id
LEFT JOIN paid ON paid.player_id = player.id` + joinEarlier + `
WHERE player.currency = $3
ORDER BY player.id`

// lossOf is for lossbacks: whose window, $6 from a first deposit not before $7, ends in
// the period. $7 is when the programme began, not the version in force: who paid in
// shortly before a new version is nobody else's. $5 is as in turnoverOf, within the
// window; $8 is the programme, which pays a player once. Whoever has a claim on the
// period keeps the first deposit that it was made of: an earlier one that came later
// changes nothing.
const lossOf = `
DECLARE settlement_activity NO SCROLL CURSOR FOR
WITH ` + earlier + `, claimed AS MATERIALIZED (
    SELECT DISTINCT ON (item.player_id)
        item.player_id,
        (item.inputs -> 'first_deposit' ->> 'amount')::bigint AS amount_minor,
        (item.inputs -> 'first_deposit' ->> 'at')::timestamptz AS at
    FROM settlement_item AS item
    WHERE item.period_id = $4
        AND item.disposition = 'eligible'
        AND item.voided_at IS NULL
    ORDER BY item.player_id, item.adj
), unclaimed AS (
    SELECT DISTINCT ON (payment.player_id)
        payment.player_id,
        payment.amount_minor,
        payment.at
    FROM payment
    WHERE payment.kind = 'deposit'
        AND payment.refusal IS NULL
        AND payment.at >= greatest($1::timestamptz - $6::interval, $7::timestamptz)
        AND payment.at < $2::timestamptz - $6::interval
        AND NOT EXISTS (
            SELECT
            FROM payment AS earlier
            WHERE earlier.player_id = payment.player_id
                AND earlier.kind = 'deposit'
                AND earlier.refusal IS NULL
                AND earlier.at < payment.at
        )
        AND NOT EXISTS (
            SELECT
            FROM settlement_item AS item
            JOIN settlement_period AS period ON period.id = item.period_id
            WHERE period.programme_id = $8
                AND item.player_id = payment.player_id
                AND item.disposition = 'eligible'
                AND item.voided_at IS NULL
        )
    ORDER BY payment.player_id, payment.at, payment.ref
), first AS MATERIALIZED (
    SELECT * FROM claimed
    UNION ALL
    SELECT * FROM unclaimed
), played AS (
    SELECT
        bet.player_id,
        bet.category,
        sum(bet.payout_minor)::bigint AS payout_minor,
        sum(least(abs(bet.payout_minor - bet.stake_minor), bet.stake_minor))::bigint AS risk_minor,
        sum(bet.stake_minor)::bigint AS stake_minor
    FROM first
    JOIN bet ON bet.player_id = first.player_id
        AND bet.settled_at >= first.at
        AND bet.settled_at < first.at + $6
    GROUP BY bet.player_id, bet.category
), per_player AS (` + perPlayer + `)
SELECT ` + who + `,
    CASE WHEN $5 THEN coalesce((
        SELECT sum(entry.amount_minor)
        FROM ledger_account AS account
        JOIN ledger_entry AS entry ON entry.account_id = account.id
            AND entry.at >= first.at
            AND entry.at < first.at + $6
        JOIN ledger_txn AS txn ON txn.id = entry.txn_id
            AND txn.kind = 'credit'
        WHERE account.player_id = player.id
    ), 0) ELSE 0 END::bigint AS promotions,
    per_player.categories, per_player.payouts, per_player.risks, per_player.stakes,
    NULL::bigint AS opening, NULL::bigint AS deposits, NULL::bigint AS withdrawals, NULL::bigint AS closing,
    first.amount_minor AS first_deposit, first.at AS first_deposit_at
FROM first
JOIN player ON player.id = first.player_id
LEFT JOIN per_player ON per_player.player_id = player.id` + joinEarlier + `
WHERE player.currency = $3
ORDER BY player.id`

// activityOf returns the cursor that reads whom the terms concern, with everything that
// an entitlement depends on.
func activityOf(of subject) (query string, args []any, err error) {
	terms := of.terms
	switch {
	case terms.Kind == programme.Lossback:
		calendar, err := terms.Calendar()
		if err != nil {
			return "", nil, fmt.Errorf("read calendar: %w", err)
		}
		effective := calendar.StartOf(of.effectiveSince)
		return lossOf, []any{of.startsAt, of.endsAt, terms.Currency, of.periodID, terms.LessPromotions, terms.Window, effective, of.programmeID}, nil
	case terms.Basis == programme.BasisCash:
		return cashOf, []any{of.startsAt, of.endsAt, terms.Currency, of.periodID}, nil
	default:
		return turnoverOf, []any{of.startsAt, of.endsAt, terms.Currency, of.periodID, terms.LessPromotions}, nil
	}
}

// player is one player's activity as it is read.
type player struct {
	adj            int32 // of the next claim
	categories     []string
	closing        *int64
	code           string
	deposits       *int64
	earlier        programme.Earlier
	firstDeposit   int64
	firstDepositAt *time.Time
	id             int64
	opening        *int64
	payouts        []int64
	promotions     int64
	risks          []int64
	stakes         []int64
	status         string
	vip            int32
	withdrawals    *int64
}

func scanPlayer(row pgx.CollectableRow) (player, error) {
	var p player
	err := row.Scan(
		&p.id, &p.code, &p.status, &p.vip, &p.adj, &p.earlier.Entitled, &p.earlier.Undelivered, &p.promotions, &p.categories, &p.payouts, &p.risks, &p.stakes,
		&p.opening, &p.deposits, &p.withdrawals, &p.closing, &p.firstDeposit, &p.firstDepositAt,
	)
	if err != nil {
		return player{}, fmt.Errorf("read player: %w", err)
	}
	return p, nil
}

// itemInputs is what settlement_item.inputs holds.
type itemInputs struct {
	Cash         *cashInputs      `json:"cash,omitempty"`
	Categories   []categoryInputs `json:"categories"`
	FirstDeposit *depositInputs   `json:"first_deposit,omitempty"`
	Promotions   string           `json:"promotions"`
	Status       string           `json:"status"`
}

type cashInputs struct {
	Closing     string `json:"closing"`
	Deposits    string `json:"deposits"`
	Opening     string `json:"opening"`
	Withdrawals string `json:"withdrawals"`
}

type categoryInputs struct {
	Category string `json:"category"`
	Payout   string `json:"payout"`
	Risk     string `json:"risk"`
	Stake    string `json:"stake"`
}

type depositInputs struct {
	Amount string    `json:"amount"`
	At     time.Time `json:"at"`
}

// activity is what the arithmetic takes, and what is stored of it.
func (p *player) activity() (programme.Activity, itemInputs) {
	activity := programme.Activity{
		FirstDeposit: money.Minor(p.firstDeposit), Promotions: money.Minor(p.promotions), Status: p.status, VIP: int(p.vip),
	}
	given := itemInputs{Categories: []categoryInputs{}, Promotions: text(p.promotions), Status: p.status}
	if p.opening != nil && p.closing != nil && p.deposits != nil && p.withdrawals != nil {
		activity.Cash = &programme.Cash{
			Closing: money.Minor(*p.closing), Deposits: money.Minor(*p.deposits), Opening: money.Minor(*p.opening), Withdrawals: money.Minor(*p.withdrawals),
		}
		given.Cash = &cashInputs{Closing: text(*p.closing), Deposits: text(*p.deposits), Opening: text(*p.opening), Withdrawals: text(*p.withdrawals)}
	}
	if p.firstDepositAt != nil {
		given.FirstDeposit = &depositInputs{Amount: text(p.firstDeposit), At: p.firstDepositAt.UTC()}
	}
	for i, category := range p.categories {
		activity.Categories = append(activity.Categories, programme.CategorySum{
			Category: category,
			Payout:   money.Minor(p.payouts[i]),
			Risk:     money.Minor(p.risks[i]),
			Stake:    money.Minor(p.stakes[i]),
		})
		given.Categories = append(given.Categories, categoryInputs{
			Category: category,
			Payout:   text(p.payouts[i]),
			Risk:     text(p.risks[i]),
			Stake:    text(p.stakes[i]),
		})
	}
	return activity, given
}

func text(amount int64) string { return strconv.FormatInt(amount, 10) }
