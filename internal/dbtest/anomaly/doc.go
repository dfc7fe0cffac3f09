// Package anomaly disturbs what passes between the product and Postgres: it
// fails the k-th statement, loses the answer to it, cuts the connection before
// it, or cancels the caller's context when it arrives.
//
// A [Proxy] stands between the two and speaks Postgres's protocol, so that it
// reaches everything alike: pools, River, migrations, commands, statements in a
// batch, prepared statements, and COPY. A failure is one that the server itself
// raised: an open transaction is aborted, as it would be by a full disk.
//
// The package is imported by tests only.
package anomaly
