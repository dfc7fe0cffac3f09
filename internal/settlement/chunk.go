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
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/wallet"
)

// Classes of failures.
const (
	classPermanent = "permanent" // the wallet refuses; a person must change something
	classTransient = "transient" // somebody was in the way; a later attempt may do
	classUnknown   = "unknown"   // tried again like a transient one, and alarmed
)

// Deliveries of an item.
const (
	deliveryCredited = "credited"
	deliveryFailed   = "failed"
	deliveryWithheld = "withheld"
)

// errCountsDiffer is a broken invariant: what was credited is not what was
// claimed. The transaction that finds it is rolled back.
var errCountsDiffer = errors.New("the credited items are not those that were booked")

// chunkResult counts what one chunk did.
type chunkResult struct {
	numClaimed  int
	numCredited int
}

// refusal is why an item is not credited.
type refusal struct {
	class    string // of a failure
	code     string
	delivery string // failed or withheld
}

// deliverChunk credits the next items, or says of each why not. Everything that
// belongs to a credit is one transaction: ledger, wallet, event, item and
// attempt. A chunk that fails as a whole fails its items, for now, and the pass
// goes on behind it.
func (h *hold) deliverChunk(ctx context.Context) (chunkResult, error) {
	var result chunkResult
	err := pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) (err error) {
		result, err = h.creditChunk(ctx, tx)
		return err
	})
	if err == nil {
		return result, nil
	}
	failed, ok := classify(err)
	if !ok || ctx.Err() != nil {
		return chunkResult{}, err
	}
	if failed.class == classUnknown {
		h.runner.logger.ErrorContext(ctx, "settlement chunk failed for an unknown reason",
			slog.Int64("run_id", h.runID), slog.Any("error", err))
	}
	err = pgtx.Do(ctx, h.runner.service.pool, func(tx pgx.Tx) (err error) {
		result, err = h.refuseChunk(ctx, tx, failed)
		return err
	})
	return result, err
}

// creditChunk claims items and credits those that nothing speaks against.
func (h *hold) creditChunk(ctx context.Context, tx pgx.Tx) (chunkResult, error) {
	items, err := h.claim(ctx, tx)
	if err != nil || len(items) == 0 {
		return chunkResult{}, err
	}
	book, statuses, err := h.lockWallets(ctx, tx, items)
	if err != nil {
		return chunkResult{}, err
	}
	refusals := make(map[int64]refusal)
	var credited []int64
	var sum money.Minor
	for _, item := range items {
		if refused, ok := refusedByStatus(statuses[item.PlayerID]); ok {
			refusals[item.ID] = refused
			continue
		}
		refused, ok, err := h.move(book, item)
		if err != nil {
			return chunkResult{}, err
		}
		if ok {
			refusals[item.ID] = refused
			continue
		}
		credited = append(credited, item.ID)
		if sum, err = sum.Add(money.Minor(item.AmountMinor)); err != nil {
			return chunkResult{}, fmt.Errorf("sum up a chunk: %w", err)
		}
	}
	if err := h.store(ctx, tx, book, &chunk{credited: credited, items: items, refusals: refusals, sum: sum}); err != nil {
		return chunkResult{}, err
	}
	return chunkResult{numClaimed: len(items), numCredited: len(credited)}, nil
}

