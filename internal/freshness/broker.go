package freshness

import "time"

// BrokerEvidence is what this process knows of the broker for one loop that publishes.
type BrokerEvidence struct {
	Address   string        // hosts and ports, of the last failure
	AnswerAge time.Duration // since the last good answer, if Answered
	Answered  bool          // at least once as it should
	Error     string        // of the last answer; empty if that was good
	Loop      string
	NumFailed int  // answers in a row that were not good
	Refused   bool // the broker is there and refuses; otherwise it does not answer
}

// BrokerWatch shows what a process knows of its broker, at once and from memory.
type BrokerWatch interface {
	// Evidence has one entry for each loop of this process that publishes.
	Evidence() []BrokerEvidence
}

// isGood says that the broker would take the loop's events.
func (broker BrokerEvidence) isGood() bool { return broker.Answered && broker.NumFailed == 0 }

// isFailing says that the process must not count on the broker. One bad answer is a
// hiccup, unless there never was a good one.
func (broker BrokerEvidence) isFailing() bool {
	return broker.NumFailed >= failedProofsTooMany || broker.NumFailed > 0 && !broker.Answered
}

// brokerOf returns what is known of the broker for loop; false where the loop needs none.
func (evidence Evidence) brokerOf(loop string) (BrokerEvidence, bool) {
	for _, broker := range evidence.Brokers {
		if broker.Loop == loop {
			return broker, true
		}
	}
	return BrokerEvidence{}, false
}

// brokerReasons are of a broker that fails this process, whatever other processes
// achieve. What several loops have in common is one reason.
func brokerReasons(evidence Evidence) []Reason {
	var reasons []Reason
	seen := make(map[string]bool)
	for _, loop := range evidence.required() {
		broker, known := evidence.brokerOf(loop.Loop)
		if !known || !broker.isFailing() || seen[broker.Error] {
			continue
		}
		seen[broker.Error] = true
		code := CodeBrokerUnreachable
		if broker.Refused {
			code = CodeBrokerRefused
		}
		lastAnswer := "never"
		if broker.Answered {
			lastAnswer = short(broker.AnswerAge).String() + " ago"
		}
		reasons = append(reasons, newReason(code, "%s", broker.Error).
			observed("address", broker.Address).
			observed("failed_proofs", broker.NumFailed).
			observed("last_good_answer", lastAnswer))
	}
	return reasons
}

// awaitsBroker says that the broker has not answered yet for a loop of this process.
func awaitsBroker(evidence Evidence) bool {
	for _, loop := range evidence.required() {
		if broker, known := evidence.brokerOf(loop.Loop); known && !broker.Answered {
			return true
		}
	}
	return false
}
