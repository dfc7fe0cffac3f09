package settlement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"truegreen/internal/dbsqlc"
	"truegreen/internal/freshness"
	"truegreen/internal/pgtx"
)

// Classes of failures. A fourth, permanent, is given by the database where a wallet
// refuses.
const (
	classPoison    = "poison"    // no transaction that credits the item commits
	classTransient = "transient" // somebody was in the way; a later attempt may do
	classUnknown   = "unknown"   // not known to be either
)

// codeCountsDiffer is raised by settlement_credit_chunk: what was booked is not what
// was marked. The transaction is rolled back.
const codeCountsDiffer = "TG001"

// chunkResult counts what one chunk did.
type chunkResult struct {
	numClaimed  int
	numCredited int
}

// refusal is why items of a chunk are not credited.
type refusal struct {
	class string
	code  string
}

// deliverChunk credits the next items, or says of each why not. Everything that
// belongs to a credit is one transaction: ledger, wallet, event, item and attempt.
//
// Where a wallet is locked for too long, the chunk goes without those that are; they
// fail for now. An error that nobody expects is looked for by halves, until the items
// that cause it stand alone: they are poison, and all others are credited.
func (h *hold) deliverChunk(ctx context.Context) (chunkResult, error) {
	for {
		result, err := h.creditChunk(ctx, false)
		failed, expected := classify(err)
		if err != nil && expected && failed.class == classTransient && ctx.Err() == nil {
			result, err = h.creditChunk(ctx, true)
			failed, expected = classify(err)
		}
		switch {
		case err == nil:
			return result, h.bisection.pass(result)
		case !expected || ctx.Err() != nil:
			return chunkResult{}, err
		case failed.class == classTransient:
			// Locks were skipped, so this is rare; the items come again in the next pass.
			result, err = h.refuseChunk(ctx, failed)
			return result, errors.Join(err, h.bisection.pass(result))
		}

		h.runner.logger.ErrorContext(ctx, "settlement chunk failed for an unknown reason",
			slog.Int64("run_id", h.runID), slog.Int("num_items", h.bisection.size), slog.Any("error", err))
		alone, err := h.narrow(ctx, err)
		if err != nil {
			return chunkResult{}, err
		}
		if alone {
			failed.class = classPoison
			result, err = h.refuseChunk(ctx, failed)
			return result, errors.Join(err, h.bisection.pass(result))
		}
	}
}

// narrow halves the next chunk, and reports whether one item stood alone.
func (h *hold) narrow(ctx context.Context, cause error) (alone bool, err error) {
	var num int32
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		cursor, err := h.fence(ctx, tx, stateDelivering)
		if err != nil {
			return err
		}
		num, err = queries.SettlementItemClaimable(ctx, tx, &dbsqlc.SettlementItemClaimableParams{
			AfterPlayerID: cursor, MaxItems: int32(h.bisection.size), RunID: h.runID,
		})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("count the items of a chunk that failed: %w", errors.Join(cause, err))
	}
	return h.bisection.fail(int(num), cause)
}

// creditChunk credits the next items, in one transaction.
func (h *hold) creditChunk(ctx context.Context, skipLocked bool) (result chunkResult, err error) {
	err = h.inChunk(ctx, func(tx pgx.Tx, cursor int64) error {
		wait := dbsqlc.SettlementLockTimeoutParams{Milliseconds: fmt.Sprintf("%dms", h.runner.service.config.LockTimeout.Milliseconds())}
		if err := queries.SettlementLockTimeout(ctx, tx, &wait); err != nil {
			return fmt.Errorf("set how long to wait for locks: %w", err)
		}
		done, err := queries.SettlementItemCredit(ctx, tx, &dbsqlc.SettlementItemCreditParams{
			AfterPlayerID: cursor,
			Attempt:       h.row.SettlementRun.Attempt,
			JobID:         h.job.ID,
			MaxItems:      int32(h.bisection.size),
			RunID:         h.runID,
			SkipLocked:    skipLocked,
		})
		if err != nil {
			return fmt.Errorf("credit a chunk: %w", err)
		}
		if result, err = readDone(done); err != nil || result.numCredited == 0 {
			return err
		}
		return h.runner.recorder.Record(ctx, tx, freshness.Progress{
			Kind:     freshness.Success,
			Loop:     loopOf(h.row.ProgrammeKind),
			NumItems: result.numCredited,
		})
	})
	return result, err
}

// refuseChunk fails the items of a chunk that could not be committed.
func (h *hold) refuseChunk(ctx context.Context, failed refusal) (result chunkResult, err error) {
	err = h.inChunk(ctx, func(tx pgx.Tx, cursor int64) error {
		done, err := queries.SettlementItemRefuse(ctx, tx, &dbsqlc.SettlementItemRefuseParams{
			AfterPlayerID: cursor,
			Attempt:       h.row.SettlementRun.Attempt,
			FailureClass:  failed.class,
			FailureCode:   failed.code,
			JobID:         h.job.ID,
			MaxItems:      int32(h.bisection.size),
			RunID:         h.runID,
		})
		if err != nil {
			return fmt.Errorf("mark a chunk as failed: %w", err)
		}
		result, err = readDone(done)
		return err
	})
	return result, err
}

// inChunk runs fn in a transaction that holds the run.
func (h *hold) inChunk(ctx context.Context, fn func(tx pgx.Tx, cursor int64) error) error {
	return pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) error {
		if err := queries.SettlementCreditsBegin(ctx, tx); err != nil {
			return fmt.Errorf("tell calculations of credits in flight: %w", err)
		}
		cursor, err := h.fence(ctx, tx, stateDelivering)
		if err != nil {
			return err
		}
		return fn(tx, cursor)
	})
}

// readDone reads what settlement_credit_chunk returns.
func readDone(done []int64) (chunkResult, error) {
	if len(done) != 4 {
		return chunkResult{}, fmt.Errorf("the database tells of a chunk in %d numbers, not 4", len(done))
	}
	return chunkResult{numClaimed: int(done[0]), numCredited: int(done[1])}, nil
}

// isBookedBefore reports whether the ledger holds the reference of a credit that
// its item knows nothing of.
func isBookedBefore(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.TableName == "ledger_txn"
}

// isCountsDiffer reports a broken invariant: what was credited is not what was
// claimed.
func isCountsDiffer(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == codeCountsDiffer
}

// classify says what kind of failure ended a chunk's transaction; it is false
// for one that ends the pass, and for none. No item is to blame for a server that is
// read-only, out of disk, memory or connections, or about to stop, nor for a statement
// that an operator cancelled.
func classify(err error) (refusal, bool) {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || isBookedBefore(err) || isCountsDiffer(err) {
		return refusal{}, false
	}
	failed := refusal{class: classUnknown, code: "sqlstate_" + pgErr.Code}
	switch pgErr.Code {
	case "40001":
		failed = refusal{class: classTransient, code: "serialization_failure"}
	case "40P01":
		failed = refusal{class: classTransient, code: "deadlock"}
	case "55P03":
		failed = refusal{class: classTransient, code: "wallet_locked"}
	case "25006":
		return refusal{}, false
	}
	switch pgErr.Code[:min(2, len(pgErr.Code))] {
	case "08", "53", "57", "58":
		return refusal{}, false
	}
	return failed, true
}
