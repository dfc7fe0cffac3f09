package cli_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_SettlementExplain(t *testing.T) {
	t.Parallel()

	item := cli.SettlementItem{
		Amount: "4000", Arithmetic: []string{"basis: 40000", "result: 4000"}, Currency: "KRW", Delivery: "credited", Disposition: "eligible",
		Reference: "settle/w/2026-W45/p-1/KRW/0", RunID: 12, Version: 2,
	}

	t.Run("PrintsTheArithmeticOfEachRun", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t)
		excluded := cli.SettlementItem{Amount: "0", Arithmetic: []string{"basis: 0"}, Currency: "KRW", Disposition: "excluded", Reason: "winner", RunID: 11, Version: 1}
		bundle.actions.items = []cli.SettlementItem{excluded, item}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "explain", "w", "2026-W45", "p-1"))
		require.Equal(t, []string{"explain w 2026-W45 p-1"}, bundle.actions.calls)
		require.Equal(t, `p-1 in run 11 (version 1, adjustment 0): 0 KRW; excluded, winner
  basis: 0

p-1 in run 12 (version 2, adjustment 0): 4000 KRW; eligible, credited
  basis: 40000
  result: 4000
  reference: settle/w/2026-W45/p-1/KRW/0
`, bundle.out.String())
	})

	t.Run("FailsWhereWhatIsStoredDiffers", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t)
		wrong := item
		wrong.Arithmetic = []string{"differs: gross was stored as 5, this arithmetic makes 6"}
		bundle.actions.items = []cli.SettlementItem{item, wrong}
		require.Equal(t, cli.ExitFailed, bundle.run(t, "settlement", "explain", "w", "2026-W45", "p-1", "--json"))
		require.Contains(t, bundle.out.String(), `"arithmetic"`)
		require.Contains(t, bundle.errOut.String(), "what is stored differs")
	})

	t.Run("WantsThreeNames", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t)
		require.Equal(t, cli.ExitWrongUsage, bundle.run(t, "settlement", "explain", "w", "2026-W45"))
		require.Empty(t, bundle.actions.calls)
	})
}

func TestExecute_SettlementExport(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "export", "12"))
	require.Equal(t, []string{"export 12"}, bundle.actions.calls)
	require.Equal(t, "run_id\n", bundle.out.String())
	require.Equal(t, cli.ExitWrongUsage, setup(t).run(t, "settlement", "export", "twelve"))
}
