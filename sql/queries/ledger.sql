-- name: LedgerAccountEnsure :exec
-- LedgerAccountEnsure makes sure that the currencies have their accounts of
-- cash, house, and promotion.
INSERT INTO ledger_account (currency, kind)
SELECT currency.code, kind.name
FROM unnest(@currencies::text[]) AS currency (code)
CROSS JOIN unnest(ARRAY['cash', 'house', 'promotion']) AS kind (name)
ORDER BY currency.code, kind.name
ON CONFLICT (kind, currency) WHERE player_id IS NULL DO NOTHING;

-- name: LedgerBook :exec
-- LedgerBook books one transaction per element, each with two entries: amount on
-- the player's account, and the opposite on the account of counter_kind in the
-- same currency. Rows affected are entries. Fails with a unique violation when
-- a reference was booked before.
WITH given AS (
    SELECT
        unnest(@account_id::bigint[]) AS account_id,
        unnest(@amount_minor::bigint[]) AS amount_minor,
        unnest(@at::timestamptz[]) AS at,
        unnest(@counter_kind::text[]) AS counter_kind,
        unnest(@currency::text[]) AS currency,
        unnest(@kind::text[]) AS kind,
        unnest(@reference::text[]) AS reference
), movement AS MATERIALIZED (
    -- The ids are drawn here, so that entries need no join to find theirs.
    SELECT
        nextval('ledger_txn_id_seq') AS txn_id,
        given.account_id,
        given.amount_minor,
        given.at,
        -- A subquery, so that it is an index lookup whatever the planner thinks of
        -- the size of the tables.
        (
            SELECT counter.id
            FROM ledger_account AS counter
            WHERE counter.kind = given.counter_kind
                AND counter.currency = given.currency
                AND counter.player_id IS NULL
        ) AS counter_id,
        given.kind,
        given.reference
    FROM given
), txn AS (
    INSERT INTO ledger_txn (id, at, kind, reference)
    OVERRIDING SYSTEM VALUE
    SELECT movement.txn_id, movement.at, movement.kind, movement.reference
    FROM movement
)
INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at)
SELECT
    movement.txn_id,
    unnest(ARRAY[movement.account_id, movement.counter_id]),
    unnest(ARRAY[movement.amount_minor, -movement.amount_minor]),
    movement.at
FROM movement;
