// Package dbtest gives each test a piece of real Postgres.
//
// [Tx] is the default: a transaction that is rolled back. [Database] is for a
// test that must commit, listen, or hold two transactions; [Empty] is the same
// without the schema. [Durable] is for benchmarks, on a server that syncs.
// [Cluster] is a server of its own for a test that stops or breaks it.
//
// # The server
//
// The first test of a test binary that asks starts a private server, which the
// others share and which ends with the binary. It needs an installed PostgreSQL
// 15 or newer, or network to fetch one. Its data is in the temporary folder;
// what an earlier test binary left there is removed by the next one.
//
// To use another server, set
//
//	TRUEGREEN_TEST_DATABASE_URL=postgres://user:password@host:5432/postgres
//
// to a database of it, as a role that may create databases. The tests only
// create databases whose names start with truegreen_test_ there, and drop them;
// those of an earlier, killed run are dropped by the next one. [Durable] uses
// that server too, as it is set up; [Cluster] never does. DATABASE_URL is never
// looked at.
package dbtest
