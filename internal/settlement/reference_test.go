package settlement_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/money"
	"truegreen/internal/pgtx"
	"truegreen/internal/settlement"
	"truegreen/internal/wallet"
)

// TestRunner_Work_Reference settles random activity by random terms and compares
// every amount with a second calculation, which reads the lines themselves and
// shares nothing with the first: no code, no rollups, no period.
func TestRunner_Work_Reference(t *testing.T) {
	t.Parallel()

	for seed := range uint64(8) {
		t.Run("Seed"+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			rng := rand.New(rand.NewPCG(seed, 42))
			config := defaultConfig()
			config.ChunkSize = 1 + rng.IntN(40)
			bundle := setup(ctx, t, config)
			world := newWorld(rng)
			bundle.programme(ctx, t, world.yaml())
			_, err := activity.New(wallet.New()).Import(ctx, bundle.db.Pool, "random", bytes.NewReader(world.text()), activity.ImportOptions{})
			require.NoError(t, err)
			bundle.give(ctx, t, world.gifts)
			bundle.work(ctx, t)

			for _, key := range []string{"2026-W43", "2026-W44"} {
				runID, err := bundle.service.Plan(ctx, "weekly", key, "person")
				require.NoError(t, err)
				result := bundle.await(ctx, t, runID, "done")
				expected := world.reference(key)
				require.Equal(t, expected, bundle.amounts(ctx, t, runID))
				bundle.requireOutcome(t, result, expected)
			}
			bundle.requireTrueBooks(ctx, t)
		})
	}
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

// amounts are those of a run's items by player.
func (bundle *testBundle) amounts(ctx context.Context, t *testing.T, runID int64) map[string]int64 {
	t.Helper()
	rows, err := bundle.db.Pool.Query(ctx, "SELECT player, amount FROM settlement_credits WHERE run_id = $1", runID)
	require.NoError(t, err)
	found := make(map[string]int64)
	var player string
	var amount int64
	_, err = pgx.ForEachRow(rows, []any{&player, &amount}, func() error {
		found[player] = amount
		return nil
	})
	require.NoError(t, err)
	return found
}

func (bundle *testBundle) requireOutcome(t *testing.T, result settlement.Result, expected map[string]int64) {
	t.Helper()
	var total, eligible int64
	for _, amount := range expected {
		total += amount
		if amount > 0 {
			eligible++
		}
	}
	require.Equal(t, total, *result.EligibleAmount)
	require.Equal(t, eligible, *result.Eligible)
	require.Equal(t, int64(len(expected)), *result.Evaluated)
}

// gift is a promotion credit.
type gift struct {
	amount int64
	at     time.Time
	player string
}

// world is random activity, line by line, and random terms.
type world struct {
	byVIP          bool
	capMinor       int64 // 0 for none
	defaultWeight  int64
	floor          int64
	gifts          []gift
	lessPromotions bool
	lines          []map[string]any
	tiers          [][2]int64 // from, ppm
	weights        map[string]int64
	zone           string
}

func newWorld(rng *rand.Rand) *world {
	w := &world{
		byVIP:          rng.IntN(2) == 0,
		floor:          rng.Int64N(50),
		lessPromotions: rng.IntN(2) == 0,
		// Weeks with a change of clocks, and days that do not begin at a whole hour
		// of UTC.
		zone: []string{"Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York"}[rng.IntN(4)],
	}
	if rng.IntN(2) == 0 {
		w.capMinor = 1 + rng.Int64N(20_000)
	}
	if rng.IntN(3) > 0 {
		w.weights = map[string]int64{"slots": rng.Int64N(1_000_001), "live": rng.Int64N(1_000_001)}
		w.defaultWeight = rng.Int64N(1_000_001)
	}
	from := rng.Int64N(2)
	for range 1 + rng.IntN(4) {
		w.tiers = append(w.tiers, [2]int64{from, rng.Int64N(300_001)})
		if w.byVIP {
			from += 1 + rng.Int64N(2)
		} else {
			from += 1 + rng.Int64N(100_000)
		}
	}
	w.play(rng)
	return w
}

