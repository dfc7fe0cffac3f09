package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"truegreen/internal/freshness"
)

// BrokerError says why a broker would not take the events of a stream now.
type BrokerError struct {
	Address string // hosts and ports, without credentials
	Err     error  // the cause
	// Refused: the broker is there and refuses (credentials, permissions, a stream that is
	// missing or not as provisioned). Otherwise it does not answer.
	Refused bool
}

// Error names the broker and the cause.
func (e *BrokerError) Error() string {
	if e.Refused {
		return fmt.Sprintf("the broker at %s refuses: %s", e.Address, e.Err)
	}
	return fmt.Sprintf("the broker at %s does not answer: %s", e.Address, e.Err)
}

// Unwrap returns the cause.
func (e *BrokerError) Unwrap() error { return e.Err }

// Prover knows whether the broker would take this process's events. It asks for each
// stream at most once per interval, and not while the broker acknowledges the stream's
// events. An idle pass rests on it, and so does readiness: see [Prover.Evidence].
//
// It may be used from many goroutines.
type Prover struct {
	ask      func(ctx context.Context, stream Stream) error
	interval time.Duration
	read     func(ctx context.Context) ([]Stream, error)
	timeout  time.Duration

	mu         sync.Mutex
	answeredAt time.Time // the last good answer for any stream
	proofs     map[string]*proof
}

// proof is what is known of one stream. Its fields but asking belong to Prover.mu.
type proof struct {
	asking     sync.Mutex // held while the broker is asked
	answeredAt time.Time  // the last good answer; zero for none
	askedAt    time.Time  // the last answer of either kind; zero for none
	err        error      // the last answer; nil if it was good
	numFailed  int        // in a row
	stream     Stream     // as last read
}

func newProver(publisher Publisher, config Config, read func(ctx context.Context) ([]Stream, error)) *Prover {
	return &Prover{
		ask:      publisher.Prove,
		interval: config.ProofInterval,
		proofs:   make(map[string]*proof),
		read:     read,
		timeout:  config.AckTimeout,
	}
}

// Prove returns nil if the broker would take events of stream, by what it said within the
// last interval; it is asked if that is nothing. Else it fails with a [BrokerError], or
// with the error of ctx.
func (prover *Prover) Prove(ctx context.Context, stream Stream) error {
	known := prover.proof(stream)
	known.asking.Lock()
	defer known.asking.Unlock()
	if isFresh, err := prover.last(known); isFresh {
		return err
	}
	askCtx, cancel := context.WithTimeout(ctx, prover.timeout)
	defer cancel()
	askedAt := time.Now()
	err := prover.ask(askCtx, prover.current(known))
	if ctx.Err() != nil {
		return fmt.Errorf("ask the broker: %w", context.Cause(ctx)) // the process stops: this says nothing
	}
	return prover.note(known, askedAt, err)
}

func (prover *Prover) proof(stream Stream) *proof {
	prover.mu.Lock()
	defer prover.mu.Unlock()
	known := prover.proofs[stream.Name]
	if known == nil {
		known = &proof{stream: stream}
		prover.proofs[stream.Name] = known
	}
	return known
}

// last returns whether the last answer is younger than the interval, and the answer.
func (prover *Prover) last(known *proof) (isFresh bool, answer error) {
	prover.mu.Lock()
	defer prover.mu.Unlock()
	return time.Since(known.askedAt) < prover.interval, known.err
}

func (prover *Prover) current(known *proof) Stream {
	prover.mu.Lock()
	defer prover.mu.Unlock()
	return known.stream
}

// note keeps the answer to what was asked at askedAt. No answer counts for nothing where
// the broker answered something else since: then it is slow, and not away.
func (prover *Prover) note(known *proof, askedAt time.Time, err error) error {
	prover.mu.Lock()
	defer prover.mu.Unlock()
	known.askedAt = time.Now()
	var refusal *BrokerError
	isRefusal := errors.As(err, &refusal) && refusal.Refused
	if err != nil && !isRefusal && prover.answeredAt.After(askedAt) {
		return known.err
	}
	known.err = err
	if err != nil {
		known.numFailed++
		return err
	}
	known.answeredAt, known.numFailed = known.askedAt, 0
	prover.answeredAt = known.askedAt
	return nil
}

// acknowledged notes that the broker took events of stream.
func (prover *Prover) acknowledged(stream Stream) {
	_ = prover.note(prover.proof(stream), time.Now(), nil)
}

// Run keeps the proofs of streams fresh until ctx is done, so that each process has its
// own, whether or not it gets a pass. It logs when the broker fails a stream, and when it
// is good again.
func (prover *Prover) Run(ctx context.Context, logger *slog.Logger, streams []Stream) {
	var watches sync.WaitGroup
	for _, stream := range streams {
		watches.Go(func() { prover.watch(ctx, logger, stream) })
	}
	watches.Wait()
}

func (prover *Prover) watch(ctx context.Context, logger *slog.Logger, stream Stream) {
	known, failing := prover.proof(stream), ""
	for {
		err := prover.Prove(ctx, stream)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && err.Error() != failing:
			failing = err.Error()
			logger.WarnContext(ctx, "broker proof failed", slog.Any("error", err), slog.String("stream", stream.Name))
		case err == nil && failing != "":
			failing = ""
			logger.InfoContext(ctx, "broker proof succeeded again", slog.String("stream", stream.Name))
		}
		if err != nil {
			prover.refresh(ctx) // the stream may be provisioned otherwise by now
		}
		if wait(ctx, prover.untilStale(known)) != nil {
			return
		}
	}
}

// refresh reads what the streams are provisioned for. What cannot be read stays.
func (prover *Prover) refresh(ctx context.Context) {
	streams, err := prover.read(ctx)
	if err != nil {
		return
	}
	prover.mu.Lock()
	defer prover.mu.Unlock()
	for _, stream := range streams {
		if known := prover.proofs[stream.Name]; known != nil {
			known.stream = stream
		}
	}
}

// untilStale is how long the last answer still counts.
func (prover *Prover) untilStale(known *proof) time.Duration {
	prover.mu.Lock()
	defer prover.mu.Unlock()
	return prover.interval - time.Since(known.askedAt)
}

// Evidence returns what this process knows of the broker for each of streams.
func (prover *Prover) Evidence(streams []Stream) []freshness.BrokerEvidence {
	evidence := make([]freshness.BrokerEvidence, 0, len(streams))
	for _, stream := range streams {
		known := prover.proof(stream)
		prover.mu.Lock()
		one := freshness.BrokerEvidence{
			AnswerAge: time.Since(known.answeredAt),
			Answered:  !known.answeredAt.IsZero(),
			Loop:      stream.Loop(),
			NumFailed: known.numFailed,
		}
		if known.err != nil {
			one.Error = known.err.Error()
		}
		var failure *BrokerError
		if errors.As(known.err, &failure) {
			one.Address, one.Refused = failure.Address, failure.Refused
		}
		prover.mu.Unlock()
		evidence = append(evidence, one)
	}
	return evidence
}
