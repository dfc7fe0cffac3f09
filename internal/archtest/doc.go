// Package archtest has no code of its own, only tests that keep the shape of the
// house: who may import whom, and a few rules of form that no linter knows.
//
// The floors are in floors_test.go. A new package gets its place there first.
package archtest
