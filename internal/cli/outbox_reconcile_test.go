package cli_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_OutboxReconcile(t *testing.T) {
	t.Parallel()

	wallet := cli.OutboxComparison{FirstSequence: 1, LastSequence: 9, Name: "TRUEGREEN_WALLET", NumMessages: 9, NumPublished: 8, NumRepeats: 1, NumUndelivered: 2, Stream: "wallet"}
	lost := cli.OutboxFinding{Detail: "the row says\npublished", EventID: firstEventID, Key: "p-1/KRW", Kind: "lost", Sequence: 4, Stream: "wallet"}
	withFindings := wallet
	withFindings.Counts = []cli.OutboxFindingCount{{Kind: "lost", Total: 2}, {Kind: "unmarked", Mended: 1, Total: 1}}
	withFindings.NumAdopted = 1

	t.Run("IsGoodWithoutFindings", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.reconciled.Streams = []cli.OutboxComparison{wallet}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "reconcile"), bundle.errOut.String())
		require.Equal(t, []string{"reconcile {Adopt:false As:cli:ana Grace:2m0s Stream:}"}, bundle.actions.calls)
		require.Equal(t, []string{"broker", "database"}, bundle.groups)
		require.Equal(t, `STREAM  MESSAGES  REPEATS  PUBLISHED  UNDELIVERED  PARKED  DISCARDED  IN FLIGHT  EXPIRED  FORGOTTEN  ADOPTED  FINDINGS
wallet  9         1        8          2            0       0          0          0        0          0        0

no findings
`, bundle.out.String())
	})

	t.Run("SaysWhatWasLeftOut", func(t *testing.T) {
		t.Parallel()

		shared := wallet
		shared.NumForeign = 3
		bundle := setup(t)
		bundle.actions.reconciled.Streams = []cli.OutboxComparison{wallet, shared}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "reconcile"), bundle.errOut.String())
		require.Contains(t, bundle.out.String(), "\n\nleft out: 3 messages on subjects of others in TRUEGREEN_WALLET\n\nno findings\n")
	})

	t.Run("IsOneWithFindings", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.reconciled = cli.OutboxReconciled{
			Findings: []cli.OutboxFinding{lost, {Detail: "adopted", Kind: "unmarked", Mended: true, Stream: "wallet"}}, NumOpen: 2, Streams: []cli.OutboxComparison{withFindings},
		}
		require.Equal(t, cli.ExitFindings, bundle.run(t, "outbox", "reconcile", "--adopt", "--as=bo", "--stream=wallet", "--grace=0s"))
		require.Equal(t, []string{"reconcile {Adopt:true As:bo Grace:0s Stream:wallet}"}, bundle.actions.calls)
		require.Contains(t, bundle.out.String(), `
3 findings, 2 of them open: wallet lost 2, wallet unmarked 1
the first 2 of them:

STREAM  FINDING   PLACE  EVENT ID                              KEY      ADOPTED  DETAIL
wallet  lost      4      0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70  p-1/KRW  -        the row says published
wallet  unmarked  -      -                                     -        yes      adopted
`)
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("IsGoodWhenAllWasAdopted", func(t *testing.T) {
		t.Parallel()

		adopted := wallet
		adopted.Counts = []cli.OutboxFindingCount{{Kind: "unmarked", Mended: 1, Total: 1}}
		bundle := setup(t)
		bundle.actions.reconciled.Streams = []cli.OutboxComparison{adopted}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "reconcile", "--adopt"))
		require.Contains(t, bundle.out.String(), "1 finding, 0 of them open: wallet unmarked 1\n")
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.reconciled = cli.OutboxReconciled{Findings: []cli.OutboxFinding{lost}, NumOpen: 2, Streams: []cli.OutboxComparison{withFindings}}
		require.Equal(t, cli.ExitFindings, bundle.run(t, "outbox", "reconcile", "--json"))
		require.JSONEq(t, `{
			"complete": true,
			"findings": [{"detail": "the row says\npublished", "event_id": "`+firstEventID+`", "key": "p-1/KRW", "kind": "lost", "mended": false, "sequence": 4, "stream": "wallet"}],
			"num_open": 2,
			"streams": [{
				"counts": [{"kind": "lost", "mended": 0, "total": 2}, {"kind": "unmarked", "mended": 1, "total": 1}],
				"first_sequence": 1, "last_sequence": 9, "name": "TRUEGREEN_WALLET", "num_adopted": 1, "num_discarded": 0, "num_expired": 0, "num_foreign": 0, "num_forgotten": 0,
				"num_in_flight": 0, "num_lifted": 0, "num_messages": 9, "num_parked": 0, "num_published": 8, "num_recent": 0, "num_repeats": 1, "num_undelivered": 2,
				"stream": "wallet"
			}]
		}`, bundle.out.String())
	})

	t.Run("TellsWhatWasComparedBeforeItFailed", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.reconciled.Streams = []cli.OutboxComparison{wallet}
		bundle.actions.err = errors.New("the broker is away")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "outbox", "reconcile"))
		require.Contains(t, bundle.out.String(), "wallet  9")
		require.NotContains(t, bundle.out.String(), "no findings", "the rest is not known")
		require.Equal(t, "truegreen: the broker is away\n", bundle.errOut.String())

		bundle = setup(t)
		bundle.actions.err = errors.New("the broker is away")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "outbox", "reconcile", "--json"))
		require.JSONEq(t, `{"complete": false, "findings": [], "num_open": 0, "streams": []}`, bundle.out.String())
	})

	for name, tc := range map[string]struct{ flag, err string }{
		"AStreamWithoutAName": {"--stream=", "--stream must not be empty; leave it out for all"},
		"AGraceBelowZero":     {"--grace=-1s", "--grace must not be below 0s, got -1s"},
		"Nobody":              {"--as=", "--as must be given"},
	} {
		t.Run("Refuses"+name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			require.Equal(t, cli.ExitWrongUsage, bundle.run(t, "outbox", "reconcile", tc.flag))
			require.Contains(t, bundle.errOut.String(), tc.err)
			require.Empty(t, bundle.actions.calls)
		})
	}
}
