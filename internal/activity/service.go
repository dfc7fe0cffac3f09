package activity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

// maxAttempts is how often a transaction that collides with others is run.
const maxAttempts = 5

// Service applies lines.
type Service struct {
	queries *dbsqlc.Queries
	wallets *wallet.Service
}

// New returns a Service. It holds no state and needs no settings.
func New(wallets *wallet.Service) *Service {
	return &Service{queries: dbsqlc.New(), wallets: wallets}
}

// Result counts what became of lines. Each is counted once below NumLines.
type Result struct {
	NumApplied int64 // that changed something
	NumKnown   int64 // that were applied before, or say nothing new
	NumLines   int64
	NumRefused int64 // bets and withdrawals without funds, now stored as refused
}

func (result *Result) add(other Result) {
	result.NumApplied += other.NumApplied
	result.NumKnown += other.NumKnown
	result.NumLines += other.NumLines
	result.NumRefused += other.NumRefused
}

// MaxRefused bounds how many refused lines an import tells one by one.
const MaxRefused = 10

// Refused is a bet or withdrawal that was stored as refused.
type Refused struct {
	Amount  money.Minor // that it needed
	Balance money.Minor // that the wallet had
	ID      string
	Index   int    // of the line, from 0
	Line    int64  // its number in the file, of an import
	Player  string // code
	Type    Type   // TypeBet or TypeWithdrawal
}

// LineError says which of the lines given cannot be applied, and why.
type LineError struct {
	Err   error // of fault.KindInvalid
	Index int   // from 0
}

// Error counts lines from 1, as people do.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Index+1, e.Err) }

// Unwrap returns the reason.
func (e *LineError) Unwrap() error { return e.Err }

// Apply applies lines in their order within tx, all or nothing, exactly as if
// each were applied alone: later lines see what earlier ones did. Lines that
// were applied before change nothing. A bet or withdrawal without funds is no
// error: it is stored as refused, and stays so.
//
// It locks before it reads, first the agents where lines name any, then the
// wallets in id order, so concurrent calls on the same players wait for each
// other and do not deadlock. That holds for one Apply per transaction, before
// anything else in it locks wallets.
//
// Fails with a [LineError] of [fault.KindInvalid] that names the first line that
// cannot be applied. Whatever the failure, tx must be rolled back. One that
// [pgtx.Collides] recognises came from another transaction that made the same
// agent, player, payment, or bet meanwhile: run the transaction again, or let
// [Service.Submit] do it.
func (service *Service) Apply(ctx context.Context, tx pgx.Tx, lines []Line) (Result, error) {
	result, _, err := service.apply(ctx, tx, lines)
	return result, err
}

func (service *Service) apply(ctx context.Context, tx pgx.Tx, lines []Line) (Result, []Refused, error) {
	b := newBatch(service.queries, lines)
	if err := b.validate(); err != nil {
		return Result{}, nil, err
	}
	if err := b.load(ctx, tx, service.wallets); err != nil {
		return Result{}, nil, err
	}
	if err := b.simulate(); err != nil {
		return Result{}, nil, err
	}
	if err := b.store(ctx, tx); err != nil {
		return Result{}, nil, err
	}
	return b.result, b.refusals, nil
}

// Submit applies lines as [Service.Apply] does, in a transaction of their own,
// which is run again a few times when it collides with another.
func (service *Service) Submit(ctx context.Context, db pgtx.Beginner, lines []Line) (Result, error) {
	result, _, err := service.submit(ctx, db, lines)
	return result, err
}

func (service *Service) submit(ctx context.Context, db pgtx.Beginner, lines []Line) (Result, []Refused, error) {
	var result Result
	var refusals []Refused
	var err error
	for attempt := 1; attempt <= maxAttempts; attempt++ {
		err = pgtx.Do(ctx, db, func(tx pgx.Tx) error {
			var err error
			result, refusals, err = service.apply(ctx, tx, lines)
			return err
		})
		if err == nil {
			return result, refusals, nil
		}
		if !pgtx.Collides(err) {
			break
		}
	}
	return Result{}, nil, err
}