// lockWallets locks the wallets of all claimed items, and reads the players'
// statuses behind the locks: whoever changes a status holds the player's wallet,
// so none can change between this look and the commit.
func (h *hold) lockWallets(
	ctx context.Context, tx pgx.Tx, items []*dbsqlc.SettlementItemClaimRow,
) (*wallet.Book, map[int64]string, error) {
	players := make([]string, len(items))
	ids := make([]int64, len(items))
	for i, item := range items {
		players[i], ids[i] = item.Player, item.PlayerID
	}
	var pipeline pgtx.Pipeline
	wait := dbsqlc.SettlementLockTimeoutParams{Milliseconds: fmt.Sprintf("%dms", h.runner.service.config.LockTimeout.Milliseconds())}
	if err := queries.SettlementLockTimeout(ctx, pipeline.Step("set how long to wait for locks", pgtx.AnyRows), &wait); err != nil {
		return nil, nil, err
	}
	book, err := h.runner.wallets.Lock(ctx, &pipeline, wallet.Owners{Players: players})
	if err != nil {
		return nil, nil, err
	}
	var rows []*dbsqlc.PlayerStatusFindRow
	params := dbsqlc.PlayerStatusFindParams{Ids: ids}
	err = pipeline.Ask("read statuses of players", func(db pgtx.DB) (err error) {
		rows, err = queries.PlayerStatusFind(ctx, db, &params)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := pipeline.Send(ctx, tx); err != nil {
		return nil, nil, err
	}
	statuses := make(map[int64]string, len(rows))
	for _, row := range rows {
		statuses[row.ID] = row.Status
	}
	return book, statuses, nil
}

// claim locks the run and returns its next undelivered items.
func (h *hold) claim(ctx context.Context, tx pgx.Tx) ([]*dbsqlc.SettlementItemClaimRow, error) {
	config := &h.runner.service.config
	if err := queries.SettlementCreditsBegin(ctx, tx); err != nil {
		return nil, fmt.Errorf("tell calculations of credits in flight: %w", err)
	}
	cursor, err := h.fence(ctx, tx, stateDelivering)
	if err != nil {
		return nil, err
	}
	var pipeline pgtx.Pipeline
	var items []*dbsqlc.SettlementItemClaimRow
	params := dbsqlc.SettlementItemClaimParams{AfterPlayerID: cursor, MaxItems: int32(config.ChunkSize), RunID: h.runID}
	ordered, asItLikes := dbsqlc.SettlementItemPlanClaimParams{Setting: "off"}, dbsqlc.SettlementItemPlanClaimParams{Setting: "on"}
	if err := queries.SettlementItemPlanClaim(ctx, pipeline.Step("set up planner", pgtx.AnyRows), &ordered); err != nil {
		return nil, err
	}
	err = pipeline.Ask("claim items", func(db pgtx.DB) (err error) {
		items, err = queries.SettlementItemClaim(ctx, db, &params)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := queries.SettlementItemPlanClaim(ctx, pipeline.Step("set up planner", pgtx.AnyRows), &asItLikes); err != nil {
		return nil, err
	}
	if err := pipeline.Send(ctx, tx); err != nil {
		return nil, err
	}
	return items, nil
}

// refusedByStatus says what a player's status does to a credit.
func refusedByStatus(status string) (refusal, bool) {
	switch status {
	case "active":
		return refusal{}, false
	case "self_excluded":
		// By law, so it is no failure of ours, and nobody is to try again.
		return refusal{code: "self_excluded", delivery: deliveryWithheld}, true
	default:
		return refusal{class: classPermanent, code: "wallet_" + status, delivery: deliveryFailed}, true
	}
}

// move books a credit in memory, or says why it can't be.
func (h *hold) move(book *wallet.Book, item *dbsqlc.SettlementItemClaimRow) (refusal, bool, error) {
	account := book.Account(item.Player)
	if account == nil || account.Currency() != item.Currency {
		return refusal{class: classPermanent, code: "wallet_missing", delivery: deliveryFailed}, true, nil
	}
	err := book.Move(account, wallet.Movement{
		Amount:    money.Minor(item.AmountMinor),
		Kind:      wallet.KindCredit,
		Reference: reference(h.row.Code, h.row.Key, item.Player, item.Currency, item.Adj),
	})
	if errors.Is(err, money.ErrOverflow) {
		return refusal{class: classPermanent, code: "balance_too_large", delivery: deliveryFailed}, true, nil
	}
	if err != nil {
		return refusal{}, false, fmt.Errorf("credit player %s: %w", item.Player, err)
	}
	return refusal{}, false, nil
}

// reference is that of a credit in the ledger. No run is part of it, so that no
// rerun can pay again. settlement_reference says the same in SQL.
func reference(code, period, player, currency string, adj int32) string {
	return fmt.Sprintf("settle/%s/%s/%s/%s/%d", code, period, player, currency, adj)
}

// chunk is what became of the items of one transaction.
type chunk struct {
	credited []int64
	items    []*dbsqlc.SettlementItemClaimRow
	refusals map[int64]refusal
	sum      money.Minor
}

// store writes what was decided, and checks that the items that it marks are
// those that it booked.
func (h *hold) store(ctx context.Context, tx pgx.Tx, book *wallet.Book, c *chunk) error {
	var pipeline pgtx.Pipeline
	if err := book.Flush(ctx, &pipeline); err != nil {
		return err
	}
	var marked []*dbsqlc.SettlementItemCreditRow
	if len(c.credited) > 0 {
		params := dbsqlc.SettlementItemCreditParams{Ids: c.credited}
		err := pipeline.Ask("mark items as credited", func(db pgtx.DB) (err error) {
			marked, err = queries.SettlementItemCredit(ctx, db, &params)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := h.storeAttempts(ctx, &pipeline, c); err != nil {
		return err
	}
	advance := dbsqlc.SettlementRunAdvanceParams{CursorPlayerID: c.items[len(c.items)-1].PlayerID, ID: h.runID}
	if err := queries.SettlementRunAdvance(ctx, pipeline.Step("note how far the pass has come", 1), &advance); err != nil {
		return err
	}
	if err := pipeline.Send(ctx, tx); err != nil {
		return fmt.Errorf("deliver %d credits: %w", len(c.credited), err)
	}
	if len(c.credited) == 0 {
		return nil
	}
	if len(marked) != 1 || marked[0].NumCredited != int64(len(c.credited)) || marked[0].CreditedMinor != int64(c.sum) {
		return errCountsDiffer
	}
	return h.runner.recorder.Record(ctx, tx, freshness.Progress{
		Kind:     freshness.Success,
		Loop:     loopOf(h.row.ProgrammeKind),
		NumItems: len(c.credited),
	})
}

// storeAttempts records what came of each item.
func (h *hold) storeAttempts(ctx context.Context, pipeline *pgtx.Pipeline, c *chunk) error {
	attempts := dbsqlc.SettlementAttemptInsertParams{Attempt: h.row.SettlementRun.Attempt, JobID: h.job.ID, RunID: h.runID}
	var refused dbsqlc.SettlementItemRefuseParams
	for _, item := range c.items {
		outcome := refusal{delivery: deliveryCredited}
		if found, ok := c.refusals[item.ID]; ok {
			outcome = found
			refused.Classes = append(refused.Classes, found.class)
			refused.Codes = append(refused.Codes, found.code)
			refused.Deliveries = append(refused.Deliveries, found.delivery)
			refused.Ids = append(refused.Ids, item.ID)
		}
		attempts.Classes = append(attempts.Classes, outcome.class)
		attempts.Codes = append(attempts.Codes, outcome.code)
		attempts.ItemIds = append(attempts.ItemIds, item.ID)
		attempts.Results = append(attempts.Results, outcome.delivery)
	}
	if n := len(refused.Ids); n > 0 {
		step := pipeline.Step(fmt.Sprintf("mark %d items as refused", n), n)
		if err := queries.SettlementItemRefuse(ctx, step, &refused); err != nil {
			return err
		}
	}
	n := len(c.items)
	return queries.SettlementAttemptInsert(ctx, pipeline.Step(fmt.Sprintf("record %d attempts", n), n), &attempts)
}

// refuseChunk fails the items of a chunk that could not be committed.
func (h *hold) refuseChunk(ctx context.Context, tx pgx.Tx, failed refusal) (chunkResult, error) {
	items, err := h.claim(ctx, tx)
	if err != nil || len(items) == 0 {
		return chunkResult{}, err
	}
	refusals := make(map[int64]refusal, len(items))
	for _, item := range items {
		refusals[item.ID] = failed
	}
	err = h.store(ctx, tx, h.runner.wallets.NewBook(), &chunk{items: items, refusals: refusals})
	return chunkResult{numClaimed: len(items)}, err
}

// isBookedBefore reports whether the ledger holds the reference of a credit that
// its item knows nothing of.
func isBookedBefore(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.TableName == "ledger_txn"
}

// classify says what kind of failure ended a chunk's transaction; it is false
// for one that ends the pass, such as a lost connection.
func classify(err error) (refusal, bool) {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || isBookedBefore(err) {
		return refusal{}, false
	}
	failed := refusal{class: classUnknown, code: "sqlstate_" + pgErr.Code, delivery: deliveryFailed}
	switch pgErr.Code {
	case "40001":
		failed.class, failed.code = classTransient, "serialization_failure"
	case "40P01":
		failed.class, failed.code = classTransient, "deadlock"
	case "55P03":
		failed.class, failed.code = classTransient, "wallet_locked"
	case "25006", "57014", "57P01", "57P02", "57P03":
		// The server stops, is read-only, or somebody cancelled the statement.
		return refusal{}, false
	}
	return failed, true
}