// play makes up lines from before the first week to after the second, with many
// of them around the boundaries.
func (w *world) play(rng *rand.Rand) {
	zone, _ := time.LoadLocation(w.zone)
	first := time.Date(2026, 10, 18, 0, 0, 0, 0, zone)
	instant := func() time.Time {
		if rng.IntN(3) > 0 {
			return first.Add(time.Duration(rng.Int64N(int64(17 * 24 * time.Hour)))).Truncate(time.Microsecond)
		}
		boundary := time.Date(2026, 10, 19+7*rng.IntN(3), 0, 0, 0, 0, zone)
		return boundary.Add(time.Duration(rng.IntN(5)-2) * time.Microsecond)
	}
	add := func(line map[string]any, at time.Time) {
		line["at"] = at.UTC().Format(time.RFC3339Nano)
		w.lines = append(w.lines, line)
	}
	for n := range 60 {
		code := "p-" + strconv.Itoa(n)
		currency := "KRW"
		if n%13 == 0 {
			currency = "USD"
		}
		player := func(at time.Time, status string) {
			add(map[string]any{
				"type": "player", "player": code, "agent": nil, "currency": currency,
				"vip": rng.IntN(6), "rolling_ppm": 0, "status": status,
			}, at)
		}
		player(first.AddDate(0, 0, -1), "active")
		add(map[string]any{"type": "deposit", "id": "d-" + code, "player": code, "amount": 1_000_000_000}, first)
		// A new level now and then, and at the very boundaries; an instant holds one
		// line.
		for range rng.IntN(3) {
			player(instant().Add(10*time.Microsecond+time.Duration(rng.IntN(1_000_000))*time.Microsecond), "active")
		}
		for week := range 3 {
			if rng.IntN(3) == 0 {
				player(time.Date(2026, 10, 19+7*week, 0, 0, 0, 0, zone), "active")
			}
		}
		for range rng.IntN(3) {
			w.gifts = append(w.gifts, gift{amount: 1 + rng.Int64N(30_000), at: instant(), player: code})
		}
		for b := range rng.IntN(12) {
			w.round(rng, add, code+"-"+strconv.Itoa(b), code, instant)
		}
		if n%11 == 0 {
			player(first.AddDate(0, 1, 0), []string{"closed", "self_excluded"}[rng.IntN(2)])
		}
	}
	add(map[string]any{"type": "watermark", "source": "bets"}, first.AddDate(0, 2, 0))
}

// round is one bet with what becomes of it.
func (w *world) round(rng *rand.Rand, add func(map[string]any, time.Time), bet, player string, instant func() time.Time) {
	placed := instant()
	stake := 1 + rng.Int64N(100_000)
	category := []string{"slots", "live", "sports"}[rng.IntN(3)]
	add(map[string]any{"type": "bet", "id": bet, "player": player, "category": category, "stake": stake}, placed)
	ended := placed.Add(time.Duration(rng.Int64N(int64(48 * time.Hour)))).Truncate(time.Microsecond)
	if rng.IntN(4) == 0 {
		ended = placed
	}
	switch rng.IntN(10) {
	case 0:
		add(map[string]any{"type": "void", "bet": bet}, ended)
	case 1: // still open
	case 2, 3:
		add(map[string]any{"type": "result", "bet": bet, "payout": rng.Int64N(4 * stake)}, ended)
	default:
		add(map[string]any{"type": "result", "bet": bet, "payout": rng.Int64N(stake + 1)}, ended)
	}
}

func (w *world) text() []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	for _, line := range w.lines {
		_ = encoder.Encode(line)
	}
	return text.Bytes()
}

