// Package settlement decides which periods of which programmes are due, works
// out what players are owed, and credits their wallets exactly once.
//
// A run settles one period of one programme. Its state says where the process
// is, its outcome what was delivered: everything, a part, nothing although
// something was owed, or nothing because nobody was eligible, which the
// watermarks of its inputs must prove. What a run delivered is always counted
// from rows, and no run that failed to deliver ends without an error.
//
// [Service] is for people and schedulers: programmes, planning, approval, and
// what one reads. [Runner] is for jobs: it takes runs as far as they can go.
package settlement
