package activity_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
)

func TestService_Apply_money(t *testing.T) {
	t.Parallel()

	t.Run("MovesMoneyAndTellsOfIt", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		result := bundle.applied(ctx, t,
			playerLine("p-1", 0),
			depositLine("d-1", "p-1", 5000, 1),
			withdrawalLine("w-1", "p-1", 1000, 2),
			betLine("b-1", "p-1", 300, 3),
			resultLine("b-1", 700, 4),
			betLine("b-2", "p-1", 400, 5),
			voidLine("b-2", 6),
			betLine("b-3", "p-1", 500, 7),
			resultLine("b-3", 0, 8),
		)
		require.Equal(t, activity.Result{NumApplied: 9, NumLines: 9}, result)
		bundle.requireBalance(ctx, t, "p-1", 5000-1000-300+700-500, 8)
		requireBooksInOrder(ctx, t, bundle.db.Pool)

		state := bundle.state(ctx, t)
		require.Equal(t, `(deposit/d-1,deposit,cash,,KRW,-5000,"2026-11-02 00:01:00+00")
(deposit/d-1,deposit,player,p-1,KRW,5000,"2026-11-02 00:01:00+00")
(payout/b-1,payout,house,,KRW,-700,"2026-11-02 00:04:00+00")
(payout/b-1,payout,player,p-1,KRW,700,"2026-11-02 00:04:00+00")
(payout/b-3,payout,house,,KRW,0,"2026-11-02 00:08:00+00")
(payout/b-3,payout,player,p-1,KRW,0,"2026-11-02 00:08:00+00")
(refund/b-2,refund,house,,KRW,-400,"2026-11-02 00:06:00+00")
(refund/b-2,refund,player,p-1,KRW,400,"2026-11-02 00:06:00+00")
(stake/b-1,stake,house,,KRW,300,"2026-11-02 00:03:00+00")
(stake/b-1,stake,player,p-1,KRW,-300,"2026-11-02 00:03:00+00")
(stake/b-2,stake,house,,KRW,400,"2026-11-02 00:05:00+00")
(stake/b-2,stake,player,p-1,KRW,-400,"2026-11-02 00:05:00+00")
(stake/b-3,stake,house,,KRW,500,"2026-11-02 00:07:00+00")
(stake/b-3,stake,player,p-1,KRW,-500,"2026-11-02 00:07:00+00")
(withdrawal/w-1,withdrawal,cash,,KRW,1000,"2026-11-02 00:02:00+00")
(withdrawal/w-1,withdrawal,player,p-1,KRW,-1000,"2026-11-02 00:02:00+00")`, state["ledger"])

		var types []string
		err := bundle.db.Pool.QueryRow(ctx, "SELECT array_agg(type ORDER BY key_seq) FROM outbox_event WHERE stream = 'wallet' AND key = 'p-1/KRW'").Scan(&types)
		require.NoError(t, err)
		require.Equal(t, []string{
			"wallet.deposited.v1", "wallet.withdrawn.v1", "wallet.staked.v1", "wallet.settled.v1",
			"wallet.staked.v1", "wallet.refunded.v1", "wallet.staked.v1", "wallet.settled.v1",
		}, types)
		var payload string
		err = bundle.db.Pool.QueryRow(ctx, "SELECT payload FROM outbox_event WHERE key_seq = 4").Scan(&payload)
		require.NoError(t, err)
		require.JSONEq(t, `{"amount": "700", "at": "2026-11-02T00:04:00Z", "balance": "4400", "bet": "b-1", "category": "slots",
			"currency": "KRW", "player": "p-1", "reference": "payout/b-1"}`, payload)
	})

	t.Run("StoresARefusalAndKeepsIt", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		refusedLines := []activity.Line{betLine("b-1", "p-1", 101, 1), withdrawalLine("w-1", "p-1", 101, 1)}
		bundle.applied(ctx, t, playerLine("p-1", 0), depositLine("d-1", "p-1", 100, 0))
		require.Equal(t, int64(2), bundle.applied(ctx, t, refusedLines...).NumRefused)
		bundle.requireBalance(ctx, t, "p-1", 100, 1)

		// Funds that come later change nothing about it.
		bundle.applied(ctx, t, depositLine("d-2", "p-1", 1000, 2))
		require.Equal(t, int64(2), bundle.applied(ctx, t, refusedLines...).NumKnown)
		bundle.requireBalance(ctx, t, "p-1", 1100, 2)
		require.Equal(t, int64(2), bundle.count(ctx, t, "SELECT (SELECT count(*) FROM bet WHERE refusal IS NOT NULL) + (SELECT count(*) FROM payment WHERE refusal IS NOT NULL)"))
		requireBooksInOrder(ctx, t, bundle.db.Pool)

		bundle.refusedBecause(ctx, t, "result of bet b-1: the bet was refused for insufficient funds", resultLine("b-1", 0, 3))
		bundle.refusedBecause(ctx, t, "void of bet b-1: the bet was refused for insufficient funds", voidLine("b-1", 3))
	})

	t.Run("LetsTheLastUnitBeStaked", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, playerLine("p-1", 0), depositLine("d-1", "p-1", 100, 0), betLine("b-1", "p-1", 100, 1))
		bundle.requireBalance(ctx, t, "p-1", 0, 2)
	})

	t.Run("BooksFactsWhateverTheStatus", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		closed := playerLine("p-1", 0)
		closed.Status = activity.StatusClosed
		bundle.applied(ctx, t, closed, depositLine("d-1", "p-1", 100, 1), betLine("b-1", "p-1", 10, 2), resultLine("b-1", 5, 3))
		bundle.requireBalance(ctx, t, "p-1", 95, 3)
	})

	t.Run("NamesTheIDAndWhatDiffers", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t,
			playerLine("p-1", 0), playerLine("p-2", 0), depositLine("d-1", "p-1", 100, 1), withdrawalLine("w-1", "p-1", 10, 1),
			betLine("b-1", "p-1", 10, 2), resultLine("b-1", 5, 3), betLine("b-2", "p-1", 10, 2), voidLine("b-2", 3), betLine("b-3", "p-1", 10, 2),
		)
		otherCategory := betLine("b-1", "p-1", 10, 2)
		otherCategory.Category = "live"
		for reason, line := range map[string]activity.Line{
			"deposit d-1 is known with amount 100, this line says 101":                                     depositLine("d-1", "p-1", 101, 1),
			"deposit d-1 is known with another player, this line says p-2":                                 depositLine("d-1", "p-2", 100, 1),
			"deposit d-1 is known with at 2026-11-02T00:01:00Z, this line says 2026-11-02T00:02:00Z":       depositLine("d-1", "p-1", 100, 2),
			"withdrawal w-1 is known with amount 10, this line says 11":                                    withdrawalLine("w-1", "p-1", 11, 1),
			"bet b-1 is known with stake 10, this line says 11":                                            betLine("b-1", "p-1", 11, 2),
			"bet b-1 is known with category slots, this line says live":                                    otherCategory,
			"bet b-1 is known with another player, this line says p-2":                                     betLine("b-1", "p-2", 10, 2),
			"bet b-1 is known with at 2026-11-02T00:02:00Z, this line says 2026-11-02T00:03:00Z":           betLine("b-1", "p-1", 10, 3),
			"result of bet b-1 is known with payout 5, this line says 6":                                   resultLine("b-1", 6, 3),
			"result of bet b-1 is known with at 2026-11-02T00:03:00Z, this line says 2026-11-02T00:04:00Z": resultLine("b-1", 5, 4),
			"void of bet b-2 is known with at 2026-11-02T00:03:00Z, this line says 2026-11-02T00:04:00Z":   voidLine("b-2", 4),
			"result of bet b-2: the bet is void since 2026-11-02T00:03:00Z":                                resultLine("b-2", 5, 4),
			"void of bet b-1: the bet has its result since 2026-11-02T00:03:00Z":                           voidLine("b-1", 4),
			"result of bet b-9: the bet is not known":                                                      resultLine("b-9", 5, 4),
			"void of bet b-9: the bet is not known":                                                        voidLine("b-9", 4),
			"deposit d-9: player p-9 is not known":                                                         depositLine("d-9", "p-9", 1, 4),
			"withdrawal w-9: player p-9 is not known":                                                      withdrawalLine("w-9", "p-9", 1, 4),
			"bet b-9: player p-9 is not known":                                                             betLine("b-9", "p-9", 1, 4),
		} {
			bundle.refusedBecause(ctx, t, reason, line)
			// The same behind lines that would apply, which are then not applied.
			bundle.refusedBecause(ctx, t, reason, playerLine("p-3", 0), depositLine("d-3", "p-3", 5, 5), resultLine("b-3", 5, 5), line)
		}
	})

	t.Run("RefusesABalanceBeyond64Bits", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.refusedBecause(ctx, t, "book deposit/d-2 for player p-1: add 9223372036854775807 to 1: amount does not fit into 64 bits",
			playerLine("p-1", 0), depositLine("d-1", "p-1", 1, 1), depositLine("d-2", "p-1", math.MaxInt64, 1))
		bundle.applied(ctx, t, playerLine("p-1", 0), depositLine("d-2", "p-1", math.MaxInt64, 1))
	})

	t.Run("UsesIDsOncePerTypeOnly", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		result := bundle.applied(ctx, t, playerLine("x", 0), depositLine("x", "x", 100, 1), withdrawalLine("x", "x", 10, 1), betLine("x", "x", 10, 2))
		require.Equal(t, int64(4), result.NumApplied)
	})

	t.Run("ComparesTimesAsInstants", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		line := depositLine("d-1", "p-1", 100, 1)
		bundle.applied(ctx, t, playerLine("p-1", 0), line)
		line.At = line.At.In(time.FixedZone("somewhere", 9*60*60))
		require.Equal(t, int64(1), bundle.applied(ctx, t, line).NumKnown)
	})

	t.Run("RefusesALineOutOfBounds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.refusedBecause(ctx, t, "amount must be above 0", playerLine("p-1", 0), depositLine("d-1", "p-1", 0, 1))
		_, err := bundle.service.Submit(ctx, bundle.db.Pool, []activity.Line{{Type: "refund"}})
		require.True(t, fault.Is(err, fault.KindInvalid))
	})
}

