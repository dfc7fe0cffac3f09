// Package pgconnect opens every connection of the product to Postgres, in one
// way: pools, single connections and the one that migrates read the same URL with
// the same rules.
//
// Nothing is left to what a server, database or role happens to default to.
// After connecting, and before anybody uses the connection, it asks for what the
// product relies on: see sessionSettings. What cannot be had is an error that
// names the setting.
//
// Settings are asked for by statements and not in the startup packet, since a
// connection pooler such as PgBouncer refuses startup parameters that it does not
// know. A pooler that gives each transaction another server connection loses them
// again, so [Database.Check] refuses one.
package pgconnect
