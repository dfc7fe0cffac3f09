package settlement_test

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/activity"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
	"truegreen/internal/wallet"
)

const (
	// usualWorlds are settled by each run of all tests, more of them by a proof.
	usualWorlds  = 14
	proofWorlds  = 400
	proofSetting = "TRUEGREEN_PROOF"
)

// manner is how a world is imported and settled, which must make no difference.
type manner struct {
	again       bool   // all lines are imported once more before each settlement
	batchSize   int    // lines in one transaction
	chunkSize   int    // credits in one transaction
	cuts        bool   // connections are cut while runs are settled
	maxAttempts int    // of runs
	numClients  int    // that work the queues
	numFiles    int    // per step
	order       uint64 // in which the players' lines are mixed
	together    bool   // the files are imported at once, each with players of its own
}

func usualManner(seed uint64) manner {
	return manner{batchSize: 20 + int(seed*37%500), chunkSize: 1 + int(seed*7%40), maxAttempts: 2, numClients: 1, numFiles: 1, order: seed}
}

// TestRunner_Work_Reference settles random activity by random programmes of all kinds
// and compares what everybody gets, and why not more, with a second calculation.
func TestRunner_Work_Reference(t *testing.T) {
	t.Parallel()

	numWorlds := uint64(usualWorlds)
	if os.Getenv(proofSetting) != "" {
		numWorlds = proofWorlds
	}
	for seed := range numWorlds {
		t.Run("World"+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			newWorld(seed).replay(ctx, t, usualManner(seed))
		})
	}
}

// replay lets a world happen in a database, and compares it with the reference after
// each step.
func (w *world) replay(ctx context.Context, t *testing.T, how manner) *testBundle {
	t.Helper()
	config := quickConfig()
	config.ChunkSize = how.chunkSize
	bundle := setup(ctx, t, config)
	for _, o := range w.offers {
		for _, d := range o.deals {
			bundle.programme(ctx, t, o.yaml(d, how.maxAttempts))
		}
		if o.inForce(o.spans[0]) == nil {
			_, err := bundle.service.Plan(ctx, o.code, o.spans[0].key, "person")
			require.ErrorContains(t, err, "no approved version was in force")
		}
	}
	if how.cuts {
		bundle.cutConnections(ctx, t)
	}
	bundle.work(ctx, t)
	for number := range how.numClients - 1 {
		bundle.workBeside(ctx, t, fmt.Sprintf("beside-%d", number))
	}
	runs := make(map[string][]int64)
	mix := rand.New(rand.NewPCG(how.order, 7))
	for number, step := range w.steps {
		bundle.importLines(ctx, t, mix, step.lines, how)
		if how.again && step.settled != nil {
			for _, before := range w.steps[:number] {
				bundle.importLines(ctx, t, mix, before.lines, how)
			}
		}
		if len(step.gifts) > 0 {
			bundle.give(ctx, t, step.gifts)
		}
		bundle.settleRound(ctx, t, step.settled, runs)
		bundle.amendRound(ctx, t, step.amended, runs)
	}
	bundle.requireBalances(ctx, t, w.books)
	bundle.requireTrueBooks(ctx, t)
	return bundle
}

// importLines imports the lines of all players, mixed.
func (bundle *testBundle) importLines(ctx context.Context, t *testing.T, mix *rand.Rand, lines [][]string, how manner) {
	t.Helper()
	var files [][]string
	if how.together {
		for number := range how.numFiles {
			var ofSome [][]string
			for i := number; i < len(lines); i += how.numFiles {
				ofSome = append(ofSome, lines[i])
			}
			files = append(files, mixed(mix, ofSome))
		}
	} else {
		all := mixed(mix, lines)
		for number := range how.numFiles {
			files = append(files, all[len(all)*number/how.numFiles:len(all)*(number+1)/how.numFiles])
		}
	}
	var group errgroup.Group
	if !how.together {
		group.SetLimit(1)
	}
	for number, file := range files {
		group.Go(func() error {
			_, err := activity.New(wallet.New()).Import(ctx, bundle.db.Pool, strconv.Itoa(number), text(file), activity.ImportOptions{BatchSize: how.batchSize})
			return err
		})
	}
	require.NoError(t, group.Wait())
}

func text(lines []string) *strings.Reader { return strings.NewReader(strings.Join(lines, "\n")) }

// mixed brings sequences into one, each in its own order.
func mixed(mix *rand.Rand, sequences [][]string) []string {
	var open [][]string
	for _, sequence := range sequences {
		if len(sequence) > 0 {
			open = append(open, sequence)
		}
	}
	var all []string
	for len(open) > 0 {
		place := mix.IntN(len(open))
		all = append(all, open[place][0])
		if open[place] = open[place][1:]; len(open[place]) == 0 {
			open = append(open[:place], open[place+1:]...)
		}
	}
	return all
}

