package settlement_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/fault"
)

func TestService_Explain(t *testing.T) {
	t.Parallel()

	for _, tc := range kindCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, defaultConfig())
			bundle.programme(ctx, t, tc.text())
			bundle.stakes(ctx, t, "owed", tc.owed)
			bundle.stakes(ctx, t, "idle", tc.idle)
			bundle.watermarks(ctx, t)
			bundle.work(ctx, t)
			result := bundle.settle(ctx, t)

			explained, err := bundle.service.Explain(ctx, "weekly", week, "owed")
			require.NoError(t, err)
			require.Len(t, explained, 1)
			require.Equal(t, tc.amount, explained[0].Amount)
			require.Equal(t, result.RunID, explained[0].RunID)
			require.Equal(t, "settle/weekly/2026-W45/owed/KRW/0", explained[0].Reference)
			require.NotContains(t, strings.Join(explained[0].Lines, "\n"), "differs")
			explained, err = bundle.service.Explain(ctx, "weekly", week, "idle")
			require.NoError(t, err)
			require.Equal(t, tc.reason, explained[0].Reason)
			require.NotContains(t, strings.Join(explained[0].Lines, "\n"), "differs")

			bundle.exec(ctx, t, "UPDATE settlement_item SET gross_minor = gross_minor + 1 WHERE disposition = 'eligible'")
			explained, err = bundle.service.Explain(ctx, "weekly", week, "owed")
			require.NoError(t, err)
			require.Contains(t, strings.Join(explained[0].Lines, "\n"), "differs: gross was stored as")
		})
	}

	t.Run("FailsForAPlayerWhomNoRunEvaluated", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t, defaultConfig())
		bundle.programme(ctx, t, weekly)
		_, err := bundle.service.Explain(ctx, "weekly", week, "nobody")
		require.True(t, fault.Is(err, fault.KindNotFound))
	})
}

func TestService_Export(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	bundle := setup(ctx, t, defaultConfig())
	bundle.programme(ctx, t, weekly)
	bundle.loser(ctx, t, `odd,"code`, 1000)
	bundle.bet(ctx, t, "winner", 1000, 5000)
	bundle.watermark(ctx, t, weekEnd())
	bundle.work(ctx, t)
	result := bundle.settle(ctx, t)

	var csv bytes.Buffer
	require.NoError(t, bundle.service.Export(ctx, result.RunID, &csv))
	lines := strings.Split(strings.TrimSpace(csv.String()), "\n")
	require.Len(t, lines, 3)
	require.True(t, strings.HasPrefix(lines[0], "run_id,programme,period,player,currency,adj,basis,rate_ppm,gross,capped,amount,disposition,reason,delivery,"), lines[0])
	require.Contains(t, lines[1], `,weekly,2026-W45,"odd,""code",KRW,0,1000.000000,100000,100,100,100,eligible,,credited,`)
	require.Contains(t, lines[2], "winner,KRW,0,-4000.000000,0,0,0,0,excluded,winner,")
	require.Error(t, bundle.service.Export(ctx, result.RunID+1, &csv))
}
