package activity_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
)

// errUndo ends a transaction that was only tried.
var errUndo = errors.New("undo")

// chaoticLines are lines over few players, agents, and ids, in no sensible
// order: most kinds of conflict, refusal, and repetition come up.
func chaoticLines(rng *rand.Rand, n int) []activity.Line {
	pick := func(prefix string, n int) string { return fmt.Sprintf("%s-%d", prefix, rng.IntN(n)) }
	maybe := func(code string) string {
		if rng.IntN(3) == 0 {
			return ""
		}
		return code
	}
	rates := []money.RatePPM{0, 10, 20, 30, 1000}
	statuses := []activity.Status{activity.StatusActive, activity.StatusFrozen, activity.StatusClosed}

	lines := make([]activity.Line, 0, n)
	for len(lines) < n {
		if len(lines) > 0 && rng.IntN(8) == 0 {
			lines = append(lines, lines[rng.IntN(len(lines))])
			continue
		}
		var line activity.Line
		switch rng.IntN(14) {
		case 0:
			line = agentLine(pick("a", 5), maybe(pick("a", 5)), rates[rng.IntN(len(rates))], rng.IntN(90))
			if line.Agent == line.Parent {
				line.Parent = ""
			}
		case 1, 2:
			line = playerUnder(pick("p", 6), maybe(pick("a", 5)), rates[rng.IntN(3)], rng.IntN(30))
			line.VIP, line.Status = int32(rng.IntN(2)), statuses[rng.IntN(len(statuses))]
			if line.Player == "p-0" || rng.IntN(20) == 0 {
				line.Currency = "USD"
			}
		case 3, 4:
			line = depositLine(pick("d", 40), pick("p", 6), money.Minor(1+rng.IntN(300)), rng.IntN(90))
		case 5:
			line = withdrawalLine(pick("w", 40), pick("p", 6), money.Minor(1+rng.IntN(300)), rng.IntN(90))
		case 6, 7, 8, 9:
			line = betLine(pick("b", 60), pick("p", 6), money.Minor(1+rng.IntN(200)), rng.IntN(90))
			line.Category = pick("c", 2)
		case 10, 11:
			line = resultLine(pick("b", 60), money.Minor(rng.IntN(3)*rng.IntN(150)), rng.IntN(90))
		case 12:
			line = voidLine(pick("b", 60), rng.IntN(90))
		default:
			line = watermarkLine(pick("s", 2), rng.IntN(90))
		}
		lines = append(lines, line)
	}
	return lines
}

// oneByOne applies each line alone, and returns those that apply and, by how
// many of them came before, those that do not.
func oneByOne(ctx context.Context, t *testing.T, service *activity.Service, tx pgx.Tx, lines []activity.Line) (accepted []activity.Line, wrong map[int]activity.Line, reasons map[int]string) {
	t.Helper()
	wrong, reasons = make(map[int]activity.Line), make(map[int]string)
	for _, line := range lines {
		_, err := service.Submit(ctx, tx, []activity.Line{line})
		var lineErr *activity.LineError
		switch {
		case err == nil:
			accepted = append(accepted, line)
		case errors.As(err, &lineErr):
			wrong[len(accepted)], reasons[len(accepted)] = line, lineErr.Err.Error()
		default:
			require.NoError(t, err)
		}
	}
	return accepted, wrong, reasons
}

// inBatches applies lines in batches and returns what they leave behind.
func inBatches(ctx context.Context, t *testing.T, service *activity.Service, tx pgx.Tx, lines []activity.Line, size int) activity.Result {
	t.Helper()
	var total activity.Result
	for start := 0; start < len(lines); start += size {
		result, err := service.Submit(ctx, tx, lines[start:min(start+size, len(lines))])
		require.NoError(t, err)
		total.NumApplied += result.NumApplied
		total.NumKnown += result.NumKnown
		total.NumRefused += result.NumRefused
	}
	return total
}

func TestService_Apply_batches(t *testing.T) {
	t.Parallel()

	// undo runs fn and takes back what it did.
	undo := func(ctx context.Context, t *testing.T, outer pgx.Tx, fn func(tx pgx.Tx)) {
		t.Helper()
		require.ErrorIs(t, pgtx.Do(ctx, outer, func(tx pgx.Tx) error { fn(tx); return errUndo }), errUndo)
	}

	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("DoWhatTheirLinesDoOneByOne/seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			tx, err := bundle.db.Pool.Begin(ctx)
			require.NoError(t, err)
			defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) }()
			lines := chaoticLines(rand.New(rand.NewPCG(seed, 7)), 500)

			var accepted []activity.Line
			var wrong map[int]activity.Line
			var reasons map[int]string
			var want map[string]string
			undo(ctx, t, tx, func(tx pgx.Tx) {
				accepted, wrong, reasons = oneByOne(ctx, t, bundle.service, tx, lines)
				want = stateOf(ctx, t, tx)
				requireBooksInOrder(ctx, t, tx)
			})
			requireVaried(t, accepted, wrong, want)

			var results []activity.Result
			for _, size := range []int{1, 7, 100, 5000} {
				undo(ctx, t, tx, func(tx pgx.Tx) {
					results = append(results, inBatches(ctx, t, bundle.service, tx, accepted, size))
					require.Equal(t, want, stateOf(ctx, t, tx), "batch size %d", size)
					require.Equal(t, results[0], results[len(results)-1])

					// And once more, which changes nothing.
					again := inBatches(ctx, t, bundle.service, tx, accepted, size)
					require.Equal(t, activity.Result{NumKnown: int64(len(accepted))}, again)
					require.Equal(t, want, stateOf(ctx, t, tx), "batch size %d, twice", size)
				})
			}

			// A wrong line is refused for the same reason behind all that came before it.
			for before, line := range wrong {
				_, err := bundle.service.Submit(ctx, tx, append(accepted[:before:before], line))
				var lineErr *activity.LineError
				require.ErrorAs(t, err, &lineErr)
				require.Equal(t, before, lineErr.Index)
				require.EqualError(t, lineErr.Err, reasons[before])
			}
		})
	}
}

// requireVaried makes sure that the lines are worth comparing.
func requireVaried(t *testing.T, accepted []activity.Line, wrong map[int]activity.Line, state map[string]string) {
	t.Helper()
	require.Greater(t, len(accepted), 100)
	require.Greater(t, len(wrong), 50)
	for table, content := range state {
		require.NotEmpty(t, content, table)
	}
	require.Contains(t, state["bet"], "insufficient_funds")
	require.Contains(t, state["payment"], "insufficient_funds")
}
