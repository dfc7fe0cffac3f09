-- An application with a table of its own, shop_order. It appends events to the
-- outbox in the transactions that change the table, so that an event is published
-- if, and only if, its change was committed.
--
--     psql "$DATABASE_URL" -X -f append.sql
--     psql "$DATABASE_URL" -X -v rollback=1 -f append.sql
--
-- The second takes its change back and shows that nothing stays of the events.

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
\if :{?rollback}
\else
    \set rollback 0
\endif

DO $$
BEGIN
    IF to_regprocedure('outbox_append(text, text, text, jsonb, jsonb, bigint)') IS NULL THEN
        RAISE EXCEPTION 'the database % has no outbox_append: `source .truegreen/env` while `make run` runs, then psql "$DATABASE_URL" -X -f append.sql', current_database();
    END IF;
END;
$$;

CREATE TABLE IF NOT EXISTS shop_order (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    amount_minor bigint NOT NULL,
    customer text NOT NULL,
    status text NOT NULL,
    version bigint NOT NULL
);

-- Streams of the outbox, by who numbers the events of a key: rolling and agent
-- count by themselves, wallet takes the version of what the caller changed.
\set counted rolling
\set supplied wallet
\set customer c-7
-- It would be that of the request which the application serves.
\set headers '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'

-- An order is placed. Its version is 1, and so is the key_seq of its event.
BEGIN;
INSERT INTO shop_order (amount_minor, customer, status, version) VALUES (1200, :'customer', 'placed', 1)
RETURNING id AS order_id, version \gset

-- Amounts and ids as strings: JSON numbers lose digits in some languages.
SELECT outbox_append(
    stream => :'supplied', key => 'shop_order/' || :'order_id', type => 'shop_order.placed.v1',
    payload => jsonb_build_object('amount', '1200', 'order', :'order_id', 'status', 'placed'),
    headers => :'headers', key_seq => :version
) AS order_event \gset
-- The customer has no version: the outbox counts, and key_seq is left out.
SELECT outbox_append(
    stream => :'counted', key => 'shop_customer/' || :'customer', type => 'shop_customer.order_placed.v1',
    payload => jsonb_build_object('customer', :'customer', 'order', :'order_id', 'status', 'placed'),
    headers => :'headers'
) AS customer_event \gset

-- Only to print them: an application need not know the numbers.
\pset format unaligned
\pset tuples_only on
SELECT format('event %s  key_seq %s  stream %s  key %s  type %s', event_id, key_seq, stream, key, type)
FROM outbox_events WHERE event_id IN (:'order_event', :'customer_event') ORDER BY id;

\if :rollback
    ROLLBACK;
    SELECT format('rolled back: %s of 2 events are stored', count(*))
    FROM outbox_events WHERE event_id IN (:'order_event', :'customer_event');
    \quit
\endif
COMMIT;
SELECT format('committed: %s of 2 events are stored', count(*))
FROM outbox_events WHERE event_id IN (:'order_event', :'customer_event');

-- It is paid, and its version rises in the same statement. The row stays locked
-- until the end of the transaction, so no other can take the number in between,
-- or append its event before this one.
BEGIN;
UPDATE shop_order SET status = 'paid', version = version + 1 WHERE id = :order_id
RETURNING version \gset

SELECT outbox_append(
    stream => :'supplied', key => 'shop_order/' || :'order_id', type => 'shop_order.paid.v1',
    payload => jsonb_build_object('amount', '1200', 'order', :'order_id', 'status', 'paid'),
    headers => :'headers', key_seq => :version
) AS order_event \gset
SELECT outbox_append(
    stream => :'counted', key => 'shop_customer/' || :'customer', type => 'shop_customer.order_paid.v1',
    payload => jsonb_build_object('customer', :'customer', 'order', :'order_id', 'status', 'paid'),
    headers => :'headers'
) AS customer_event \gset

SELECT format('event %s  key_seq %s  stream %s  key %s  type %s', event_id, key_seq, stream, key, type)
FROM outbox_events WHERE event_id IN (:'order_event', :'customer_event') ORDER BY id;
COMMIT;
SELECT format('committed: %s of 2 events are stored', count(*))
FROM outbox_events WHERE event_id IN (:'order_event', :'customer_event');
