// Package programme has the terms of promotions and what they pay: pure
// functions of terms and of what a player did, without a database or a clock.
//
// Terms come from a file ([Parse]) or from their stored form ([Decode]), and only
// in these ways, so that they are complete and within their bounds. What they pay
// one player for one period is worked out by [Terms.Entitle].
//
// # Exactness
//
// Amounts are whole minor units and rates millionths. The sum that an amount is
// a share of is kept exactly, in millionths of a minor unit, however large;
// rounding happens once, downward, to the amount itself. Nothing here depends on
// the order of its input.
//
// # What is built
//
// Cashback on lost games, by the tier that the player's VIP level or the loss
// reaches. The file format knows more; unsupported.go has the list of what this
// version refuses.
package programme
