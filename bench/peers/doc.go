// Package peers holds the benchmarks behind `make bench/peers`: the outbox relay
// beside other ways to get rows of Postgres to JetStream. It is a module of its
// own, so that the libraries of the others are no dependencies of Truegreen.
package peers
