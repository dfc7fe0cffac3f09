package settle_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

const (
	// childVariable turns this test binary into a process that settles.
	childVariable = "TRUEGREEN_SETTLE_CHILD"

	// proofVariable lets more processes die than a run of all tests has time for.
	proofVariable = "TRUEGREEN_PROOF"

	// numParallel is how many tests run at once: they wait for River's leader more
	// than they compute.
	numParallel = "6"

	// patience bounds every wait. It is far above what anything here takes.
	patience = 100 * time.Second

	poll = 20 * time.Millisecond // between two looks

	// idleInTransaction is how long the database leaves a silent process its locks.
	idleInTransaction = "1s"

	// rescue is how long a job may run before River takes it for dead. The worker's
	// own time, of a minute and more, must be over too: see world.bury.
	rescue = time.Minute
)

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
