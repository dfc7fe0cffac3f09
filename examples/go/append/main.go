// Command append is an application with a table of its own, shop_order, and no code
// of Truegreen's. It appends events to the outbox in the transactions that change
// the table, so that an event is published if, and only if, its change was
// committed.
//
// It needs DATABASE_URL. With -rollback it takes its change back and shows that
// nothing stays of the events either.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Streams of the outbox, by who numbers the events of a key.
const (
	counted  = "rolling" // the outbox counts; agent is such a stream too
	supplied = "wallet"  // the caller passes the version of what it changed
)

const customer = "c-7"

// traceparent would be that of the request which the application serves.
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "append from Go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("append", flag.ContinueOnError)
	rollback := flags.Bool("rollback", false, "take the change back instead of committing it")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read arguments: %w", err)
	}
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		return errors.New("DATABASE_URL is not set: start `make run`, then `source .truegreen/env` in this shell")
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the database of DATABASE_URL (does `make run` still run?): %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()

	shop := &shop{conn: conn, out: out}
	if err := shop.createTable(ctx); err != nil {
		return err
	}
	var orderID int64
	err = shop.inTransaction(ctx, *rollback, func(tx pgx.Tx) (err error) {
		orderID, err = shop.place(ctx, tx)
		return err
	})
	if err != nil || *rollback {
		return err
	}
	return shop.inTransaction(ctx, false, func(tx pgx.Tx) error { return shop.pay(ctx, tx, orderID) })
}

// shop takes orders.
type shop struct {
	conn     *pgx.Conn
	eventIDs []string // of the transaction at hand
	out      io.Writer
}

// createTable makes the shop's table, in a database that has the outbox.
func (s *shop) createTable(ctx context.Context) error {
	var hasOutbox bool
	err := s.conn.QueryRow(ctx, `SELECT to_regprocedure('outbox_append(text, text, text, jsonb, jsonb, bigint)') IS NOT NULL`).Scan(&hasOutbox)
	if err != nil {
		return fmt.Errorf("look for outbox_append: %w", err)
	}
	if !hasOutbox {
		return errors.New("the database of DATABASE_URL has no outbox_append: `source .truegreen/env` while `make run` runs, or migrate it")
	}
	_, err = s.conn.Exec(ctx, `
		CREATE TABLE IF NOT EXISTS shop_order (
			id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			amount_minor bigint NOT NULL,
			customer text NOT NULL,
			status text NOT NULL,
			version bigint NOT NULL
		)`)
	if err != nil {
		return fmt.Errorf("create table shop_order: %w", err)
	}
	return nil
}

// inTransaction does work and ends its transaction, then tells what stayed.
func (s *shop) inTransaction(ctx context.Context, rollback bool, work func(pgx.Tx) error) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // does nothing after the commit
	s.eventIDs = nil
	if err := work(tx); err != nil {
		return err
	}
	end, ended := tx.Commit, "committed"
	if rollback {
		end, ended = tx.Rollback, "rolled back"
	}
	if err := end(ctx); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	var numStored int
	err = s.conn.QueryRow(ctx, `SELECT count(*) FROM outbox_events WHERE event_id = ANY ($1)`, s.eventIDs).Scan(&numStored)
	if err != nil {
		return fmt.Errorf("look for the events: %w", err)
	}
	_, err = fmt.Fprintf(s.out, "%s: %d of %d events are stored\n", ended, numStored, len(s.eventIDs))
	return err
}

// place inserts an order. Its version is 1, and so is the key_seq of the event.
func (s *shop) place(ctx context.Context, tx pgx.Tx) (orderID int64, err error) {
	var version int64
	err = tx.QueryRow(ctx, `
		INSERT INTO shop_order (amount_minor, customer, status, version) VALUES (1200, $1, 'placed', 1)
		RETURNING id, version`, customer).Scan(&orderID, &version)
	if err != nil {
		return 0, fmt.Errorf("insert order: %w", err)
	}
	return orderID, s.tell(ctx, tx, orderID, version, "placed")
}

// pay changes an order, and raises its version in the same statement. The row
// stays locked until the end of the transaction, so no other can take the number
// in between, or append its event before ours.
func (s *shop) pay(ctx context.Context, tx pgx.Tx, orderID int64) error {
	var version int64
	err := tx.QueryRow(ctx, `
		UPDATE shop_order SET status = 'paid', version = version + 1 WHERE id = $1
		RETURNING version`, orderID).Scan(&version)
	if err != nil {
		return fmt.Errorf("update order %d: %w", orderID, err)
	}
	return s.tell(ctx, tx, orderID, version, "paid")
}

// tell appends two events about one change. One belongs to the order, which has a
// version: it goes to a stream that takes key_seq from the caller, once per
// version. The other belongs to the customer, who has none: the outbox counts.
func (s *shop) tell(ctx context.Context, tx pgx.Tx, orderID, version int64, status string) error {
	id := strconv.FormatInt(orderID, 10)
	// Amounts and ids as strings: JSON numbers lose digits in some languages.
	err := s.appendEvent(ctx, tx, event{
		key:     "shop_order/" + id,
		keySeq:  &version,
		payload: map[string]string{"amount": "1200", "order": id, "status": status},
		stream:  supplied,
		typ:     "shop_order." + status + ".v1",
	})
	if err != nil {
		return err
	}
	return s.appendEvent(ctx, tx, event{
		key:     "shop_customer/" + customer,
		payload: map[string]string{"customer": customer, "order": id, "status": status},
		stream:  counted,
		typ:     "shop_customer.order_" + status + ".v1",
	})
}

// event is what outbox_append takes.
type event struct {
	key     string
	keySeq  *int64 // nil for a stream that counts
	payload any
	stream  string
	typ     string
}

// appendEvent stores an event in tx, and prints its id and number.
func (s *shop) appendEvent(ctx context.Context, tx pgx.Tx, e event) error {
	payload, err := json.Marshal(e.payload)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.typ, err)
	}
	var eventID string
	err = tx.QueryRow(ctx, `
		SELECT outbox_append(
			stream => $1, key => $2, type => $3, payload => $4,
			headers => jsonb_build_object('traceparent', $5::text), key_seq => $6)`,
		e.stream, e.key, e.typ, payload, traceparent, e.keySeq).Scan(&eventID)
	if err != nil {
		return fmt.Errorf("append event %s: %w", e.typ, err)
	}
	s.eventIDs = append(s.eventIDs, eventID)

	// Only to print it: an application need not know the number.
	var keySeq int64
	if err := tx.QueryRow(ctx, `SELECT key_seq FROM outbox_events WHERE event_id = $1`, eventID).Scan(&keySeq); err != nil {
		return fmt.Errorf("read event %s: %w", eventID, err)
	}
	_, err = fmt.Fprintf(s.out, "event %s  key_seq %d  stream %s  key %s  type %s\n", eventID, keySeq, e.stream, e.key, e.typ)
	return err
}