func (w *world) yaml() string {
	var text strings.Builder
	fmt.Fprintf(&text, `programmes:
  - code: weekly
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: %s
    effective_from: 2026-10-19
    basis: game
    auto_approve_below: 1000000000000
    min_payout: %d
    less_promotions: %t
`, w.zone, w.floor, w.lessPromotions)
	if w.byVIP {
		text.WriteString("    tier_by: vip\n")
	}
	if w.capMinor > 0 {
		fmt.Fprintf(&text, "    cap: %d\n", w.capMinor)
	}
	if w.weights != nil {
		fmt.Fprintf(&text, "    categories: {slots: %d, live: %d}\n    default_weight_ppm: %d\n", w.weights["slots"], w.weights["live"], w.defaultWeight)
	}
	text.WriteString("    tiers:\n")
	for _, tier := range w.tiers {
		fmt.Fprintf(&text, "      - {from: %d, rate_ppm: %d}\n", tier[0], tier[1])
	}
	return text.String()
}

// reference is what each player with a settled bet in the week is owed, 0
// included, by fractions from the lines.
func (w *world) reference(week string) map[string]int64 {
	zone, _ := time.LoadLocation(w.zone)
	monday := map[string]int{"2026-W43": 19, "2026-W44": 26}[week]
	start := time.Date(2026, 10, monday, 0, 0, 0, 0, zone)
	end := time.Date(2026, 10, monday+7, 0, 0, 0, 0, zone)

	type someone struct {
		currency, status string
		lost             *big.Rat
		vip              int64
		vipAt, statusAt  time.Time
	}
	players := make(map[string]*someone)
	bets := make(map[string]map[string]any)
	played := make(map[string]bool)
	number := func(value any) int64 {
		n, _ := strconv.ParseInt(fmt.Sprint(value), 10, 64)
		return n
	}
	for _, line := range w.lines {
		at, _ := time.Parse(time.RFC3339Nano, line["at"].(string))
		switch line["type"] {
		case "player":
			code := line["player"].(string)
			if players[code] == nil {
				players[code] = &someone{lost: new(big.Rat)}
			}
			p := players[code]
			p.currency = line["currency"].(string)
			if at.Before(end) && !at.Before(p.vipAt) {
				p.vip, p.vipAt = number(line["vip"]), at
			}
			if !at.Before(p.statusAt) {
				p.status, p.statusAt = line["status"].(string), at
			}
		case "bet":
			bets[line["id"].(string)] = line
		case "result":
			bet := bets[line["bet"].(string)]
			if at.Before(start) || !at.Before(end) {
				continue
			}
			weight := int64(1_000_000)
			if w.weights != nil {
				var named bool
				if weight, named = w.weights[bet["category"].(string)]; !named {
					weight = w.defaultWeight
				}
			}
			lost := new(big.Rat).SetInt64(number(bet["stake"]) - number(line["payout"]))
			p := players[bet["player"].(string)]
			p.lost.Add(p.lost, lost.Mul(lost, big.NewRat(weight, 1_000_000)))
			played[bet["player"].(string)] = true
		}
	}

	for _, g := range w.gifts {
		if w.lessPromotions && !g.at.Before(start) && g.at.Before(end) {
			p := players[g.player]
			p.lost.Sub(p.lost, new(big.Rat).SetInt64(g.amount))
		}
	}

	owed := make(map[string]int64)
	for code := range played {
		p := players[code]
		if p.currency != "KRW" {
			continue
		}
		owed[code] = 0
		value := p.lost
		if w.byVIP {
			value = new(big.Rat).SetInt64(p.vip)
		}
		rate := new(big.Rat)
		for _, tier := range w.tiers {
			if value.Cmp(new(big.Rat).SetInt64(tier[0])) >= 0 {
				rate = big.NewRat(tier[1], 1_000_000)
			}
		}
		if p.lost.Sign() <= 0 || p.status != "active" {
			continue
		}
		share := new(big.Rat).Mul(p.lost, rate)
		amount := new(big.Int).Quo(share.Num(), share.Denom()).Int64()
		if w.capMinor > 0 && amount > w.capMinor {
			amount = w.capMinor
		}
		if amount >= w.floor {
			owed[code] = amount
		}
	}
	return owed
}
