package crash_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

const (
	// childVariable turns this test binary into a process that drains the outbox.
	childVariable = "TRUEGREEN_CRASH_CHILD"

	// proofVariable lets more processes die than a run of all tests has time for.
	proofVariable = "TRUEGREEN_PROOF"

	// numParallel is how many tests run at once: they wait for leases to end more
	// than they compute.
	numParallel = "6"

	// patience bounds every wait. It is far above what anything here takes.
	patience = 100 * time.Second

	poll = 20 * time.Millisecond // between two looks
)

const (
	// idleInTransaction is how long the database leaves a silent process its locks.
	idleInTransaction = "1s"

	// rescue is how long a job may run before it is taken for dead.
	rescue = 10 * time.Second

	// sweep is how long due events may be without a job.
	sweep = 100 * time.Millisecond
)

// tempo are the times of a process. How they relate is as in production.
type tempo struct{ ackTimeout, leaseTTL, passBudget time.Duration }

// brief is for a process that dies: its leases end soon after it.
func brief() tempo {
	return tempo{ackTimeout: 400 * time.Millisecond, leaseTTL: 700 * time.Millisecond, passBudget: 4 * time.Second}
}

// calm is for a process that is to get through also on a machine that is busy.
func calm() tempo {
	return tempo{ackTimeout: 2 * time.Second, leaseTTL: 3 * time.Second, passBudget: 8 * time.Second}
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	isGiven := false
	flag.Visit(func(given *flag.Flag) { isGiven = isGiven || given.Name == "test.parallel" })
	if !isGiven {
		if err := flag.Set("test.parallel", numParallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// times is usual, or a multiple of it in a proof.
func times(usual int) int {
	if os.Getenv(proofVariable) != "" {
		return 12 * usual
	}
	return usual
}
