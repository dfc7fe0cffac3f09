-- Why:   wallets over a double-entry ledger that the database itself keeps
--        append-only and balanced.
-- Locks: none; new tables.
-- Undo:  drops them, and every booking with them.

-- +goose Up
CREATE TABLE ledger_account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    currency text NOT NULL,
    kind text NOT NULL,
    player_id bigint REFERENCES player (id),
    CONSTRAINT currency_is_iso4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT kind_is_known CHECK (kind IN ('player', 'cash', 'house', 'promotion')),
    CONSTRAINT player_accounts_have_a_player CHECK ((kind = 'player') = (player_id IS NOT NULL))
);
COMMENT ON TABLE ledger_account IS 'Accounts of the ledger. player: what we owe a player; cash: money that came in and went out; house: stakes won and payouts made; promotion: what settlements gave away.';
CREATE UNIQUE INDEX ledger_account_one_per_player ON ledger_account (player_id, currency) WHERE player_id IS NOT NULL;
CREATE UNIQUE INDEX ledger_account_one_per_kind ON ledger_account (kind, currency) WHERE player_id IS NULL;

CREATE TABLE wallet (
    account_id bigint PRIMARY KEY REFERENCES ledger_account (id),
    balance_minor bigint NOT NULL DEFAULT 0,
    currency text NOT NULL,
    floor_minor bigint NOT NULL DEFAULT 0,
    player_id bigint NOT NULL UNIQUE REFERENCES player (id),
    version bigint NOT NULL DEFAULT 0,
    CONSTRAINT balance_not_below_floor CHECK (balance_minor >= floor_minor),
    CONSTRAINT version_not_negative CHECK (version >= 0)
) WITH (fillfactor = 60);
COMMENT ON TABLE wallet IS 'A player''s balance: the sum of the account''s ledger entries, kept in the transaction that books them.';
COMMENT ON COLUMN wallet.version IS 'Rises by one with each booking; the sequence number of the wallet''s events.';

CREATE TABLE ledger_txn (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    reference text NOT NULL UNIQUE,
    CONSTRAINT kind_is_known CHECK (kind IN ('deposit', 'withdrawal', 'stake', 'payout', 'refund', 'credit')),
    CONSTRAINT reference_length CHECK (length(reference) BETWEEN 1 AND 600)
);
COMMENT ON TABLE ledger_txn IS 'One booking. at: when it happened by its source; created_at: when it was booked here. A reference is booked at most once, for ever.';

CREATE TABLE ledger_entry (
    txn_id bigint NOT NULL,
    account_id bigint NOT NULL,
    amount_minor bigint NOT NULL,
    at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (txn_id, account_id)
);
COMMENT ON TABLE ledger_entry IS 'The legs of a booking; they sum to zero per currency. No foreign keys: a key check would share-lock the row of the house account in every booking. The balance trigger checks txn and account instead.';
-- For an account's balance at an instant.
CREATE INDEX ledger_entry_account_id_at_idx ON ledger_entry (account_id, at) INCLUDE (amount_minor);

-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'Book a compensating transaction instead.';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION ledger_refuse_change() IS 'Trigger: refuses every change to booked rows.';
CREATE TRIGGER ledger_txn_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_txn
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- +goose StatementBegin
CREATE FUNCTION ledger_entry_check_balance() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    -- What was there before sums to zero, so the new entries must by themselves.
    -- The lookups are subqueries so that each is an index scan for ever: as a
    -- join, a plan made for many entries would read the whole ledger for two.
    SELECT entry.txn_id, entry.currency, sum(entry.amount_minor) AS total,
        (SELECT txn.id FROM ledger_txn AS txn WHERE txn.id = entry.txn_id) IS NULL AS no_txn
    INTO wrong
    FROM (
        SELECT
            new_entry.txn_id,
            new_entry.amount_minor,
            (SELECT account.currency FROM ledger_account AS account WHERE account.id = new_entry.account_id) AS currency
        FROM new_entry
    ) AS entry
    GROUP BY entry.txn_id, entry.currency
    HAVING sum(entry.amount_minor) <> 0
        OR entry.currency IS NULL
        OR (SELECT txn.id FROM ledger_txn AS txn WHERE txn.id = entry.txn_id) IS NULL
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF wrong.no_txn OR wrong.currency IS NULL THEN
        RAISE EXCEPTION 'ledger transaction % or an account of it does not exist', wrong.txn_id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RAISE EXCEPTION 'ledger transaction % does not balance: its % entries sum to %', wrong.txn_id, wrong.currency, wrong.total
        USING ERRCODE = 'check_violation',
              HINT = 'Insert all entries of a transaction with one statement.';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION ledger_entry_check_balance() IS 'Trigger: refuses a statement that leaves a transaction whose entries do not sum to zero per currency, or that names a transaction or account that is not there.';
CREATE TRIGGER ledger_entry_is_balanced AFTER INSERT ON ledger_entry
    REFERENCING NEW TABLE AS new_entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entry_check_balance();

-- +goose Down
DROP TABLE ledger_entry;
DROP TABLE ledger_txn;
DROP FUNCTION ledger_entry_check_balance();
DROP FUNCTION ledger_refuse_change();
DROP TABLE wallet;
DROP TABLE ledger_account;
