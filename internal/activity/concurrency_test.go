package activity_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"truegreen/internal/activity"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
)

func TestService_Apply_concurrently(t *testing.T) {
	t.Parallel()

	t.Run("NeverDeadlocksAndLosesNothing", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		const numPlayers, numWorkers, numRounds = 8, 8, 12
		lines := []activity.Line{}
		for i := range numPlayers {
			lines = append(lines, playerLine(fmt.Sprintf("p-%d", i), 0), depositLine(fmt.Sprintf("d-%d", i), fmt.Sprintf("p-%d", i), 1000, 0))
		}
		bundle.applied(ctx, t, lines...)

		// Each worker's lines name the players in an order of its own. There is no
		// second attempt: Apply must not collide in the first place.
		group, groupCtx := errgroup.WithContext(ctx)
		for worker := range numWorkers {
			group.Go(func() error {
				rng := rand.New(rand.NewPCG(uint64(worker), 1))
				for round := range numRounds {
					var lines []activity.Line
					for _, player := range rng.Perm(numPlayers) {
						bet := fmt.Sprintf("b-%d-%d-%d", worker, round, player)
						lines = append(lines, betLine(bet, fmt.Sprintf("p-%d", player), 10, round), resultLine(bet, 9, round))
					}
					lines = append(lines, watermarkLine("bets", round))
					err := pgtx.Do(groupCtx, bundle.db.Pool, func(tx pgx.Tx) error {
						_, err := bundle.service.Apply(groupCtx, tx, lines)
						return err
					})
					if err != nil {
						return fmt.Errorf("worker %d, round %d: %w", worker, round, err)
					}
				}
				return nil
			})
		}
		require.NoError(t, group.Wait())
		for i := range numPlayers {
			const numBets = numWorkers * numRounds
			bundle.requireBalance(ctx, t, fmt.Sprintf("p-%d", i), 1000-numBets, 1+2*numBets)
		}
		requireBooksInOrder(ctx, t, bundle.db.Pool)
	})

	t.Run("AppliesTheSameLinesOnce", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		lines := []activity.Line{
			agentLine("a-1", "", 100, 0), playerUnder("p-1", "a-1", 50, 0), playerUnder("p-2", "a-1", 50, 0),
			depositLine("d-1", "p-1", 1000, 1), depositLine("d-2", "p-2", 1000, 1),
			betLine("b-1", "p-1", 100, 2), betLine("b-2", "p-2", 5000, 2), resultLine("b-1", 30, 3),
		}
		results := make([]activity.Result, 6)
		group, groupCtx := errgroup.WithContext(ctx)
		for i := range results {
			group.Go(func() error {
				var err error
				results[i], err = bundle.service.Submit(groupCtx, bundle.db.Pool, lines)
				return err
			})
		}
		require.NoError(t, group.Wait())
		var total activity.Result
		for _, result := range results {
			total.NumApplied += result.NumApplied
			total.NumRefused += result.NumRefused
			total.NumKnown += result.NumKnown
		}
		require.Equal(t, activity.Result{NumApplied: 7, NumKnown: 40, NumRefused: 1}, total)
		bundle.requireBalance(ctx, t, "p-1", 930, 3)
		requireBooksInOrder(ctx, t, bundle.db.Pool)
	})

	t.Run("WaitsForTheWalletAndThenSeesItsFunds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, playerLine("p-1", 0), depositLine("d-1", "p-1", 100, 0), betLine("b-0", "p-1", 1, 1))

		first, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = first.Rollback(context.WithoutCancel(ctx)) }()
		_, err = bundle.service.Apply(ctx, first, []activity.Line{betLine("b-1", "p-1", 60, 2), resultLine("b-0", 0, 2)})
		require.NoError(t, err)

		type answer struct {
			err    error
			result activity.Result
		}
		second := make(chan answer, 1)
		go func() {
			// Its result finds the bet settled, its bet finds too little left.
			result, err := bundle.service.Submit(ctx, bundle.db.Pool, []activity.Line{resultLine("b-0", 0, 2), betLine("b-2", "p-1", 60, 3)})
			second <- answer{err, result}
		}()
		bundle.waitForLockWaiter(ctx, t)
		require.NoError(t, first.Commit(ctx))
		got := <-second
		require.NoError(t, got.err)
		require.Equal(t, activity.Result{NumKnown: 1, NumLines: 2, NumRefused: 1}, got.result)
		bundle.requireBalance(ctx, t, "p-1", 39, 4)
	})

	t.Run("RunsAgainWhenSomebodyElseAddedTheSame", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		// Nobody can lock a player who is not there yet, so these meet at the key.
		lines := []activity.Line{playerLine("p-1", 0), depositLine("d-1", "p-1", 100, 1), betLine("b-1", "p-1", 60, 2)}
		first, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = first.Rollback(context.WithoutCancel(ctx)) }()
		_, err = bundle.service.Apply(ctx, first, lines)
		require.NoError(t, err)

		type answer struct {
			err    error
			result activity.Result
		}
		second := make(chan answer, 1)
		go func() {
			result, err := bundle.service.Submit(ctx, bundle.db.Pool, lines)
			second <- answer{err, result}
		}()
		bundle.waitForLockWaiter(ctx, t)
		require.NoError(t, first.Commit(ctx))
		got := <-second
		require.NoError(t, got.err)
		require.Equal(t, activity.Result{NumKnown: 3, NumLines: 3}, got.result)
		bundle.requireBalance(ctx, t, "p-1", 40, 2)
	})

	t.Run("RunsAgainWhenANewPlayerWasAddedBesideAKnownOne", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, playerLine("p-1", 0))
		// The known player's wallet makes the second wait, after it has looked for
		// the new one.
		lines := []activity.Line{
			depositLine("d-1", "p-1", 100, 1), playerLine("p-2", 0), depositLine("d-2", "p-2", 100, 1), betLine("b-2", "p-2", 60, 2),
		}
		first, err := bundle.db.Pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = first.Rollback(context.WithoutCancel(ctx)) }()
		_, err = bundle.service.Apply(ctx, first, lines)
		require.NoError(t, err)

		second := make(chan error, 1)
		go func() {
			_, err := bundle.service.Submit(ctx, bundle.db.Pool, lines)
			second <- err
		}()
		bundle.waitForLockWaiter(ctx, t)
		require.NoError(t, first.Commit(ctx))
		require.NoError(t, <-second)
		bundle.requireBalance(ctx, t, "p-2", 40, 2)
	})

	t.Run("KeepsRatesInOrderWhenAgentsAndPlayersChangeAtOnce", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		const numPlayers = 6
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0))

		// The agent comes down step by step while players arrive at rates that some
		// of the steps forbid. Whoever is second must be refused.
		group, groupCtx := errgroup.WithContext(ctx)
		submit := func(line activity.Line) error {
			_, err := bundle.service.Submit(groupCtx, bundle.db.Pool, []activity.Line{line})
			if _, isLine := asLineError(err); isLine {
				return nil
			}
			return err
		}
		group.Go(func() error {
			for step := 1; step <= 9; step++ {
				if err := submit(agentLine("a-1", "", money.RatePPM(100-10*step), 10+step)); err != nil {
					return err
				}
			}
			return nil
		})
		for i := range numPlayers {
			group.Go(func() error {
				return submit(playerUnder(fmt.Sprintf("p-%d", i), "a-1", money.RatePPM(100-10*i), 100))
			})
		}
		require.NoError(t, group.Wait())
		require.Zero(t, bundle.count(ctx, t, "SELECT count(*) FROM player JOIN agent ON agent.id = player.agent_id WHERE player.rolling_ppm > agent.rolling_ppm"))
	})
}
