// Package devstack runs what Truegreen needs on one machine without asking for
// an installation: a private Postgres server and a NATS server with JetStream.
// `truegreen dev` and the tests use it; production never does.
//
// Postgres is a child process with a cluster of its own, found in the data
// folder and reachable on 127.0.0.1 only, with a generated password. NATS runs
// inside the calling process. Both keep their data between starts, both die
// with the process that started them however it ends, and the next start needs
// no help: what a killed process left behind is recognised and cleared.
//
// Everything in the data folder carries a marker. A folder that is not empty
// and has no marker is never written to and never removed.
package devstack
