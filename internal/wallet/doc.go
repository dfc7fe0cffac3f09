// Package wallet keeps players' balances: a double-entry ledger, a wallet per
// player over it, and the events that tell others.
//
// Everything that moves money goes through a [Book]: lock the wallets, move
// money in memory, flush. A flush writes ledger, wallets, and events in the
// caller's transaction with a few statements, however many movements there are.
//
// Each movement raises its wallet's version by one and appends one event with
// that version as its sequence number, so a consumer of the wallet stream sees
// every change of a balance, in order, without gaps.
package wallet
