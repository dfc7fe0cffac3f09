package settlement

import (
	"errors"
	"fmt"
)

// bisectBudget is how many chunks of one job may fail for unknown reasons: some
// twenty items of poison. More than that is no fault of items.
const bisectBudget = 200

// errSystemic is an error that items do not cause: nothing of a chunk can be
// credited, or more chunks fail than there can be bad items.
var errSystemic = errors.New("credits fail for a reason that lies with none of them")

// bisection narrows chunks that fail down to the items that make them fail.
type bisection struct {
	full        int // items of an undisturbed chunk
	numCredited int // within the chunk under suspicion
	numFailures int
	size        int // items of the next chunk
	suspects    int // items left of the chunk that failed; 0 for none
	total       int // items it had
}

func newBisection(full int) *bisection { return &bisection{full: full, size: full} }

// fail notes that the next num items could not be credited together, and reports
// whether that was one item alone.
func (b *bisection) fail(num int, cause error) (alone bool, err error) {
	b.numFailures++
	if b.numFailures > bisectBudget {
		return false, fmt.Errorf("%w: %d transactions of one job failed, at last: %w", errSystemic, b.numFailures, cause)
	}
	if b.suspects == 0 {
		b.suspects, b.total, b.numCredited = num, num, 0
	}
	if num <= 1 {
		b.size = 1
		return true, nil
	}
	b.size = (num + 1) / 2
	return false, nil
}

// pass notes that a chunk was dealt with. Fails once nothing of the chunk under
// suspicion could be credited, if it had several items.
func (b *bisection) pass(done chunkResult) error {
	if b.suspects == 0 {
		return nil
	}
	b.suspects -= done.numClaimed
	b.numCredited += done.numCredited
	if b.suspects > 0 {
		b.size = min(2*b.size, b.suspects)
		return nil
	}
	b.suspects, b.size = 0, b.full
	if b.numCredited == 0 && b.total > 1 {
		return fmt.Errorf("%w: none of %d could be credited", errSystemic, b.total)
	}
	return nil
}
