// Package sample invents the activity of a gaming platform: agents on three
// levels, players with few whales among many casual ones, their payments, and
// their bets from the stake to the result. It is for demonstrations, load, and
// tests; nothing in it is about real people.
//
// [Write] streams one closed span of time as JSON Lines. It is a simulation in
// order of time that keeps each player's balance as the ledger will: whoever
// imports the lines gets no error, and ends with the very same balances. Only
// the pending events are held in memory, about one per player and open bet.
//
// [Live] goes on from there at the pace of the clock, for as long as it is
// asked.
//
// Amounts are whole minor units throughout. Floats shape only how often and how
// much, and are rounded to whole milliseconds and chips where they arise.
package sample
