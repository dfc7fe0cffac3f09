// Package anomaly runs everything that the system does with one thing going
// wrong at a time: the first statement fails, then the second, and so on until
// the operation runs through undisturbed; then answers to commits get lost,
// connections are cut, and contexts are cancelled.
//
// After each: the error was returned and names the step, or the effect is
// complete; no job is completed and no loop succeeded without the effect; the
// books are true; and an undisturbed second run finishes the work.
//
// Read loop_test.go first. enrolled_test.go fails for a kind of job, a command or
// a probe that has no case here.
package anomaly
