package anomaly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"truegreen/internal/activity"
	"truegreen/internal/wallet"
)

// activityLines are lines of every type, for what is there and what is new.
func activityLines() string {
	at := weekEnd().AddDate(0, 0, 1)
	minute := func(n int) time.Time { return at.Add(time.Duration(n) * time.Minute) }
	var file []byte
	for _, line := range []activity.Line{
		{Agent: "top", At: minute(0), RollingPPM: 5000, Type: activity.TypeAgent},
		{Agent: "below", At: minute(1), Parent: "top", RollingPPM: 3000, Type: activity.TypeAgent},
		{Agent: "below", At: minute(2), Currency: "KRW", Player: "new", RollingPPM: 1000, Status: activity.StatusActive, Type: activity.TypePlayer},
		{Amount: 5000, At: minute(3), ID: "d-1", Player: "new", Type: activity.TypeDeposit},
		{At: minute(4), Category: "slots", ID: "b-1", Player: "new", Stake: 2000, Type: activity.TypeBet},
		{At: minute(5), Bet: "b-1", Payout: 500, Type: activity.TypeResult},
		{Amount: 1000, At: minute(6), ID: "w-1", Player: "new", Type: activity.TypeWithdrawal},
		{Amount: 9000, At: minute(7), ID: "w-2", Player: "new", Type: activity.TypeWithdrawal}, // refused
		{At: minute(8), Category: "slots", ID: "b-2", Player: "new", Stake: 1000, Type: activity.TypeBet},
		{At: minute(9), Currency: "KRW", Player: "new", Status: activity.StatusFrozen, Type: activity.TypePlayer},
		{At: minute(10), Source: "bets", Type: activity.TypeWatermark},
	} {
		file = append(line.AppendJSON(file), '\n')
	}
	return string(file)
}

func activityState(ctx context.Context, t *testing.T, trial *trial) string {
	return scalar[string](ctx, t, trial.db, `
		SELECT concat_ws(E'\n',
			(SELECT string_agg(code || ' ' || status, ', ' ORDER BY code) FROM player),
			(SELECT string_agg(code, ', ' ORDER BY code) FROM agent),
			(SELECT string_agg(player || '=' || balance, ' ' ORDER BY player) FROM wallet_balances),
			(SELECT string_agg(concat_ws(' ', player, kind, amount, reference), E'\n' ORDER BY reference, player) FROM ledger_lines),
			(SELECT string_agg(stream || ' ' || key || '#' || key_seq || ' ' || type, E'\n' ORDER BY stream, key, key_seq) FROM outbox_event),
			(SELECT string_agg(source || ' ' || at, ' ' ORDER BY source) FROM input_watermark),
			(SELECT string_agg(concat_ws(' ', quarter_at, code, num_bets, payout_minor, stake_minor), E'\n' ORDER BY quarter_at, code) FROM activity_rollup JOIN player ON player.id = player_id))`)
}

// importing applies a file in batches.
func importing(name string, size int) *operation {
	return &operation{
		name:  name,
		setup: registerLoops,
		run: func(ctx context.Context, t *testing.T, trial *trial) outcome {
			service := activity.New(wallet.New())
			_, err := service.Import(ctx, throughProxy(ctx, t, trial), "file", strings.NewReader(activityLines()), activity.ImportOptions{BatchSize: size})
			return outcomeOf(err)
		},
		state: activityState,
	}
}

func TestActivity(t *testing.T) {
	t.Parallel()
	loopAll(t, []*operation{importing("import_in_batches", 4), importing("import_at_once", 0)})
}
