package jobs_test

import (
	"encoding/json"
	"testing"

	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"truegreen/jobs"
)

// TestWireFormat keeps what is in the database and in running binaries: a shipped
// field is never renamed or given a new meaning.
func TestWireFormat(t *testing.T) {
	t.Parallel()
	type args interface {
		river.JobArgs
		river.JobArgsWithInsertOpts
	}
	for want, args := range map[string]args{
		`maintenance maintenance {}`:                           jobs.MaintenanceArgs{},
		`outbox_agent outbox_agent {"shard":3}`:                jobs.OutboxAgentArgs{Shard: 3},
		`outbox_rolling outbox_rolling {"shard":3}`:            jobs.OutboxRollingArgs{Shard: 3},
		`outbox_wallet outbox_wallet {"shard":3}`:              jobs.OutboxWalletArgs{Shard: 3},
		`settlement_cashback settlement_cashback {"run_id":3}`: jobs.SettlementCashbackArgs{RunID: 3},
		`settlement_lossback settlement_lossback {"run_id":3}`: jobs.SettlementLossbackArgs{RunID: 3},
		`settlement_rebate settlement_rebate {"run_id":3}`:     jobs.SettlementRebateArgs{RunID: 3},
		`settlement_tick settlement_tick {}`:                   jobs.SettlementTickArgs{},
	} {
		encoded, err := json.Marshal(args)
		require.NoError(t, err)
		require.Equal(t, want, args.Kind()+" "+args.InsertOpts().Queue+" "+string(encoded))
	}
}
