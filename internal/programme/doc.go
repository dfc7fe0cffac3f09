// Package programme has the terms of promotions and what they pay: pure
// functions of terms and of what a player did, without a database or a clock.
//
// Terms come from a file ([Parse]) or from their stored form ([Decode]), and only
// in these ways, so that they are complete and within their bounds. What they pay
// one player for one period is worked out by [Terms.Entitle], and told step by
// step by [Terms.Explain].
//
// # Exactness
//
// Amounts are whole minor units and rates millionths. The sum that an amount is
// a share of is kept exactly, in millionths of a minor unit, however large;
// rounding happens once, downward, to the amount itself. Nothing here depends on
// the order of its input.
//
// # Kinds
//
// A rebate pays a share of turnover, a cashback of a net loss, a lossback of the
// loss after a first deposit. They differ in the basis alone: tiers, shapes, cap
// and minimum are the same for all. rules.go has what does not go together.
package programme
