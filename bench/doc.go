// Package bench holds the benchmarks behind `make bench`. Each measures its
// rivals in the same run, in turns, and reports medians and ratios: figures of
// one machine on one day are no promise, ratios travel better.
package bench