// give books promotion credits, as other settlements did in their time.
func (bundle *testBundle) give(ctx context.Context, t *testing.T, gifts []gift) {
	t.Helper()
	var players []string
	for _, g := range gifts {
		players = append(players, g.player)
	}
	require.NoError(t, pgtx.Do(ctx, bundle.db.Pool, func(tx pgx.Tx) error {
		var lock, flush pgtx.Pipeline
		book, err := wallet.New().Lock(ctx, &lock, wallet.Owners{Players: players})
		require.NoError(t, err)
		require.NoError(t, lock.Send(ctx, tx))
		for i, g := range gifts {
			require.NoError(t, book.Move(book.Account(g.player), wallet.Movement{
				Amount: money.Minor(g.amount), At: g.at, Kind: wallet.KindCredit, Reference: "gift/" + strconv.Itoa(i),
			}))
		}
		require.NoError(t, book.Flush(ctx, &flush))
		return flush.Send(ctx, tx)
	}))
}

// settleRound settles periods side by side, and compares.
func (bundle *testBundle) settleRound(ctx context.Context, t *testing.T, periods []settledSpan, runs map[string][]int64) {
	t.Helper()
	for _, period := range periods {
		runID, err := bundle.service.Plan(ctx, period.offer.code, period.span.key, "person")
		require.NoError(t, err)
		runs[periodKey(period.offer, period.span)] = []int64{runID}
	}
	bundle.awaitRuns(ctx, t)
	for _, period := range periods {
		runID := runs[periodKey(period.offer, period.span)][0]
		name := fmt.Sprintf("%s %s %+v", period.offer.code, period.span.key, *period.offer.inForce(period.span))
		require.Equal(t, period.owed, bundle.owed(ctx, t, runID), name)
		result, err := bundle.service.Get(ctx, runID)
		require.NoError(t, err)
		requireOutcome(t, result, period.owed)
	}
}

// awaitRuns waits until all runs and their jobs have ended.
func (bundle *testBundle) awaitRuns(ctx context.Context, t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return bundle.count(ctx, t, `
			SELECT (SELECT count(*) FROM settlement_run WHERE state NOT IN ('done', 'aborted'))
				+ (SELECT count(*) FROM river_job WHERE kind LIKE 'settlement_%' AND finalized_at IS NULL)`) == 0
	}, patience, poll)
}

// owed is what a run found.
func (bundle *testBundle) owed(ctx context.Context, t *testing.T, runID int64) map[string]due {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, `
		SELECT player, amount, basis::text, coalesce(delivery, ''), coalesce(reason, failure_code, '')
		FROM settlement_credits WHERE run_id = $1`, runID)
	require.NoError(t, err)
	found := make(map[string]due)
	var player string
	var item due
	_, err = pgx.ForEachRow(rows, []any{&player, &item.Amount, &item.Basis, &item.Delivery, &item.Reason}, func() error {
		basis, ok := new(big.Rat).SetString(item.Basis)
		require.True(t, ok, item.Basis)
		item.Basis = basis.RatString()
		found[player] = item
		return nil
	})
	require.NoError(t, err)
	return found
}

func requireOutcome(t *testing.T, result settlement.Result, owed map[string]due) {
	t.Helper()
	var eligible, credited, eligibleAmount, creditedAmount int64
	for _, item := range owed {
		if item.Delivery == "" {
			continue
		}
		eligible++
		eligibleAmount += item.Amount
		if item.Delivery == "credited" {
			credited++
			creditedAmount += item.Amount
		}
	}
	require.Equal(t, outcomeOf(owed), result.Outcome)
	require.Equal(t,
		[]int64{int64(len(owed)), eligible, credited, eligibleAmount, creditedAmount},
		[]int64{*result.Evaluated, *result.Eligible, *result.Credited, *result.EligibleAmount, *result.CreditedAmount})
}

// requireBalances compares every wallet.
func (bundle *testBundle) requireBalances(ctx context.Context, t *testing.T, b *books) {
	t.Helper()
	type held struct{ balance, version int64 }
	expected, found := make(map[string]held), make(map[string]held)
	for code, p := range b.people {
		expected[code] = held{balance: p.balance, version: p.version}
	}
	rows, err := bundle.db.Pool.Query(ctx, "SELECT player, balance, version FROM wallet_balances")
	require.NoError(t, err)
	var player string
	var of held
	_, err = pgx.ForEachRow(rows, []any{&player, &of.balance, &of.version}, func() error {
		found[player] = of
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, expected, found)
}