func TestService_Apply_rollups(t *testing.T) {
	t.Parallel()

	t.Run("SumsPerPlayerCategoryAndQuarterOfSettlement", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		live := betLine("b-4", "p-1", 50, 0)
		live.Category = "live"
		late := resultLine("b-3", 0, 15)
		late.At = late.At.Add(-time.Microsecond)
		bundle.applied(ctx, t,
			playerLine("p-1", 0), depositLine("d-1", "p-1", 1000, 0),
			betLine("b-1", "p-1", 100, 0), resultLine("b-1", 120, 0), // risk 20
			betLine("b-2", "p-1", 100, 0), resultLine("b-2", 900, 15), // risk 100, the next quarter
			betLine("b-3", "p-1", 100, 0), late, // risk 100
			live, resultLine("b-4", 50, 1), // risk 0
			betLine("b-5", "p-1", 100, 0), voidLine("b-5", 1),
		)
		want := `("2026-11-02 00:00:00+00",live,1,50,0,50,p-1)
("2026-11-02 00:00:00+00",slots,2,120,120,200,p-1)
("2026-11-02 00:15:00+00",slots,1,900,100,100,p-1)`
		require.Equal(t, want, bundle.state(ctx, t)["rollup"])

		// A bet of an earlier transaction, into a sum that is there.
		bundle.applied(ctx, t, betLine("b-6", "p-1", 10, 2))
		bundle.applied(ctx, t, resultLine("b-6", 0, 20))
		require.Contains(t, bundle.state(ctx, t)["rollup"], `("2026-11-02 00:15:00+00",slots,2,900,110,110,p-1)`)
	})
}

func TestService_Apply_watermarks(t *testing.T) {
	t.Parallel()

	t.Run("OnlyMoveForward", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		require.Equal(t, activity.Result{NumApplied: 2, NumKnown: 1, NumLines: 3},
			bundle.applied(ctx, t, watermarkLine("bets", 5), watermarkLine("bets", 3), watermarkLine("cash", 1)))
		require.Equal(t, activity.Result{NumKnown: 2, NumLines: 2},
			bundle.applied(ctx, t, watermarkLine("bets", 4), watermarkLine("bets", 5)))
		require.Equal(t, "(bets,\"2026-11-02 00:05:00+00\")\n(cash,\"2026-11-02 00:01:00+00\")", bundle.state(ctx, t)["watermark"])
		require.Equal(t, int64(1), bundle.applied(ctx, t, watermarkLine("bets", 6)).NumApplied)
		require.Contains(t, bundle.state(ctx, t)["watermark"], "00:06:00")
	})
}
