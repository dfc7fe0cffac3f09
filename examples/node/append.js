// An application with a table of its own, shop_order. It appends events to the
// outbox in the transactions that change the table, so that an event is published
// if, and only if, its change was committed.
//
// It needs DATABASE_URL. With --rollback it takes its change back and shows that
// nothing stays of the events either.
import { parseArgs } from "node:util";
import pg from "pg";

// Streams of the outbox, by who numbers the events of a key.
const COUNTED = "rolling"; // the outbox counts; agent is such a stream too
const SUPPLIED = "wallet"; // the caller passes the version of what it changed

const CUSTOMER = "c-7";

// It would be that of the request which the application serves.
const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async function main() {
  const { values } = parseArgs({ options: { rollback: { type: "boolean", default: false } } });
  if (!process.env.DATABASE_URL) {
    throw new Error("DATABASE_URL is not set: start `make run`, then `source .truegreen/env` in this shell");
  }
  const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
  try {
    await client.connect();
  } catch (error) {
    throw new Error(`connect to the database of DATABASE_URL (does \`make run\` still run?): ${explain(error)}`);
  }
  try {
    await createTable(client);
    let orderID;
    await inTransaction(client, values.rollback, async (eventIDs) => {
      orderID = await place(client, eventIDs);
    });
    if (!values.rollback) {
      await inTransaction(client, false, (eventIDs) => pay(client, eventIDs, orderID));
    }
  } finally {
    await client.end();
  }
}

// Makes the shop's table, in a database that has the outbox.
async function createTable(client) {
  const found = await client.query(
    "SELECT to_regprocedure('outbox_append(text, text, text, jsonb, jsonb, bigint)') IS NOT NULL AS has_outbox",
  );
  if (!found.rows[0].has_outbox) {
    throw new Error(
      "the database of DATABASE_URL has no outbox_append: `source .truegreen/env` while `make run` runs, or migrate it",
    );
  }
  await client.query(`
    CREATE TABLE IF NOT EXISTS shop_order (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      amount_minor bigint NOT NULL,
      customer text NOT NULL,
      status text NOT NULL,
      version bigint NOT NULL
    )`);
}

// Does work and ends its transaction, then tells what stayed. All statements of a
// transaction need the same client: pool.query would take any connection.
async function inTransaction(client, rollback, work) {
  const eventIDs = [];
  await client.query("BEGIN");
  try {
    await work(eventIDs);
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {}); // what went wrong first is what counts
    throw error;
  }
  await client.query(rollback ? "ROLLBACK" : "COMMIT");
  const stored = await client.query("SELECT count(*) AS num FROM outbox_events WHERE event_id = ANY ($1)", [eventIDs]);
  console.log(`${rollback ? "rolled back" : "committed"}: ${stored.rows[0].num} of ${eventIDs.length} events are stored`);
}

// Inserts an order. Its version is 1, and so is the key_seq of the event.
async function place(client, eventIDs) {
  const inserted = await client.query(
    `INSERT INTO shop_order (amount_minor, customer, status, version) VALUES (1200, $1, 'placed', 1)
     RETURNING id, version`,
    [CUSTOMER],
  );
  const { id, version } = inserted.rows[0]; // bigint comes as a string, and can go back as one
  await tell(client, eventIDs, id, version, "placed");
  return id;
}

// Changes an order, and raises its version in the same statement. The row stays
// locked until the end of the transaction, so no other can take the number in
// between, or append its event before ours.
async function pay(client, eventIDs, orderID) {
  const updated = await client.query(
    `UPDATE shop_order SET status = 'paid', version = version + 1 WHERE id = $1
     RETURNING version`,
    [orderID],
  );
  await tell(client, eventIDs, orderID, updated.rows[0].version, "paid");
}

// Appends two events about one change. One belongs to the order, which has a
// version: it goes to a stream that takes key_seq from the caller, once per
// version. The other belongs to the customer, who has none: the outbox counts.
async function tell(client, eventIDs, orderID, version, status) {
  // Amounts and ids as strings: JSON numbers lose digits in some languages.
  await append(client, eventIDs, {
    key: `shop_order/${orderID}`,
    keySeq: version,
    payload: { amount: "1200", order: orderID, status },
    stream: SUPPLIED,
    type: `shop_order.${status}.v1`,
  });
  await append(client, eventIDs, {
    key: `shop_customer/${CUSTOMER}`,
    keySeq: null,
    payload: { customer: CUSTOMER, order: orderID, status },
    stream: COUNTED,
    type: `shop_customer.order_${status}.v1`,
  });
}

// Stores an event in the client's transaction, and prints its id and number.
async function append(client, eventIDs, { key, keySeq, payload, stream, type }) {
  // JSON as text: pg would make an array of Postgres of a JavaScript array.
  const appended = await client.query(
    `SELECT outbox_append(
       stream => $1, key => $2, type => $3, payload => $4,
       headers => jsonb_build_object('traceparent', $5::text), key_seq => $6) AS event_id`,
    [stream, key, type, JSON.stringify(payload), TRACEPARENT, keySeq],
  );
  const eventID = appended.rows[0].event_id;
  eventIDs.push(eventID);

  // Only to print it: an application need not know the number.
  const stored = await client.query("SELECT key_seq FROM outbox_events WHERE event_id = $1", [eventID]);
  console.log(`event ${eventID}  key_seq ${stored.rows[0].key_seq}  stream ${stream}  key ${key}  type ${type}`);
}

function explain(error) {
  // A connection that was tried at several addresses has no message of its own.
  return error.message || (error.errors ?? []).map((one) => one.message).join("; ");
}

main().catch((error) => {
  console.error(`append from Node: ${explain(error)}`);
  process.exitCode = 1;
});
