package workers

// outcome says what River should do with a job, given the error its service
// returned. It is the only place where that is decided.
//
//	nil            the service completed the job, in the transaction of its effect
//	anything else  fail: an errored attempt, retried after a delay, in the end discarded
//
// A failure is never a cancelled or snoozed job: River logs those at debug level,
// shows them to no error handler, and a snooze stores no error at all.
func outcome(err error) error { return err }
