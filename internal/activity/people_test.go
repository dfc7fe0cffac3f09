package activity_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
)

func TestService_Apply_players(t *testing.T) {
	t.Parallel()

	t.Run("GetAWalletAndTheAccountsOfTheirCurrency", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		dollars := playerLine("p-2", 0)
		dollars.Currency = "USD"
		bundle.applied(ctx, t, playerLine("p-1", 0), dollars)
		state := bundle.state(ctx, t)
		require.Equal(t, "(p-1,KRW,0,active,0)\n(p-2,USD,0,active,0)", state["wallet"])
		require.Equal(t, `(cash,KRW,t)
(cash,USD,t)
(house,KRW,t)
(house,USD,t)
(player,KRW,f)
(player,USD,f)
(promotion,KRW,t)
(promotion,USD,t)`, state["accounts"])
	})

	t.Run("AreWhatTheirNewestLineSays", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		newer, older, oldest := playerLine("p-1", 20), playerLine("p-1", 10), playerLine("p-1", 5)
		newer.VIP, newer.Status = 3, activity.StatusFrozen
		older.VIP = 1
		bundle.applied(ctx, t, newer)
		bundle.applied(ctx, t, older, oldest)
		state := bundle.state(ctx, t)
		require.Equal(t, `(p-1,"2026-11-02 00:20:00+00","2026-11-02 00:05:00+00",0,frozen,3,KRW,)`, state["player"])
		require.Equal(t, `(p-1,"2026-11-02 00:05:00+00",0,active,0,)
(p-1,"2026-11-02 00:10:00+00",0,active,1,)
(p-1,"2026-11-02 00:20:00+00",0,frozen,3,)`, state["player_line"])

		require.Equal(t, int64(2), bundle.applied(ctx, t, newer, oldest).NumKnown)
		require.Equal(t, state, bundle.state(ctx, t))
	})

	t.Run("RefuseAnotherStoryOfTheSameTime", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0), agentLine("a-2", "", 100, 0), playerUnder("p-1", "a-1", 50, 1))
		vip, status, currency := playerUnder("p-1", "a-1", 50, 1), playerUnder("p-1", "a-1", 50, 1), playerUnder("p-1", "a-1", 50, 7)
		vip.VIP, status.Status, currency.Currency = 1, activity.StatusClosed, "USD"
		const same = "player p-1 is known at 2026-11-02T00:01:00Z with "
		bundle.refusedBecause(ctx, t, same+"vip 0, this line says 1", vip)
		bundle.refusedBecause(ctx, t, same+"status active, this line says closed", status)
		bundle.refusedBecause(ctx, t, same+"rolling_ppm 50, this line says 60", playerUnder("p-1", "a-1", 60, 1))
		bundle.refusedBecause(ctx, t, same+"agent a-1, this line says a-2", playerUnder("p-1", "a-2", 50, 1))
		bundle.refusedBecause(ctx, t, same+"agent a-1, this line says null", playerUnder("p-1", "", 50, 1))
		bundle.refusedBecause(ctx, t, "player p-1 is known with currency KRW, this line says USD", currency)
		bundle.refusedBecause(ctx, t, "player p-1: agent a-9 is not known", playerUnder("p-1", "a-9", 50, 9))
		// Also within one batch.
		bundle.refusedBecause(ctx, t, "player p-3 is known at 2026-11-02T00:01:00Z with agent null, this line says a-1",
			playerLine("p-3", 1), playerUnder("p-3", "a-1", 0, 1))
	})

	t.Run("KeepTheAgentsOfTheirPastWhenALineNamesOthers", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0), agentLine("a-2", "", 100, 0), playerUnder("p-1", "a-1", 50, 10))
		bundle.applied(ctx, t, playerUnder("p-1", "a-2", 50, 5))
		require.Equal(t, `(p-1,"2026-11-02 00:10:00+00","2026-11-02 00:05:00+00",50,active,0,KRW,a-1)`, bundle.state(ctx, t)["player"])
		bundle.refusedBecause(ctx, t, "player p-1 is known at 2026-11-02T00:10:00Z with agent a-1, this line says null", playerUnder("p-1", "", 50, 10))
	})

	t.Run("AreKnownOnlyFromTheirLineOn", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.refusedBecause(ctx, t, "deposit d-1: player p-1 is not known", depositLine("d-1", "p-1", 10, 5))
		_, err := bundle.service.Submit(ctx, bundle.db.Pool, []activity.Line{depositLine("d-1", "p-1", 10, 5), playerLine("p-1", 0)})
		require.EqualError(t, err, "line 1: deposit d-1: player p-1 is not known")
	})
}

func TestService_Apply_agents(t *testing.T) {
	t.Parallel()

	t.Run("AreWhatTheirNewestLineSays", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 900, 0), agentLine("a-2", "a-1", 500, 10))
		bundle.applied(ctx, t, agentLine("a-2", "", 400, 5), agentLine("a-3", "a-2", 300, 10))
		state := bundle.state(ctx, t)
		require.Equal(t, `(a-1,"2026-11-02 00:00:00+00","2026-11-02 00:00:00+00",900,)
(a-2,"2026-11-02 00:10:00+00","2026-11-02 00:05:00+00",500,a-1)
(a-3,"2026-11-02 00:10:00+00","2026-11-02 00:10:00+00",300,a-2)`, state["agent"])
		require.Equal(t, int64(1), bundle.applied(ctx, t, agentLine("a-2", "", 400, 5)).NumKnown)
		require.Equal(t, state, bundle.state(ctx, t))
	})

	t.Run("RefuseAnotherStoryOfTheSameTime", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 900, 0), agentLine("a-2", "a-1", 500, 0))
		bundle.refusedBecause(ctx, t, "agent a-2 is known at 2026-11-02T00:00:00Z with parent a-1, this line says null", agentLine("a-2", "", 500, 0))
		bundle.refusedBecause(ctx, t, "agent a-2 is known at 2026-11-02T00:00:00Z with rolling_ppm 500, this line says 400", agentLine("a-2", "a-1", 400, 0))
		bundle.refusedBecause(ctx, t, "agent a-3: its parent a-9 is not known", agentLine("a-3", "a-9", 400, 0))
	})

	t.Run("NeverFormACircle", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		lines := []activity.Line{agentLine("a-1", "", 900, 0), agentLine("a-2", "a-1", 900, 0), agentLine("a-3", "a-2", 900, 0)}
		bundle.refusedBecause(ctx, t, "agent a-1 would be above itself", append(lines, agentLine("a-1", "a-3", 900, 5))...)
		bundle.applied(ctx, t, lines...)
		bundle.refusedBecause(ctx, t, "agent a-1 would be above itself", agentLine("a-1", "a-3", 900, 5))
		// a-3 leaves later, but until then there would be a circle.
		bundle.applied(ctx, t, agentLine("a-3", "", 900, 10))
		bundle.refusedBecause(ctx, t, "agent a-1 would be above itself", agentLine("a-1", "a-3", 900, 9))
		bundle.applied(ctx, t, agentLine("a-1", "a-3", 900, 10))
	})
}

func TestService_Apply_rates(t *testing.T) {
	t.Parallel()

	const below = ": rolling_ppm 101 is above the 100 of its agent a-1 as of 2026-11-02T00:00:00Z"

	t.Run("OfAnAgentStayUnderItsParents", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0))
		bundle.refusedBecause(ctx, t, "agent a-2"+below, agentLine("a-2", "a-1", 101, 1))
		bundle.applied(ctx, t, agentLine("a-2", "a-1", 100, 1))
		// Too high for a while only, in the middle of what is known.
		bundle.applied(ctx, t, agentLine("a-1", "", 200, 20), agentLine("a-2", "a-1", 150, 20))
		bundle.refusedBecause(ctx, t, "agent a-2"+below, agentLine("a-2", "a-1", 101, 19))
	})

	t.Run("OfAPlayerStayUnderTheAgents", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0))
		bundle.refusedBecause(ctx, t, "player p-1"+below, playerUnder("p-1", "a-1", 101, 1))
		bundle.applied(ctx, t, playerUnder("p-1", "a-1", 100, 1), playerUnder("p-2", "", 500, 1))
		bundle.refusedBecause(ctx, t, "player p-2"+below, playerUnder("p-2", "a-1", 101, 2))
	})

	t.Run("OfAnAgentStayAboveThoseUnderIt", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0), agentLine("a-2", "a-1", 80, 1), playerUnder("p-1", "a-1", 90, 1))
		bundle.refusedBecause(ctx, t,
			"agent a-1: rolling_ppm 79 is below the 80 of agent a-2 under it as of 2026-11-02T00:01:00Z", agentLine("a-1", "", 79, 5))
		bundle.refusedBecause(ctx, t,
			"agent a-1: rolling_ppm 89 is below the 90 of player p-1 under it as of 2026-11-02T00:01:00Z", agentLine("a-1", "", 89, 5))
		// Before there was anybody under it, it could be lower.
		bundle.applied(ctx, t, agentLine("a-1", "", 10, -5))
		// Once the player has left, it may be.
		bundle.applied(ctx, t, playerUnder("p-1", "", 90, 5))
		bundle.refusedBecause(ctx, t,
			"agent a-1: rolling_ppm 89 is below the 90 of player p-1 under it as of 2026-11-02T00:01:00Z", agentLine("a-1", "", 89, 4))
		bundle.applied(ctx, t, agentLine("a-1", "", 89, 5))
	})

	t.Run("SeeWhatEarlierLinesOfTheBatchDid", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		bundle.applied(ctx, t, agentLine("a-1", "", 100, 0), playerUnder("p-1", "a-1", 90, 1))
		bundle.refusedBecause(ctx, t,
			"agent a-1: rolling_ppm 50 is below the 60 of player p-2 under it as of 2026-11-02T00:03:00Z",
			playerUnder("p-1", "a-1", 40, 2), playerUnder("p-2", "a-1", 60, 3), agentLine("a-1", "", 50, 4))
		bundle.applied(ctx, t, playerUnder("p-1", "a-1", 40, 2), playerUnder("p-2", "a-1", 50, 3), agentLine("a-1", "", 50, 4))
	})

	t.Run("OfManyPlayersAreFoundAmongManyOthers", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		lines := []activity.Line{agentLine("a-1", "", 100, 0)}
		for i := range 50 {
			lines = append(lines, playerUnder(fmt.Sprintf("p-%02d", i), "a-1", 50, 1))
		}
		bundle.applied(ctx, t, append(lines, playerUnder("p-50", "a-1", 51, 1))...)
		bundle.refusedBecause(ctx, t,
			"agent a-1: rolling_ppm 50 is below the 51 of player p-50 under it as of 2026-11-02T00:01:00Z", agentLine("a-1", "", 50, 4))
		bundle.applied(ctx, t, agentLine("a-1", "", 51, 4))
	})
}
